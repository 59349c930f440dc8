"""The server under Ray Serve answers as it does alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genrec.decoders.onnx_export import export_bundle
from genrec.recommender import Recommender
from serving.errors import SettingsError
from serving.ray_app import app
from tests.genrec.onnx_models import native_bundle
from tests.toy import toy_index

pytestmark = [
    pytest.mark.slow,  # Ray and its proxy take half a minute to come up
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
    ),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PORT = 18431


def post(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = native_bundle(tmp_path_factory.mktemp("ray") / "bundle", toy_index())
    export_bundle(path)
    return path


@pytest.fixture(scope="module")
def served(bundle) -> Iterator[None]:
    pytest.importorskip("ray.serve")
    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(app({"bundle": str(bundle), "replicas": "2", "cpus": "0.5"}))
    yield
    serve.shutdown()
    ray.shutdown()


def test_it_answers_as_the_library_does(served, bundle):
    status, answer = post("/v1/recommendations", {"history": ["i1", "i5"], "num_results": 5})
    assert status == 200
    expected = Recommender.load(bundle).recommend(["i1", "i5"], k=5)
    assert [one["item_id"] for one in answer["items"]] == [one.item_id for one in expected.items]


def test_errors_are_the_servers_own_and_a_reload_is_refused(served):
    status, answer = post("/v1/recommendations", {"history": ["i1"], "colour": "red"})
    assert (status, answer["error"]["code"]) == (400, "unknown_field")
    status, answer = post("/v1/admin/reload", {})
    assert (status, answer["error"]["code"]) == (422, "bundle_refused")
    assert "one replica of a cluster" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected a bundle"),
        ({"bundle": "x", "workers": "2"}, "one worker a replica"),
        ({"bundle": "x", "replicas": "none"}, "above 0 for replicas"),
        ({"bundle": "x", "colour": "red"}, "expected a setting among"),
    ],
)
def test_what_cannot_be_deployed_is_refused(arguments, message):
    pytest.importorskip("ray.serve")
    with pytest.raises(SettingsError, match=message):
        app(arguments)
