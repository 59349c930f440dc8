"""The direct routes answer as the framework would that describes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.serving.test_bad_requests import BAD, SMALL
from tests.serving.toy_server import Server

ASK, BATCH = "/v1/recommendations", "/v1/recommendations:batch"
GOOD = {
    "plain": (ASK, {"history": ["i1", {"item_id": "i2", "ts": 2}], "num_results": 3}),
    "everything": (
        ASK,
        {
            "history": ["i1", "nobody"], "user_id": "u", "filter": {"where": "year > 1990", "exclude": ["i3"]},
            "decoding": {"exact": True}, "explain": True, "return_fields": ["year"], "timeout_ms": 5000,
        },
    ),
    "a batch": (BATCH, {"requests": [{"history": []}, {"history": ["i1"], "mode": "title"}]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    return Server(**SMALL)


@pytest.fixture(scope="module")
def both(server):
    with TestClient(server.app, raise_server_exceptions=False) as direct:
        framework = TestClient(server.app.framework, raise_server_exceptions=False)
        yield direct, framework
        framework.close()


def without_chance(body: Any) -> Any:
    """The answer without ids and times."""
    if isinstance(body, dict):
        return {k: without_chance(v) for k, v in body.items() if k not in ("id", "created", "timings_ms")}
    return [without_chance(one) for one in body] if isinstance(body, list) else body


def ask(client: TestClient, path: str, content: bytes, headers: dict[str, str]) -> tuple[Any, ...]:
    answer = client.post(path, content=content, headers=headers)
    kept = {k: v for k, v in answer.headers.items() if k not in ("x-request-id", "content-length")}
    return answer.status_code, kept, without_chance(answer.json()), "x-request-id" in answer.headers


@pytest.mark.parametrize("name", GOOD)
def test_good_requests(both, name):
    path, body = GOOD[name]
    content = json.dumps(body).encode()
    direct, framework = (ask(one, path, content, {"content-type": "application/json"}) for one in both)
    assert direct == framework
    assert direct[0] == 200


@pytest.mark.parametrize(
    "name", [name for name, bad in BAD.items() if bad.path in (ASK, BATCH) and bad.method == "POST"]
)
def test_bad_requests(both, name):
    bad = BAD[name]
    content = bad.body if isinstance(bad.body, bytes) else json.dumps(bad.body).encode()
    direct, framework = (ask(one, bad.path, content, bad.headers) for one in both)
    assert direct == framework
    assert direct[0] >= 400
