"""The files for systemd, containers and Grafana: each is read, and its parts agree with the others.

What systemd itself has to say of its units it is asked, where it is installed.
"""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from filesession.cli.command import commands
from filesession.janitor.metrics import Metrics
from tests.heartbeats import READING

EXAMPLES: Final = Path(__file__).parent.parent.parent / "examples"
JANITOR: Final = "filesession-janitor.service"
SWEEP: Final = "filesession-sweep.service"
TIMER: Final = "filesession-sweep.timer"
UNITS: Final = (JANITOR, SWEEP, TIMER)
PROGRAM: Final = "/opt/myapp/venv/bin/filesession"
STATE: Final = "/var/lib/myapp"

HARDENING: Final = {
    *("AmbientCapabilities", "CapabilityBoundingSet", "DevicePolicy", "IPAddressDeny"),
    *("KeyringMode", "LockPersonality", "MemoryDenyWriteExecute", "NoExecPaths", "NoNewPrivileges"),
    *("PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateNetwork", "PrivateTmp"),
    *("PrivateUsers", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname"),
    *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc"),
    *("ProtectSystem", "ReadWritePaths", "RemoveIPC", "RestrictAddressFamilies"),
    *("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "SocketBindDeny"),
    *("SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter", "UMask"),
}

KNOWN: Final = {
    "Unit": {"Description", "Documentation", "RequiresMountsFor", "StartLimitIntervalSec"},
    "Install": {"WantedBy"},
    "Timer": {"AccuracySec", "OnCalendar", "Persistent", "RandomizedDelaySec"},
    "Service": {
        *("ExecReload", "ExecStart", "IOSchedulingClass", "KillMode", "MemoryMax", "Nice"),
        *("Restart", "RestartSec", "StateDirectory", "TasksMax", "TimeoutStartSec"),
        *("TimeoutStopSec", "Type", "User", "WatchdogSec"),
        *HARDENING,
    },
}
"""Options that systemd has, of those that are used: another is a slip of the pen."""


def unit(name: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(
        strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",)
    )
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string((EXAMPLES / name).read_text())
    return parsed


def hardening(name: str) -> list[tuple[str, str]]:
    """Options and values, in order; one may be there more than once, which a parser forgets."""
    found = re.findall(r"^(\w+)=(.*)$", (EXAMPLES / name).read_text(), re.MULTILINE)
    return [(option, value) for option, value in found if option in HARDENING]


@pytest.fixture
def systemd(tmp_path: Path) -> str:
    """The path of ``systemd-analyze``; beside it, in ``tmp_path``, the units as installed here."""
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed")
    for name in UNITS:
        text = (EXAMPLES / name).read_text()
        (tmp_path / name).write_text(text.replace(PROGRAM, sys.executable))
    return found


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)


class TestUnits:
    @pytest.mark.parametrize("name", UNITS)
    def test_every_option_is_one(self, name: str) -> None:
        parsed = unit(name)
        for section in parsed.sections():
            assert set(parsed[section]) <= KNOWN[section], section

    def test_systemd_finds_no_fault(self, systemd: str, tmp_path: Path) -> None:
        found = run(systemd, "verify", *(str(tmp_path / name) for name in UNITS))
        told = [line for line in found.stderr.splitlines() if "filesession-" in line]
        assert told == []
        assert found.returncode == 0, found.stderr

    @pytest.mark.parametrize("name", [JANITOR, SWEEP])
    def test_systemd_calls_them_safe(self, systemd: str, tmp_path: Path, name: str) -> None:
        options = ("--offline=true", "--threshold=10", "--no-pager")
        found = run(systemd, "security", *options, str(tmp_path / name))
        if "unrecognized option" in found.stderr:
            pytest.skip("this systemd-analyze judges no files; it is older than 250")
        assert found.returncode == 0, found.stdout + found.stderr

    @pytest.mark.parametrize("name", [JANITOR, SWEEP])
    def test_the_directory_is_where_it_may_write_and_nothing_may_run(self, name: str) -> None:
        parsed = unit(name)
        service = parsed["Service"]
        words = service["ExecStart"].split()
        assert words[:3] == [PROGRAM, "janitor", f"{STATE}/sessions"]
        assert service["ReadWritePaths"] == service["NoExecPaths"] == STATE
        assert parsed["Unit"]["RequiresMountsFor"] == f"/var/lib/{service['StateDirectory']}"
        assert not PROGRAM.startswith(STATE)

    def test_both_are_hardened_alike(self) -> None:
        janitor, sweep = hardening(JANITOR), hardening(SWEEP)
        assert {name for name, _ in janitor} == HARDENING
        assert set(janitor) - set(sweep) == {("RestrictAddressFamilies", "AF_UNIX")}  # to notify by
        assert set(sweep) - set(janitor) == {("RestrictAddressFamilies", "none")}

    def test_systemd_is_told_by_the_one_that_stays_and_waits_for_the_other(self) -> None:
        janitor, sweep = unit(JANITOR)["Service"], unit(SWEEP)["Service"]
        assert janitor["Type"] == "notify"
        assert janitor["ExecReload"].endswith("kill -HUP $MAINPID")
        assert int(janitor["WatchdogSec"]) > 0
        assert sweep["Type"] == "oneshot"
        assert sweep["ExecStart"].endswith(" --once")

    def test_the_timer_is_of_the_sweep(self) -> None:
        assert Path(TIMER).stem == Path(SWEEP).stem
        assert "Unit" not in unit(TIMER)["Timer"]
        assert "Install" not in unit(SWEEP)

    @pytest.mark.parametrize("name", UNITS)
    def test_what_a_comment_names_is_in_the_file_or_beside_it(self, name: str) -> None:
        text = (EXAMPLES / name).read_text()
        comments = "\n".join(re.findall(r"^#.*", text, re.MULTILINE))
        for option in re.findall(r"\b([A-Z][A-Za-z]+)=", comments):
            assert re.search(f"^{option}=", text, re.MULTILINE), option
        for file in re.findall(r"filesession-\w+\.(?:service|timer)", comments):
            assert (EXAMPLES / file).exists(), file


class TestCommands:
    def test_every_option_that_is_shown_is_one_that_the_help_tells_of(self) -> None:
        text = "".join((EXAMPLES / name).read_text() for name in (*UNITS, "compose.yaml"))
        lines = [words.split() for words in re.findall(r"ExecStart=\S+/filesession (.+)", text)]
        lines += [json.loads(words)[1:] for words in re.findall(r'command: (\["f.+\])', text)]
        assert [words[0] for words in lines] == ["janitor"] * 4
        remarked = re.findall(r"^ *#.*$", text, re.MULTILINE)
        ours = [line for line in remarked if not re.search(r"systemctl|podman", line)]
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(ours)))
        options |= {word for words in lines for word in words if word.startswith("-")}
        assert options >= {"--once", "--metrics", "--on-expired"}
        result = CliRunner().invoke(commands, ["janitor", "--help"])
        assert options <= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", result.output))


