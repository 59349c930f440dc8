"""The written list of bad inputs: each gets its documented error, and nothing else changes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.errors import ERRORS
from tests.serving.toy_server import Server

ASK, BATCH, RELOAD = "/v1/recommendations", "/v1/recommendations:batch", "/v1/admin/reload"
JSON = {"content-type": "application/json"}
SMALL = {"max_body_bytes": 20_000, "max_history": 50, "max_ids": 60, "max_requests": 4}


@dataclass(frozen=True)
class Bad:
    """A request, and the error it must get."""

    code: str
    body: Any = None  # a value, sent as JSON; bytes as they are
    param: str | None = None
    match: str = ""
    path: str = ASK
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))


def ask(**more: Any) -> dict[str, Any]:
    return {"history": ["i1"], **more}


def filtered(**more: Any) -> dict[str, Any]:
    return ask(filter=more)


def decoded(**more: Any) -> dict[str, Any]:
    return ask(decoding=more)


def wrong(body: Any, param: str | None = None, match: str = "", path: str = ASK) -> Bad:
    return Bad("invalid_value", body, param, match, path)


def no_filter(where: Any, match: str = "") -> Bad:
    return Bad("invalid_filter", filtered(where=where), "filter.where", match)


def typed(content_type: str, body: bytes, path: str = ASK) -> Bad:
    return Bad("unsupported_media_type", body, path=path, headers={"content-type": content_type})


def get(path: str, code: str, param: str | None = None, match: str = "") -> Bad:
    return Bad(code, path=path, method="GET", param=param, match=match, headers={})


NESTED: dict[str, Any] = {"genre": "drama"}
for _ in range(40):
    NESTED = {"not": NESTED}

BAD = {
    # Not JSON
    "no body": Bad("invalid_json", b""),
    "half a body": Bad("invalid_json", b'{"history": ["i1"'),
    "two values": Bad("invalid_json", b'{"history": []} {}'),
    "not a number": Bad("invalid_json", b'{"history": [], "num_results": NaN}', match="NaN is no JSON number"),
    "infinity in a filter": Bad("invalid_json", b'{"history": [], "filter": {"where": {"year": -Infinity}}}'),
    "a key twice": Bad("invalid_json", b'{"history": ["i1"], "history": ["i2"]}', match="comes twice"),
    "a wish twice": Bad("invalid_json", b'{"history": [], "filter": {"exclude_seen": true, "exclude_seen": false}}'),
    "latin-1": Bad("invalid_json", '{"history": ["é"]}'.encode("latin-1")),
    "utf-16": Bad("invalid_json", '{"history": []}'.encode("utf-16")),
    "a lone surrogate": Bad("invalid_json", b'{"history": ["\\ud800"]}'),
    "a number of 5,000 digits": Bad("invalid_json", b'{"history": [%s]}' % (b"9" * 5000)),
    "deep lists": Bad("json_too_deep", b"[" * 9000 + b"]" * 9000),
    "deep objects": Bad("json_too_deep", b'{"a":' * 3000 + b"1" + b"}" * 3000),
    "deep filter": Bad("json_too_deep", filtered(where={"not": {"not": {"all": [json.loads("[" * 46 + "]" * 46)]}}})),
    # Not declared as JSON, too large
    "no content type": Bad("unsupported_media_type", b'{"history": []}', headers={}),
    "a form": typed("application/x-www-form-urlencoded", b"history=i1"),
    "text": typed("text/plain", b'{"history": []}'),
    "another charset": typed("application/json; charset=utf-7", b"{}"),
    "json by another name": typed("application/jsonp", b"{}"),
    "huge body": Bad("body_too_large", b" " * 20_001, match="at most 20000 bytes"),
    "huge history": Bad("body_too_large", ask(history=["x" * 500] * 50)),
    "huge body in a batch": Bad("body_too_large", b" " * 20_001, path=BATCH),
    "huge reload": Bad("body_too_large", b" " * 20_001, path=RELOAD),
    # Not of the right type
    "a list": wrong([]),
    "a string": wrong("i1"),
    "null": wrong(None),
    "no history": Bad("missing_field", {}, "history"),
    "history of null": wrong(ask(history=None), "history"),
    "history as a string": wrong(ask(history="i1,i2"), "history"),
    "history as an object": wrong(ask(history={"i1": 1}), "history"),
    "an entry of null": wrong(ask(history=["i1", None]), "history.1"),
    "an entry of true": wrong(ask(history=[True]), "history.0"),
    "a fraction for an id": wrong(ask(history=[1.5]), "history.0"),
    "a negative id": wrong(ask(history=[-1]), "history.0"),
    "an empty id": wrong(ask(history=[""]), "history.0"),
    "an id of 600 letters": wrong(ask(history=["x" * 600]), "history.0"),
    "an event without an item": Bad("missing_field", ask(history=[{"ts": 1}]), "history.0.item_id"),
    "an event of another item type": wrong(ask(history=[{"item_id": 3}]), "history.0.item_id"),
    "an event at a time in words": wrong(ask(history=[{"item_id": "i1", "ts": "now"}]), "history.0.ts"),
    "an event with more": Bad("unknown_field", ask(history=[{"item_id": "i1", "rating": 5}]), "history.0.rating"),
    "too long a history": wrong(ask(history=["i1"] * 51), "history", "at most 50 entries, got 51"),
    "k of zero": wrong(ask(num_results=0), "num_results", "greater than or equal to 1, got 0"),
    "k below zero": wrong(ask(num_results=-5), "num_results"),
    "k as true": wrong(ask(num_results=True), "num_results"),
    "k in words": wrong(ask(num_results="10"), "num_results", "valid integer, got '10'"),
    "k of a half": wrong(ask(num_results=2.5), "num_results"),
    "k of null": wrong(ask(num_results=None), "num_results"),
    "k above the limit": wrong(ask(num_results=201), "num_results", "at most 200, got 201"),
    "k above every limit": wrong(ask(num_results=10**30), "num_results"),
    "k above doubles": wrong(b'{"history": [], "num_results": 1e999}', "num_results"),
    "a beam of zero": wrong(decoded(beam=0), "decoding.beam"),
    "a beam above the limit": wrong(decoded(beam=501), "decoding.beam", "max_beam"),
    "a budget above the limit": wrong(decoded(max_expansions=10_001), "decoding.max_expansions"),
    "a seed below zero": wrong(decoded(seed=-1), "decoding.seed"),
    "a seed beyond doubles": wrong(decoded(seed=2**53), "decoding.seed"),
    "an unknown normalisation": wrong(decoded(normalize="softmax"), "decoding.normalize"),
    "exact as a word": wrong(decoded(exact="yes"), "decoding.exact"),
    "decoding of null": wrong(ask(decoding=None), "decoding"),
    "no time at all": wrong(ask(timeout_ms=0), "timeout_ms"),
    "too much time": wrong(ask(timeout_ms=60_001), "timeout_ms"),
    "an unknown mode": wrong(ask(mode="chat"), "mode"),
    "an unknown field": Bad("unknown_field", ask(k=10), "k"),
    "an unknown field of a filter": Bad("unknown_field", filtered(wher="year > 1"), "filter.wher"),
    "a field of python": Bad("unknown_field", ask(__class__="x"), "__class__"),
    "fields as a string": wrong(ask(return_fields="year"), "return_fields"),
    "65 fields": wrong(ask(return_fields=["year"] * 65), "return_fields"),
    "a long user": wrong(ask(user_id="u" * 257), "user_id"),
    # Filters
    "an empty expression": wrong(filtered(where=""), "filter.where"),
    "an empty structure": wrong(filtered(where={}), "filter.where"),
    "a list for a filter": wrong(filtered(where=["year"]), "filter.where"),
    "a blank expression": no_filter(" "),
    "half an expression": no_filter("year >", "invalid syntax"),
    "an unknown field in a filter": no_filter("colour == 1", "got 'colour'"),
    "words against numbers": no_filter('year > "new"'),
    "a call": no_filter('__import__("os").system("true")'),
    "a comprehension": no_filter("[x for x in year] == 1"),
    "an attribute": no_filter("year.__class__ == 1"),
    "a byte of zero": no_filter("year > 1\0"),
    "a long sum": no_filter("+".join(["1"] * 4000)),
    "many brackets": no_filter("(" * 4000 + "year" + ")" * 4000),
    "many nots": no_filter("not " * 2400 + "year > 1"),
    "too long an expression": wrong(filtered(where="year > 1 and " * 900 + "year > 1"), "filter.where"),
    "a filter nested too deeply": no_filter(NESTED, "at most 32 deep"),
    "too many parts": no_filter({"any": [{"year": 1}] * 1001}),
    "an unknown operator": no_filter({"field": "year", "op": "~", "value": 1}),
    "nothing to compare with": no_filter({"year": None}),
    "an object to compare with": no_filter({"year": {"$gt": 1}}),
    "a number beyond 64 bits": no_filter({"year": 2**64}),
    "include as a string": wrong(filtered(include="i1"), "filter.include"),
    "too many to include": wrong(filtered(include=["i1"] * 61), "filter.include"),
    "too many to exclude": wrong(filtered(exclude=["i1"] * 61), "filter.exclude"),
    "exclude of null": wrong(filtered(exclude=None), "filter.exclude"),
    "a cap of zero": wrong(filtered(max_per={"genre": 0}), "filter.max_per"),
    "a cap as a list": wrong(filtered(max_per=["genre"]), "filter.max_per"),
    "a cap over an unknown field": Bad("invalid_request", filtered(max_per={"colour": 1}), match="got 'colour'"),
    # Well formed, and not for this model
    "an untrained mode": Bad("mode_unavailable", ask(mode="title"), "mode", r"\(semantic_id\), got 'title'"),
    "an unknown field to return": Bad("unknown_return_field", ask(return_fields=["year", "colour"]), "return_fields"),
    "a private field to return": Bad("unknown_return_field", ask(return_fields=["__dict__"]), "return_fields"),
    "a sample of vocabulary scores": Bad("invalid_request", decoded(sample=True, normalize="vocabulary")),
    "an exact token search": Bad("invalid_request", decoded(exact=True, synchronize="token")),
    # Batches
    "no requests": Bad("missing_field", {}, "requests", path=BATCH),
    "an empty batch": wrong({"requests": []}, "requests", path=BATCH),
    "too long a batch": wrong({"requests": [ask()] * 5}, "requests", "at most 4", path=BATCH),
    "one that is malformed": wrong({"requests": [ask(), ask(num_results=0)]}, "requests.1.num_results", path=BATCH),
    "one above a limit": wrong({"requests": [ask(), decoded(beam=501)]}, "requests.1.decoding.beam", path=BATCH),
    # Routes and methods
    "no route": get("/v1/recommend", "route_not_found"),
    "a slash too many": get("/v1/models/", "route_not_found"),
    "a file": get("/serving/app.py", "route_not_found"),
    "get instead of post": get(ASK, "method_not_allowed", match="expected POST, got GET"),
    "delete": Bad("method_not_allowed", path="/v1/items/i1", method="DELETE", headers={}),
    "an invented method": Bad("method_not_allowed", path="/v1/items/i1", method="BREW", headers={}),
    # Items
    "an unknown item": get("/v1/items/nobody", "item_not_found", "item_id"),
    "no id": get("/v1/items/", "item_not_found", "item_id"),
    "a path upwards": get("/v1/items/..%2f..%2f..%2fetc%2fpasswd", "item_not_found", "item_id"),
    "an absolute path": get("/v1/items//etc/passwd", "item_not_found", "item_id"),
    "dots and backslashes": get("/v1/items/..%5c..%5cmanifest.json", "item_not_found", "item_id"),
    "a zero byte in a path": get("/v1/items/i1%00", "item_not_found", "item_id"),
    "broken utf-8 in a path": get("/v1/items/%ff%fe", "item_not_found", "item_id"),
    "no prefix": get("/v1/items", "missing_field", "prefix"),
    "an empty prefix": get("/v1/items?prefix=", "invalid_value", "prefix"),
    "a long prefix": get("/v1/items?prefix=" + "x" * 201, "invalid_value", "prefix"),
    "a limit of zero": get("/v1/items?prefix=a&limit=0", "invalid_value", "limit"),
    "a limit in words": get("/v1/items?prefix=a&limit=ten", "invalid_value", "limit"),
    "a generous limit": get("/v1/items?prefix=a&limit=1_0", "invalid_value", "limit"),
    "an unknown parameter": get("/v1/items?prefix=a&lim=3", "unknown_field", "lim"),
    # Reload
    "a reload by a form": typed("text/plain", b"", RELOAD),
    "a reload from elsewhere": Bad("unknown_field", {"path": "../other"}, "path", path=RELOAD),
    "a reload of nothing": Bad("not_ready", {}, path=RELOAD),
}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    return Server(**SMALL)


@pytest.fixture(scope="module")
def client(server):
    with server as client:
        yield client


def standing(server: Server, client: Any) -> dict[str, Any]:
    """Everything a bad request must leave as it is."""
    answer = client.post(ASK, json={"history": ["i3", "i9"], "num_results": 5}).json()
    return {
        "items": answer["items"],
        "model": answer["model"],
        "live": id(server.engine.live),
        "ready": client.get("/v2/health/ready").status_code,
        "waiting": server.metric("genrec_queue_depth"),
        "in flight": server.metric("genrec_http_in_flight"),
    }


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_input_gets_its_documented_error_and_changes_nothing(bad, server, client):
    before = standing(server, client)
    searched = server.metric("genrec_recommend_seconds_count", phase="search")
    content = bad.body if isinstance(bad.body, bytes) else json.dumps(bad.body).encode()
    answer = client.request(
        bad.method, bad.path, content=content if bad.method == "POST" else None, headers=bad.headers
    )
    error = answer.json()["error"]
    assert (error["code"], answer.status_code) == (bad.code, ERRORS[bad.code].status), error
    assert error["type"] == ERRORS[bad.code].type
    assert error["param"] == bad.param
    assert error.keys() == {"type", "code", "message", "param"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert 0 < len(error["message"]) < 700
    assert re.search(bad.match, error["message"]), error["message"]
    assert server.metric("genrec_recommend_seconds_count", phase="search") == searched
    assert standing(server, client) == before


def test_the_list_holds_every_error_a_client_can_cause():
    elsewhere = {
        "missing_api_key", "invalid_api_key", "admin_only",  # test_auth.py
        "body_timeout", "queue_full", "deadline_exceeded",  # test_limits_in_time.py
        "reload_in_progress", "bundle_refused", "internal_error",  # test_api.py, test_engine.py
    }  # fmt: skip
    assert {bad.code for bad in BAD.values()} | elsewhere == set(ERRORS)


def test_a_405_names_the_methods_there_are(client):
    assert client.get(ASK).headers["allow"] == "POST"


@pytest.mark.parametrize("path", [ASK, BATCH, RELOAD])
def test_a_body_without_a_length_is_counted_while_it_arrives(path, client):
    def chunks() -> Any:
        for _ in range(100):
            yield b" " * 1000

    answer = client.post(path, content=chunks(), headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_a_body_of_exactly_the_limit_is_read(client):
    body = json.dumps(ask()).encode()
    answer = client.post(ASK, content=body + b" " * (20_000 - len(body)), headers=JSON)
    assert answer.status_code == 200
