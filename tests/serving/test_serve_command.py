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
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def serving(*arguments: object, **variables: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The port and the log of a running server; after the block it has stopped, and the log is whole."""
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
                yield log[-1]["port"], log
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


def test_a_bundle_is_served_reloaded_and_stopped(bundle, tmp_path):
    body = {"history": ["i1", "i5"], "num_results": 5}
    admin = {"authorization": f"Bearer {KEY}"}
    (tmp_path / "keys").write_text(f"{KEY}\n")
    with serving(bundle, "--admin-keys-file", tmp_path / "keys", GENREC_MAX_RESULTS="5") as (port, log):
        status, before = ask(port, "/v1/recommendations", body)
        expected = Recommender.load(bundle).recommend(["i1", "i5"], 5)
        assert status == 200
        assert [one["item_id"] for one in before["items"]] == [one.item_id for one in expected.items]
        assert before["usage"]["beam"] == 7
        assert re.fullmatch("toy@[0-9a-f]{12}", before["model"])
        best = before["items"][0]["item_id"]
        opened = load_bundle(bundle)
        save_changed_index(opened.artifact, remove_items(opened.index, [best]), bundle)
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
        manifest.write_bytes(intact)
        assert ask(port, "/v1/recommendations", {"history": [], "num_results": 6})[0] == 400  # the variable
    events = [line["event"] for line in log]
    assert events.count("request") == 8
    assert "reloaded" in events
    assert "Application shutdown complete." in events
    assert KEY not in json.dumps(log)


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