def service_lines(name: str) -> dict[str, str]:
    """What ``compose.yaml`` says of a service, the keys of one line each."""
    text = (EXAMPLES / "compose.yaml").read_text()
    block = re.search(rf"^  {name}:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert block is not None
    return dict(re.findall(r"^    ([a-z_]+): (.+)$", block[1], re.MULTILINE))


class TestContainers:
    def test_application_and_janitor_share_image_user_and_volume_and_no_privileges(self) -> None:
        web, janitor = service_lines("web"), service_lines("janitor")
        for key in ("image", "user", "volumes", "read_only", "cap_drop", "security_opt"):
            assert web[key] == janitor[key]
        assert web["volumes"] == f'["sessions:{STATE}"]'
        assert web["cap_drop"] == "[ALL]"
        assert janitor["network_mode"] == "none"

    def test_nothing_of_the_host_is_given_to_them(self) -> None:
        text = (EXAMPLES / "compose.yaml").read_text()
        assert not re.search(r"\.sock|privileged: true|pid: host|network_mode: host", text)
        assert re.search(r"^volumes:\n  sessions:\n\Z", text, re.MULTILINE)

    def test_the_janitor_looks_where_the_application_stores(self) -> None:
        image = (EXAMPLES / "Containerfile").read_text()
        command = json.loads(service_lines("janitor")["command"])
        assert command == ["filesession", "janitor", f"{STATE}/sessions"]
        assert f"FILESESSION_DIR={STATE}/sessions" in image
        user = service_lines("web")["user"].strip('"')
        uid, gid = user.split(":")
        assert f"install -d -o {uid} -g {gid} {STATE}" in image
        assert f"\nUSER {user}\n" in image

    def test_the_image_is_made_of_what_is_there(self) -> None:
        image = (EXAMPLES / "Containerfile").read_text()
        for sources in re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE):
            for source in sources.split():
                assert (EXAMPLES.parent / source).exists(), source
        (words,) = re.findall(r"^CMD (\[.+\])$", image, re.MULTILINE)
        program, app, *_ = json.loads(words)
        assert program == "uvicorn"
        assert (EXAMPLES / f"{app.partition(':')[0]}.py").exists()

    def test_there_are_no_tabs_and_no_odd_indents(self) -> None:
        for line in (EXAMPLES / "compose.yaml").read_text().splitlines():
            assert re.match(r"(  )*[^ \t]|\Z", line), line


