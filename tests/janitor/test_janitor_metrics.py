"""Figures for Prometheus: asked for over HTTP or written, and read by its own parsers."""

from __future__ import annotations

import gzip
import http.client
import logging
import os
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from filesession.errors import ConfigurationError, StoreFull, StoreUnavailable
from filesession.janitor import metrics as module
from filesession.janitor.metrics import Metrics
from filesession.janitor.reading import Reading
from filesession.testing.faults import SystemCalls, each, failing
from tests.heartbeats import READING

PATIENCE: Final = 20

EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - bound for a moment, to see that it can be

EXPECTED: Final = {
    "filesession_leader": 1,
    "filesession_sessions": 12,
    "filesession_bytes": 3400,
    "filesession_created_total": 20,
    "filesession_expired_total": 7,
    "filesession_freed_bytes_total": 1400,
    "filesession_corrupt_total": 1,
    "filesession_failed_total": 2,
    "filesession_sweep_seconds_count": 30,
    "filesession_sweep_seconds_sum": 0.75,
    "filesession_lag_seconds": 1.5,
    "filesession_full_looks_total": 3,
    "filesession_overflows_total": 4,
    "filesession_held": 0,
    "filesession_hook_dropped_total": 5,
}


class Janitor:
    """Whose figures these are; reading them fails, or waits, when a test says so."""

    def __init__(self) -> None:
        self.readings = [READING]
        self.failure: Exception | None = None
        self.reading = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def read(self) -> Iterator[Reading]:
        self.reading.release()
        assert self.gate.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        yield from self.readings


@pytest.fixture
def janitor() -> Iterator[Janitor]:
    made = Janitor()
    yield made
    made.gate.set()


@pytest.fixture
def metrics(janitor: Janitor) -> Iterator[Metrics]:
    made = Metrics(janitor.read)
    yield made
    made.close()


@pytest.fixture
def address(metrics: Metrics) -> str:
    return metrics.serve(":0")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "filesession.janitor")
    return caplog


