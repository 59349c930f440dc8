"""Several workers as processes: one that dies comes back, all reload together, metrics add up, none is left over."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genrec.bundle import load_bundle, save_changed_index
from genrec.decoders.onnx_export import export_bundle
from index.maintenance import remove_items
from tests.genrec.onnx_models import native_bundle
from tests.serving.test_serve_command import RUN, environment
from tests.serving.toy_server import index_of_toys

ASK = "/v1/recommendations"
JSON = {"content-type": "application/json"}
BODY = {"history": ["i1", "i5"], "num_results": 5}
ADMIN = {"GENREC_ADMIN_KEYS": "the-key-of-an-admin", "GENREC_HANG_TIMEOUT_S": "8"}
AS_ADMIN = {"authorization": "Bearer the-key-of-an-admin"}


class Service:
    """``genrec serve --workers N`` on a free port; what it logs is read as it comes."""

    def __init__(self, bundle: Path, workers: int = 2, **variables: str) -> None:
        self.process = subprocess.Popen(
            [*RUN, "serve", str(bundle), "--workers", str(workers), "--port", "0"],
            env=environment(**variables), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.log: list[dict[str, Any]] = []
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                self.log.append(json.loads(line))
            else:
                self.said += line

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    def pids(self) -> list[int]:
        """Of all workers that have ever been ready."""
        return [line["worker"] for line in self.events("worker_ready")]

    @property
    def port(self) -> int:
        return int(self.events("serving")[0]["port"])

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert self.process.poll() is None, (self.said, self.log[-5:])
            assert time.monotonic() < end, (self.said, self.log[-5:])
            time.sleep(0.02)

    def ask(self, path: str = ASK, body: Any = BODY, **headers: str) -> tuple[int, Any]:
        """On a connection of its own, so that any worker may get it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body), {**JSON, **headers})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content[:1] == b"{" else content.decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.ask("/metrics", None)[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(40)
        self._reader.join(10)
        return code

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        if self.process.stderr is not None:
            self.process.stderr.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    path = tmp_path / "toy"
    subprocess.run(["cp", "-r", exported, path], check=True)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = native_bundle(tmp_path_factory.mktemp("bundles") / "toy", index_of_toys())
    export_bundle(path)
    return path


@pytest.fixture
def service(bundle: Path) -> Iterator[Service]:
    running = Service(bundle, **ADMIN)
    try:
        running.until(lambda: len(running.events("worker_ready")) == 2)
        yield running
    finally:
        running.end()


def change(bundle: Path, item: str) -> None:
    """Save the bundle anew without an item."""
    opened = load_bundle(bundle)
    save_changed_index(opened.artifact, remove_items(opened.index, [item]), bundle)


def test_a_killed_worker_comes_back_and_the_end_is_in_order(service):
    killed, other = service.pids()
    status = [service.ask()[0] for _ in range(10)]
    os.kill(killed, signal.SIGKILL)
    # A connection it had taken may break; every other one is answered, at once and without it.
    while len(service.pids()) < 3:
        status.append(service.ask()[0])
    assert set(status) == {200}
    (died,) = service.events("worker_died")
    assert (died["worker"], died["code"]) == (killed, -signal.SIGKILL)
    assert service.metric("genrec_workers") == 2  # the gauge of the dead one is gone
    assert service.metric("genrec_worker_starts_total") == 3  # its counters are not
    asked = service.metric(
        'genrec_http_requests_total{method="POST",route="/v1/recommendations",status="200"}'
    )
    assert asked == len(status)  # every answer is counted once, whoever gave it
    os.kill(other, signal.SIGSTOP)  # it lives, holds its connections and does nothing
    service.until(lambda: len(service.pids()) == 4)
    (hung,) = service.events("worker_hung")
    assert hung["worker"] == other
    assert service.ask()[0] == 200
    # Told to stop, it answers what it has taken.
    slow = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=30) for _ in range(4)]
    content = json.dumps(BODY).encode()
    for one in slow:
        one.putrequest("POST", ASK)
        one.putheader("content-type", "application/json")
        one.putheader("content-length", str(len(content)))
        one.endheaders(content[:5])
    service.until(lambda: service.metric("genrec_http_in_flight") == 1 + len(slow))
    service.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    for one in slow:
        one.send(content[5:])
        assert one.getresponse().status == 200
        one.close()
    assert service.stop() == 0
    assert not any(is_alive(pid) for pid in (*service.pids(), other))


@pytest.mark.slow
def test_all_workers_reload_together_and_a_refused_bundle_changes_none(service, bundle):
    def served() -> set[str]:
        return {service.ask()[1]["model"] for _ in range(20)}

    _, before = service.ask()
    change(bundle, before["items"][0]["item_id"])
    assert served() == {before["model"]}
    status, reloaded = service.ask("/v1/admin/reload", {}, **AS_ADMIN)
    assert (status, reloaded["previous"]) == (200, before["model"])
    assert served() == {reloaded["model"]} != {before["model"]}
    assert service.metric('genrec_reloads_total{outcome="done"}') == 2  # both

    manifest = bundle / "manifest.json"
    intact = manifest.read_bytes()
    manifest.write_bytes(intact.replace(b'"bundle"', b'"bundel"'))
    status, refused = service.ask("/v1/admin/reload", {}, **AS_ADMIN)
    assert (status, refused["error"]["code"]) == (422, "bundle_refused")
    service.process.send_signal(signal.SIGHUP)
    service.until(lambda: bool(service.events("reload_refused")))
    assert served() == {reloaded["model"]}

    manifest.write_bytes(intact)
    change(bundle, service.ask()[1]["items"][0]["item_id"])
    service.process.send_signal(signal.SIGHUP)
    service.until(lambda: any("previous" not in line for line in service.events("reloaded")))
    (latest,) = served()
    assert latest not in (before["model"], reloaded["model"])

    change(bundle, service.ask()[1]["items"][0]["item_id"])
    os.kill(service.pids()[0], signal.SIGKILL)  # the one that starts finds a newer bundle: all take it over
    service.until(lambda: len(service.pids()) == 3)
    newest = service.events("worker_ready")[-1]["model"]
    service.until(lambda: service.events("reloaded")[-1]["model"] == newest)
    assert served() == {newest}


@pytest.mark.slow
def test_workers_end_when_their_supervisor_is_killed(service):
    service.process.kill()
    end = time.monotonic() + 20
    while any(is_alive(pid) for pid in service.pids()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_cannot_be_served_is_said_once_and_ends_it(tmp_path):
    service = Service(tmp_path)
    try:
        assert service.process.wait(60) == 1
        service._reader.join(10)
        assert "which has no manifest.json" in service.said
        assert not service.events("worker_died")
    finally:
        service.end()