@pytest.fixture
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    return found


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


class TestDashboard:
    def test_it_shows_every_figure_and_none_that_there_is_not(
        self, dashboard: dict[str, Any], tmp_path: Path
    ) -> None:
        Metrics(lambda: [READING]).write(str(tmp_path / "filesession.prom"))
        text = (tmp_path / "filesession.prom").read_text()
        families = text_string_to_metric_families(text)
        exported = {sample.name for family in families for sample in family.samples}
        shown = set(re.findall(r"\bfilesession_\w+", " ".join(expressions(dashboard))))
        assert shown == exported

    def test_counters_are_shown_by_their_growth_and_gauges_as_they_are(
        self, dashboard: dict[str, Any]
    ) -> None:
        for expression in expressions(dashboard):
            for function, name in re.findall(r"(\w+) ?\((filesession_\w+)\{", expression):
                grows = name.endswith(("_total", "_sum", "_count"))
                assert (function in {"rate", "increase"}) == grows, expression

    def test_every_figure_is_of_the_directories_and_the_source_that_were_chosen(
        self, dashboard: dict[str, Any]
    ) -> None:
        variables = {each["name"]: each for each in dashboard["templating"]["list"]}
        assert variables.keys() == {"datasource", "directory"}
        assert variables["datasource"]["type"] == "datasource"
        source = {"type": "prometheus", "uid": "${datasource}"}
        assert variables["directory"]["datasource"] == source
        for panel in dashboard["panels"]:
            assert panel["datasource"] == source
            assert all(target["datasource"] == source for target in panel["targets"])
        for expression in expressions(dashboard):
            selectors = re.findall(r"filesession_\w+(\{.*?\})", expression)
            assert selectors
            assert set(selectors) == {'{directory=~"$directory"}'}
            assert expression.count("(") == expression.count(")")

    def test_every_panel_has_a_number_a_title_and_words(self, dashboard: dict[str, Any]) -> None:
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["type"] in {"timeseries", "stat"}
            assert panel["title"]
            assert panel["description"].endswith(".")
            letters = [target["refId"] for target in panel["targets"]]
            assert letters == [*"ABCDEF"[: len(letters)]]

    def test_no_panel_lies_on_another_or_beside_the_page(self, dashboard: dict[str, Any]) -> None:
        places = [panel["gridPos"] for panel in dashboard["panels"]]
        assert all(place["x"] + place["w"] <= 24 for place in places)
        for a, b in combinations(places, 2):
            beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            assert beside or below, (a, b)
