"""API keys: who may ask, who may reload, and what is said to those who may not."""

from __future__ import annotations

import asyncio

import pytest

from serving.auth import Keys
from tests.serving.toy_server import Connection, Server, toy_live

CLIENT, OTHER, ADMIN = "a-key-of-a-client", "another-clients-key", "the-key-of-an-admin"
ASK, RELOAD = "/v1/recommendations", "/v1/admin/reload"
OPEN = ("/v2/health/live", "/v2/health/ready", "/metrics", "/openapi.json")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def code(answer) -> str | None:
    return answer.json()["error"]["code"] if answer.status_code >= 400 else None


@pytest.fixture(scope="module")
def client():
    with Server(loader=lambda _: toy_live(), api_keys=(CLIENT, OTHER), admin_keys=(ADMIN,)) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "missing_api_key"),
        ({"authorization": ""}, "missing_api_key"),
        ({"authorization": "Bearer "}, "missing_api_key"),
        ({"authorization": CLIENT}, "missing_api_key"),
        ({"authorization": f"Basic {CLIENT}"}, "missing_api_key"),
        (bearer("wrong"), "invalid_api_key"),
        (bearer(CLIENT[:-1]), "invalid_api_key"),
        (bearer(CLIENT + "x"), "invalid_api_key"),
        (bearer(CLIENT.upper()), "invalid_api_key"),
        ({"x-api-key": "wrong"}, "invalid_api_key"),
        ({"x-api-key": ""}, "invalid_api_key"),
        ({"x-api-key": b"schl\xfcssel"}, "invalid_api_key"),
        (bearer(CLIENT), None),
        ({"authorization": f"bearer  {OTHER} "}, None),
        ({"x-api-key": OTHER}, None),
        (bearer(ADMIN), None),
    ],
)
def test_who_may_ask(client, headers, expected):
    for answer in (
        client.post(ASK, json={"history": []}, headers=headers),
        client.get("/v1/models", headers=headers),
    ):
        assert code(answer) == expected
        if expected is not None:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-request-id"]


def test_who_may_not_ask_learns_nothing_of_routes_and_bodies(client):
    assert code(client.get("/v1/nowhere")) == "missing_api_key"
    assert code(client.delete("/v1/models")) == "missing_api_key"
    assert code(client.post(ASK, content=b"{", headers={"content-type": "text/plain"})) == "missing_api_key"
    assert code(client.get("/v1/nowhere", headers=bearer(CLIENT))) == "route_not_found"


def test_a_body_is_not_read_before_the_key():
    server = Server(api_keys=(CLIENT,))

    async def story() -> None:
        connection = Connection(server)
        status, body = await connection.answer()  # although no part of the body was sent
        assert (status, body["error"]["code"]) == (401, "missing_api_key")

    asyncio.run(story())
    server.engine.close()


@pytest.mark.parametrize("path", OPEN)
def test_the_machinery_needs_no_key(client, path):
    assert client.get(path).status_code == 200


def test_only_an_admin_reloads(client):
    assert code(client.post(RELOAD, json={})) == "missing_api_key"
    refused = client.post(RELOAD, json={}, headers=bearer(CLIENT))
    assert (code(refused), refused.status_code) == ("admin_only", 403)
    assert client.post(RELOAD, json={}, headers=bearer(ADMIN)).status_code == 200


def test_with_client_keys_only_nobody_reloads():
    with Server(loader=lambda _: toy_live(), api_keys=(CLIENT,)) as client:
        assert code(client.post(RELOAD, json={}, headers=bearer(CLIENT))) == "admin_only"


def test_with_admin_keys_only_everybody_asks_and_admins_reload():
    with Server(loader=lambda _: toy_live(), admin_keys=(ADMIN,)) as client:
        assert client.post(ASK, json={"history": []}).status_code == 200
        assert code(client.post(RELOAD, json={})) == "missing_api_key"
        assert code(client.post(RELOAD, json={}, headers=bearer("wrong"))) == "invalid_api_key"
        assert client.post(RELOAD, json={}, headers=bearer(ADMIN)).status_code == 200


def test_without_keys_everything_is_open():
    with Server(loader=lambda _: toy_live()) as client:
        assert client.post(ASK, json={"history": []}).status_code == 200
        assert client.post(RELOAD, json={}).status_code == 200


def test_no_tricks_with_paths(client):
    for path in (
        "//v1/models",
        "/v1//models",
        "/V1/models",
        "/v1/../v1/models",
        "/./v1/models",
        "/v2/../v1/models",
    ):
        answer = client.get(path)
        assert answer.status_code in (401, 404)


def test_every_key_is_compared_whatever_the_first_one_says(monkeypatch):
    compared = []
    monkeypatch.setattr("serving.auth.hmac.compare_digest", lambda a, b: compared.append(a) or a == b)
    keys = Keys((CLIENT, OTHER, ADMIN))
    assert keys.hold(CLIENT)
    assert len(compared) == 3
    assert not keys.hold("")
    assert len(compared) == 6
    assert {len(one) for one in compared} == {32}  # digests: the length of a key does not show


def test_openapi_says_where_a_key_is_needed(client):
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == path.startswith("/v1/") == ("401" in operation["responses"])
            assert ("403" in operation["responses"]) == (path == RELOAD)
    with Server() as unguarded:
        text = unguarded.get("/openapi.json").text
        assert "security" not in text
        assert '"401"' not in text
        assert '"403"' not in text
