"""The command as a whole: help, errors, exit codes, and what it must not load or leak."""

from __future__ import annotations

import importlib
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from filesession.cli.command import commands
from filesession.stores.entry import handle_of
from filesession.stores.file.store import FileStore

COMMANDS = ["janitor", "status", "top", "doctor", "ls", "show", "destroy", "sweep"]
COMMANDS += ["migrate", "genkey"]
SAYS_SOMETHING = [
    "ls",
    "ls --json",
    "status",
    "status --json",
    "top",
    "doctor",
    "sweep",
    "--help",
    "genkey",
]
WITH_DIRECTORY = ["janitor --once", "status", "top", "ls", "show 0123", "destroy 0123", "sweep"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments)


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "filesession", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def filled(store: FileStore, line: str) -> list[str]:
    """The words of a line of ``SAYS_SOMETHING`` for a shell, with the directory put in."""
    name, *rest = line.split()
    directory = [] if name in {"--help", "genkey"} else [store.directory]
    return [sys.executable, "-m", "filesession", name, *directory, *rest]


def on(directory: object, line: str) -> Result:
    """Run a command of ``WITH_DIRECTORY`` on a directory."""
    name, *rest = line.split()
    return run(name, str(directory), *rest)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "sessions")


def test_the_help_names_every_command_and_the_exit_codes() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f" {name} " in result.output
    for words in ("Exit codes: 0", "1 something is wrong", "2 it could not run", "3 no janitor"):
        assert words in " ".join(result.output.split())
    panel = result.output.split("Commands ─")[1].splitlines()
    told = [line.split()[1] for line in panel if line.startswith("│")]
    assert [name for name in told if name in COMMANDS] == COMMANDS


def test_a_tool_that_imports_every_module_runs_no_command() -> None:
    importlib.import_module("filesession.__main__")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help_with_an_example_and_its_exit_codes(name: str, option: str) -> None:
    result = run(name, option)
    assert result.exit_code == 0
    assert f"$ filesession {name}" in result.output
    assert "Exit codes: 0" in result.output
    assert "2 it could" in " ".join(result.output.split())


def test_without_a_command_it_explains_itself() -> None:
    result = process()
    assert "Usage: filesession" in result.stdout + result.stderr
    assert result.returncode == 2


