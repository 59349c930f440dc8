"""``genrec serve`` as a user starts it: a process of its own, a bundle on disk, a port of the system's choice."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.bundle import load_bundle, save_bundle, save_changed_index
from genrec.cli.main import main
from genrec.native_config import NativeConfig
from genrec.native_model import NativeModel
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from index.item_index import SEMANTIC_ID
from index.maintenance import remove_items
from serving.process import warn_if_open
from serving.settings import Settings
from tests.toy import toy_index

RUN = [sys.executable, "-c", "from genrec.cli.main import main; main()"]
KEY = "the-key-of-an-admin"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle whose model has random weights."""
    path, built = tmp_path_factory.mktemp("bundles") / "toy", toy_index()
    torch.manual_seed(0)
    model = NativeModel(NativeConfig(built.level_sizes, hidden_size=16, layers=1, heads=2), built.codes)
    save_bundle(
        path,
        built,
        model.save,
        family="native",
        tasks={SEMANTIC_ID: TaskDefaults(beam=7)},
        trained_events=np.zeros(0, np.uint64),
        facts={},
    )
    return path


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GENREC_")}
    return {**plain, "OMP_NUM_THREADS": "1", **more}


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    log: list[dict[str, Any]]


@contextmanager
def serving(*arguments: object, **variables: str) -> Iterator[Running]:
    """A running server; after the block it has stopped, and its log is whole."""
    process = subprocess.Popen(
        [*RUN, "serve", *map(str, arguments), "--port", "0"],
        env=environment(**variables), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log: list[dict[str, Any]] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            log.append(json.loads(line))
            if log[-1]["event"] == "serving":
                yield Running(process, log[-1]["port"], log)
                break
        else:
            raise AssertionError(f"the server did not start: {log}")
        process.send_signal(signal.SIGTERM)
        log.extend(json.loads(line) for line in process.stderr)
        # uvicorn ends by the signal it was sent, once everything is closed.
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def ask(port: int, path: str, body: Any, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, json.dumps(body), {**JSON, **headers})
    answer = connection.getresponse()
    result = answer.status, json.loads(answer.read())
    connection.close()
    return result


def metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def wait_until(holds: Callable[[], bool]) -> None:
    """Ask a few times a second: every request is a line in a log that nobody reads meanwhile."""
    patience = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < patience
        time.sleep(0.2)


def without(bundle: Path, item_id: str) -> None:
    """Remove an item from the bundle on disk."""
    opened = load_bundle(bundle)
    save_changed_index(opened.artifact, remove_items(opened.index, [item_id]), bundle)


def test_a_bundle_is_served_reloaded_and_stopped(bundle, tmp_path):
    body = {"history": ["i1", "i5"], "num_results": 5}
    admin = {"authorization": f"Bearer {KEY}"}
    (tmp_path / "keys").write_text(f"{KEY}\n")
    with serving(bundle, "--admin-keys-file", tmp_path / "keys", GENREC_MAX_RESULTS="5") as running:
        port = running.port
        status, before = ask(port, "/v1/recommendations", body)
        expected = Recommender.load(bundle).recommend(["i1", "i5"], 5)
        assert status == 200
        assert [one["item_id"] for one in before["items"]] == [one.item_id for one in expected.items]
        assert before["usage"]["beam"] == 7
        assert re.fullmatch("toy@[0-9a-f]{12}", before["model"])
        best = before["items"][0]["item_id"]
        without(bundle, best)
        assert ask(port, "/v1/recommendations", body)[1]["items"] == before["items"]  # not yet
        assert ask(port, "/v1/admin/reload", {})[0] == 401
        status, reloaded = ask(port, "/v1/admin/reload", {}, **admin)
        assert status == 200
        assert reloaded["previous"] == before["model"] != reloaded["model"]
        after = ask(port, "/v1/recommendations", body)[1]
        assert after["model"] == reloaded["model"]
        assert best not in [one["item_id"] for one in after["items"]]
        manifest = bundle / "manifest.json"
        intact = manifest.read_bytes()
        manifest.write_bytes(intact.replace(b'"bundle"', b'"bundel"'))
        status, refused = ask(port, "/v1/admin/reload", {}, **admin)
        assert (status, refused["error"]["code"]) == (422, "bundle_refused")
        assert ask(port, "/v1/recommendations", body)[1]["items"] == after["items"]
        running.process.send_signal(signal.SIGHUP)  # refused as well, and only the log says so
        wait_until(lambda: 'genrec_reloads_total{outcome="refused"} 2.0' in metrics(port))
        assert ask(port, "/v1/recommendations", body)[1]["items"] == after["items"]
        manifest.write_bytes(intact)
        without(bundle, "i30")
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ask(port, "/v1/recommendations", body)[1]["model"] != after["model"])
        assert ask(port, "/v1/recommendations", {"history": [], "num_results": 6})[0] == 400  # the variable
    events = [line["event"] for line in running.log]
    assert (events.count("reloaded"), events.count("reload_refused")) == (2, 1)
    assert "Application shutdown complete." in events
    assert KEY not in json.dumps(running.log)


def test_who_listens_to_others_without_a_key_is_warned(caplog):
    for settings in (Settings(), Settings(host="0.0.0.0", api_keys=(KEY,))):
        warn_if_open(settings)
    assert not caplog.records
    warn_if_open(Settings(host="0.0.0.0"))
    assert "without an API key" in caplog.text


def refusal(monkeypatch, *arguments: object) -> str:
    """What the command says in this process when it does not start."""
    said = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["genrec", "serve", *map(str, arguments)])
    monkeypatch.setattr("genrec.cli.main.remark", lambda text: print(text, file=said))
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    return said.getvalue()


def test_what_cannot_be_served_is_said_in_one_message(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.process.log_to_stderr", lambda level: None)
    assert "which has no manifest.json" in refusal(monkeypatch, tmp_path, "--port", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "Address already in use" in refusal(monkeypatch, bundle, "--port", taken.getsockname()[1])
    assert "expected a free address" in refusal(monkeypatch, bundle, "--host", "no.such.host.invalid")
    monkeypatch.setenv("GENREC_PROT", "1")
    assert "got GENREC_PROT" in refusal(monkeypatch, bundle)


def test_the_server_knows_no_tensors():
    code = "import sys, serving.process; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