def get(address: str, path: str = "/metrics", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def values(text: str, directory: str = "/sessions") -> dict[str, float]:
    labels = {"directory": directory}
    return {sample.name: sample.value for sample in samples(text) if sample.labels == labels}


def scraped(address: str) -> str:
    with get(address) as answer:
        assert answer.status == 200
        return answer.read().decode()


class TestFigures:
    def test_each_is_told_with_the_directory_it_is_of(self, address: str) -> None:
        text = scraped(address)
        assert values(text) == EXPECTED
        assert len(samples(text)) == len(EXPECTED)

    def test_each_has_its_type_and_words_that_explain_it(self, address: str) -> None:
        for family in text_string_to_metric_families(scraped(address)):
            counts = any(sample.name.endswith("_total") for sample in family.samples)
            sums = any(sample.name.endswith("_sum") for sample in family.samples)
            assert family.type == ("counter" if counts else "summary" if sums else "gauge")
            assert family.documentation.endswith(".")
            assert len(family.documentation) > 30

    def test_what_is_not_known_yet_is_left_out(self, janitor: Janitor, address: str) -> None:
        janitor.readings = [replace(READING, sessions=None, bytes=None)]
        left = EXPECTED.keys() - {"filesession_sessions", "filesession_bytes"}
        assert values(scraped(address)).keys() == left

    def test_one_that_stands_by_says_so_and_nothing_more(
        self, janitor: Janitor, address: str
    ) -> None:
        janitor.readings = [replace(READING, leads=False, directory="/other", held="x"), READING]
        text = scraped(address)
        assert values(text, "/other") == {"filesession_leader": 0}
        assert values(text) == EXPECTED

    def test_one_that_holds_back_says_so(self, janitor: Janitor, address: str) -> None:
        janitor.readings = [replace(READING, held="the clock was set")]
        assert values(scraped(address))["filesession_held"] == 1

    def test_they_are_read_anew_for_each_scrape(self, janitor: Janitor, address: str) -> None:
        assert values(scraped(address))["filesession_sessions"] == 12
        janitor.readings = [replace(READING, sessions=13)]
        assert values(scraped(address))["filesession_sessions"] == 13

    @pytest.mark.parametrize(
        ("directory", "label"),
        [(None, ""), ('/a "b"\\\n', '/a "b"\\\n'), ("/s\udce9", "/s\\udce9"), ("/é", "/é")],
    )
    def test_a_directory_of_any_name_is_told(
        self, janitor: Janitor, address: str, directory: str | None, label: str
    ) -> None:
        janitor.readings = [replace(READING, directory=directory)]
        assert values(scraped(address), label) == EXPECTED

    def test_nothing_is_read_before_somebody_asks(self, janitor: Janitor, address: str) -> None:
        assert not janitor.reading.acquire(blocking=False)
        scraped(address)
        assert janitor.reading.acquire(blocking=False)

    def test_no_directory_is_no_failure(self, janitor: Janitor, address: str) -> None:
        janitor.readings = []
        assert samples(scraped(address)) == []


class TestServing:
    def test_a_scraper_may_ask_for_openmetrics(self, address: str) -> None:
        accept = "application/openmetrics-text; version=1.0.0"
        with get(address, Accept=accept) as answer:
            assert answer.headers["Content-Type"].startswith(accept)
            text = answer.read().decode()
        families = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        told = {sample.name: sample.value for family in families for sample in family.samples}
        assert told == EXPECTED

    def test_a_scraper_may_ask_for_it_compressed_and_for_some_of_it(self, address: str) -> None:
        path = "/metrics?name[]=filesession_leader&name[]=filesession_sweep_seconds_sum"
        with get(address, path, **{"Accept-Encoding": "gzip"}) as answer:
            text = gzip.decompress(answer.read()).decode()
        names = {"filesession_leader", "filesession_sweep_seconds_sum"}
        assert values(text).keys() == names

    def test_any_client_is_answered(self, address: str) -> None:
        answer = httpx.get(f"http://{address}/metrics", trust_env=False)
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert values(answer.text) == EXPECTED

    def test_elsewhere_it_says_where_the_figures_are(self, address: str) -> None:
        for path in ("/", "/metrics/x", "/favicon.ico"):
            with get(address, path) as answer:
                assert answer.status == 404
                assert answer.read() == b"the figures are at /metrics\n"

    def test_a_read_that_fails_is_an_answer_and_said_once_until_it_works_again(
        self, janitor: Janitor, address: str, log: pytest.LogCaptureFixture
    ) -> None:
        janitor.failure = RuntimeError("not now")
        for _ in range(2):
            with get(address) as answer:
                assert answer.status == 500
                assert b"the janitor's log says why" in answer.read()
        janitor.failure = None
        assert values(scraped(address)) == EXPECTED
        said = [record.getMessage() for record in log.records]
        assert said == ["/metrics: RuntimeError: not now", "/metrics works again"]

    def test_nobody_waits_for_one_whose_reading_takes_long_or_who_says_nothing(
        self, janitor: Janitor, address: str
    ) -> None:
        host, port = address.split(":")
        janitor.gate.clear()
        slow: list[str] = []
        thread = threading.Thread(target=lambda: slow.append(scraped(address)))
        with socket.create_connection((host, int(port)), PATIENCE):
            thread.start()
            try:
                assert janitor.reading.acquire(timeout=PATIENCE)
                with get(address, "/") as answer:
                    assert answer.status == 404
                assert not slow
            finally:
                janitor.gate.set()
                thread.join(PATIENCE)
        assert values(slow[0]) == EXPECTED

    def test_one_who_says_nothing_is_hung_up_on_and_not_said(
        self,
        metrics: Metrics,
        monkeypatch: pytest.MonkeyPatch,
        log: pytest.LogCaptureFixture,
        capfd: Any,
    ) -> None:
        assert module._Handler.timeout == module.PATIENCE
        monkeypatch.setattr(module._Handler, "timeout", 0.05)
        host, port = metrics.serve(":0").split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as silent:
            assert silent.recv(1) == b""
        assert not log.records
        assert capfd.readouterr() == ("", "")

    def test_one_who_does_not_take_the_answer_is_hung_up_on_and_not_said(
        self,
        janitor: Janitor,
        metrics: Metrics,
        monkeypatch: pytest.MonkeyPatch,
        log: pytest.LogCaptureFixture,
        capfd: Any,
    ) -> None:
        monkeypatch.setattr(module._Handler, "timeout", 0.05)
        janitor.readings = [replace(READING, directory=f"/{number:0200}") for number in range(4000)]
        host, port = metrics.serve(":0").split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as lazy:
            lazy.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert janitor.reading.acquire(timeout=PATIENCE)
            for thread in threading.enumerate():
                if "process_request" in thread.name:
                    thread.join(PATIENCE)
                    assert not thread.is_alive()
        assert not log.records
        assert capfd.readouterr() == ("", "")

    def test_one_who_goes_away_in_the_middle_is_not_said(
        self, janitor: Janitor, address: str, log: pytest.LogCaptureFixture, capfd: Any
    ) -> None:
        janitor.readings = [replace(READING, directory=f"/{number:0200}") for number in range(1000)]
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as leaving:
            leaving.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert leaving.recv(1)
        janitor.readings = [READING]
        assert values(scraped(address)) == EXPECTED
        assert not log.records
        assert capfd.readouterr() == ("", "")

    def test_a_closed_one_gives_its_address_back_and_may_serve_again(
        self, metrics: Metrics, address: str
    ) -> None:
        metrics.close()
        with pytest.raises(ConnectionRefusedError):
            get(address)
        assert metrics.serve(address) == address
        assert values(scraped(address)) == EXPECTED
        metrics.close()
        metrics.close()

    def test_it_is_closed_without_waiting_for_the_next_look_at_whether_it_is(
        self, metrics: Metrics
    ) -> None:
        before = time.monotonic()
        for _ in range(6):
            metrics.serve(":0")
            metrics.close()
        assert time.monotonic() - before < 1.5  # a look every half second would make it three


class TestAddress:
    @pytest.mark.parametrize(
        ("address", "host"),
        [(":0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", EVERYWHERE)],
    )
    def test_where_it_listens_is_told(self, metrics: Metrics, address: str, host: str) -> None:
        found, port = metrics.serve(address).split(":")
        assert found == host
        assert int(port) > 0
        assert values(scraped(f"127.0.0.1:{port}")) == EXPECTED

    def test_an_address_of_version_six_is_in_brackets(self, metrics: Metrics) -> None:
        if not has_version_six():
            pytest.skip("this machine has no IPv6")
        bound = metrics.serve("[::1]:0")
        assert bound.startswith("[::1]:")
        assert values(scraped(bound)) == EXPECTED

    @pytest.mark.parametrize(
        "address",
        ["", "9464", "127.0.0.1", "::1:9464", "host:", "host:x", ":-1", ":65536", ":٣", ":1e3"],
    )
    def test_one_that_is_none_is_refused_with_an_example(
        self, metrics: Metrics, address: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:9464 or \[::1\]:9464"):
            metrics.serve(address)

    def test_one_that_is_taken_is_refused_with_what_to_do(
        self, metrics: Metrics, address: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"in use; choose another port"):
            metrics.serve(address)

    @pytest.mark.parametrize("address", ["nosuchhost.invalid:0", "192.0.2.1:0", "[:::1]:0"])
    def test_one_that_is_not_of_this_machine_is_refused_with_what_to_do(
        self, metrics: Metrics, address: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="name an address of this machine"):
            metrics.serve(address)


def has_version_six() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


class TestTextfile:
    def test_it_holds_the_figures_for_all_to_read_whatever_the_umask(
        self, metrics: Metrics, tmp_path: Path
    ) -> None:
        path = tmp_path / "filesession.prom"
        before = os.umask(0o077)
        try:
            metrics.write(str(path))
        finally:
            os.umask(before)
        assert values(path.read_text()) == EXPECTED
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_it_is_replaced_and_never_half_written(
        self, janitor: Janitor, metrics: Metrics, tmp_path: Path
    ) -> None:
        path = tmp_path / "filesession.prom"
        metrics.write(str(path))
        with path.open() as old:
            janitor.readings = [replace(READING, sessions=13)]
            metrics.write(str(path))
            assert values(old.read()) == EXPECTED
        assert values(path.read_text())["filesession_sessions"] == 13
        assert os.listdir(tmp_path) == ["filesession.prom"]

    def test_one_that_cannot_be_written_is_an_error_and_the_old_one_intact(
        self, metrics: Metrics, tmp_path: Path
    ) -> None:
        path = tmp_path / "filesession.prom"
        full = OSError(28, "No space left on device")
        failed = []
        for calls in each(lambda nth: failing(full, nth)):
            path.write_text("old")
            with calls, suppress(StoreFull):
                metrics.write(str(path))
                assert "unlink" in calls.names()
                continue
            failed.append(calls.calls[-2].name)  # the last one clears up
            assert path.read_text() == "old"
            assert os.listdir(tmp_path) == ["filesession.prom"]
        assert failed == ["open", "fchmod", "write", "chmod", "rename"]

    def test_an_error_names_the_file_and_what_to_do(self, metrics: Metrics, tmp_path: Path) -> None:
        path = tmp_path / "filesession.prom"
        full = OSError(28, "No space left on device")
        said = f"writing {path}: No space left on device; free some space"
        with SystemCalls(failing(full)), pytest.raises(StoreFull, match=re.escape(said)):
            metrics.write(str(path))

    def test_one_whose_directory_is_not_there_is_an_error(
        self, metrics: Metrics, tmp_path: Path
    ) -> None:
        with pytest.raises(StoreUnavailable, match="No such file or directory"):
            metrics.write(str(tmp_path / "nowhere" / "filesession.prom"))

    def test_a_read_that_fails_is_that_failure_and_the_old_one_intact(
        self, janitor: Janitor, metrics: Metrics, tmp_path: Path
    ) -> None:
        path = tmp_path / "filesession.prom"
        path.write_text("old")
        janitor.failure = OSError(5, "read")
        with pytest.raises(OSError, match="read"):
            metrics.write(str(path))
        assert path.read_text() == "old"


def test_where_the_library_is_missing_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'filesession\[metrics\]'"):
        Metrics(list)