def test_it_runs_as_a_module_and_tells_its_version() -> None:
    result = process("--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("filesession 0")


def test_it_runs_as_a_script(store: FileStore) -> None:
    script = Path(sys.executable).with_name("filesession")
    result = subprocess.run(
        [script, "sweep", store.directory], capture_output=True, text=True, timeout=30, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "swept 0 sessions in 0.00 s: none expired\n"


@pytest.mark.parametrize("arguments", [["bogus"], ["ls"], ["ls", "a", "b"], ["sweep", ".", "--x"]])
def test_what_the_command_does_not_know_is_exit_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["lss"], "ls"), (["show", ".", "--jsn"], "--json"), (["--hepl"], "--help")],
)
def test_what_is_nearly_right_is_told_what_it_nearly_was(arguments: list[str], name: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert f"is it {name}?" in result.stderr


PASTED = "W7bTq0example-of-an-id-as-ours-are_0123456789"


@pytest.mark.parametrize("pasted", [PASTED, f"-{PASTED}", f"--{PASTED}"])
@pytest.mark.parametrize(
    "line",
    [
        "PASTED",
        "-- PASTED",
        "show DIR PASTED",
        "show DIR -- PASTED",
        "show DIR 7441 PASTED",
        "show PASTED 7441 PASTED",
        "show DIR --json=PASTED 7441",
        "show DIR 7441 --PASTED",
        "destroy DIR PASTED",
        "destroy DIR --all PASTED",
        "ls DIR PASTED",
        "status DIR -- PASTED",
        "sweep DIR --limit PASTED",
        "janitor DIR --interval PASTED",
        "genkey PASTED",
    ],
)
def test_an_id_that_was_pasted_in_the_wrong_place_is_not_repeated(
    store: FileStore, line: str, pasted: str
) -> None:
    words = line.replace("PASTED", pasted).replace("DIR", store.directory).split()
    result = run(*words)
    assert result.exit_code == 2
    assert PASTED[1:20] not in result.output


@pytest.mark.parametrize("command", ["show", "destroy"])
@pytest.mark.parametrize("hyphens", ["-", "--"])
def test_an_id_that_begins_like_an_option_is_told_what_a_handle_is(
    store: FileStore, command: str, hyphens: str
) -> None:
    result = run(command, store.directory, hyphens + PASTED)
    assert result.exit_code == 2
    words = " ".join(result.stderr.replace("│", " ").split())
    assert "4 to 32 hex digits" in words
    assert "a session's id is none" in words


@pytest.mark.parametrize("line", [*WITH_DIRECTORY, "doctor"])
def test_an_empty_path_is_not_the_current_directory(
    line: str, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.directory)
    result = on("", line)
    assert result.exit_code == 2
    assert "the path of the session directory is empty" in result.stderr


@pytest.mark.parametrize("line", WITH_DIRECTORY)
def test_a_directory_that_is_not_there_is_one_line_and_exit_2(line: str, tmp_path: Path) -> None:
    result = on(tmp_path / "nowhere", line)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: there is no directory {tmp_path / 'nowhere'}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("line", WITH_DIRECTORY)
def test_a_file_in_place_of_a_directory_is_one_line_and_exit_2(line: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    result = on(file, line)
    assert result.exit_code == 2
    assert f"{file} is not a directory" in result.stderr


@pytest.mark.parametrize("line", WITH_DIRECTORY)
def test_a_directory_without_sessions_is_one_line_and_exit_2(line: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(0o700)
    result = on(other, line)
    assert result.exit_code == 2
    assert "is no session directory" in result.stderr
    assert list(other.iterdir()) == []


@pytest.mark.parametrize("line", [*WITH_DIRECTORY, "janitor", "doctor"])
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777])
def test_no_command_is_offered_that_would_change_a_directory_which_never_was_ours(
    line: str, mode: int, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "sessions").mkdir()
    (other / "sessions" / "notes.txt").touch()
    other.chmod(mode)
    result = on(other, line)
    assert result.exit_code == 2
    assert f"{other} is no session directory: it has no filesession.json" in result.stderr
    assert "chmod" not in result.output
    assert "python" not in result.output


@pytest.mark.parametrize("line", ["status /", "doctor /", "ls /etc"])
def test_nor_one_that_would_change_the_system(line: str) -> None:
    result = run(*line.split())
    assert result.exit_code == 2
    assert "is no session directory" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("line", [*WITH_DIRECTORY, "janitor"])
def test_root_is_told_to_look_as_the_user_whose_it_is(line: str, store: FileStore) -> None:
    os.chown(store.directory, 1, -1)
    result = on(store.directory, line)
    name = pwd.getpwuid(1).pw_name
    assert result.exit_code == 2
    assert f"belongs to user {name} and this process runs as root" in result.stderr
    assert f"sudo -u {name} filesession status {store.directory}\n" in result.stderr
    assert "chown" not in result.stderr


@pytest.mark.parametrize("line", WITH_DIRECTORY)
def test_a_directory_open_to_all_is_refused_with_what_mends_it(line: str, store: FileStore) -> None:
    os.chmod(store.directory, 0o777)  # noqa: S103 - that is what is refused
    result = on(store.directory, line)
    assert result.exit_code == 2
    assert "is open to other users (mode 0777)" in result.stderr
    assert f"chmod 700 {store.directory}" in result.stderr


def test_an_error_is_one_line_whatever_the_path_has_in_it(tmp_path: Path) -> None:
    result = run("ls", str(tmp_path / "a\nb\x1b[31m"))
    assert result.stderr.count("\n") == 1
    assert "a\\u000ab\\u001b[31m" in result.stderr


def test_an_error_of_the_system_is_a_line_too(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: FileStore) -> int:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(FileStore, "clear", fail)
    result = run("destroy", store.directory, "--all", "--yes")
    assert result.exit_code == 2
    assert result.stderr == "error: [Errno 13] Permission denied: '/x'\n"


def test_an_interrupt_is_no_error_of_ours(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(store: FileStore) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(FileStore, "clear", interrupt)
    result = run("destroy", store.directory, "--all", "--yes")
    assert (result.exit_code, result.stderr) == (130, "")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_error_of_ours(store: FileStore, options: list[str]) -> None:
    for _ in range(1500):  # more than a pipe holds
        store.create()
    command = [sys.executable, "-m", "filesession", "ls", store.directory, *options]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.readline()
        writer.stdout.close()
        assert writer.stderr.read() == ""
    assert writer.returncode == 128 + 13


@pytest.mark.parametrize("line", SAYS_SOMETHING)
def test_nor_is_a_reader_that_was_never_there(store: FileStore, line: str) -> None:
    store.create()
    nobody, pipe = os.pipe()
    os.close(nobody)
    command = filled(store, line)
    with os.fdopen(pipe, "w") as output:
        result = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert (result.returncode, result.stderr) == (128 + 13, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", SAYS_SOMETHING)
def test_output_that_cannot_be_written_is_one_line_and_exit_2(
    store: FileStore, line: str, unbuffered: str
) -> None:
    store.create()
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            filled(store, line),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith("No space left on device\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", ">&- 2>&-"])
@pytest.mark.parametrize("line", [*SAYS_SOMETHING, "destroy --all"])
def test_output_that_nobody_wants_is_no_reason_to_fail(
    store: FileStore, line: str, closed: str
) -> None:
    handle = handle_of(store.create().id)
    usual = {"status": 3, "status --json": 3, "doctor": 1, "destroy --all": 2}.get(line, 0)
    shell = ["sh", "-c", f'"$@" {closed}', "sh"]
    for words in (filled(store, line), filled(store, f"show {handle}")):
        result = subprocess.run(
            [*shell, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
        assert result.returncode == (usual if words[3] != "show" else 0)
        assert b"Traceback" not in result.stderr


LOADS = """
import sys
from click.testing import CliRunner
from filesession.cli.command import commands
for line in ("status", "top", "ls", "sweep", "doctor"):
    CliRunner().invoke(commands, [line, sys.argv[1]])
CliRunner().invoke(commands, ["genkey"])
print([name for name in sys.modules if name.startswith("apscheduler")])
"""


def test_only_the_janitor_waits_for_its_scheduler_to_load(store: FileStore) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOADS, store.directory],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert result.stdout == "[]\n"


def test_no_command_prints_a_session_id(store: FileStore) -> None:
    sids = [store.create({"n": n}).id for n in range(3)]
    handle = next(store.scan()).handle
    said = ""
    for line in (*WITH_DIRECTORY, "ls --json", "status --json", "doctor", f"show {handle} --json"):
        result = on(store.directory, line)
        said += result.output
    result = run("show", store.directory, sids[0])
    assert result.exit_code == 2
    said += result.output
    assert not any(sid in said for sid in sids)
