"""Every endpoint as a client sees it, over the toy catalog."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest

from genrec.recommender import Recommender
from genrec.search import Diversity
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes
from index.errors import IndexFormatError
from index.maintenance import remove_items
from serving.live_bundle import LiveBundle
from serving.logs import JsonLines
from tests.fake_decoder import FakeDecoder
from tests.serving.toy_server import CATALOG, MODEL, Server, index_of_toys, toy_live
from tests.toy import ITEMS

ASK = "/v1/recommendations"


@pytest.fixture(scope="module")
def server():
    return Server()


@pytest.fixture(scope="module")
def client(server):
    with server as client:
        yield client


def ids(answer: dict) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_unlike_items_are_those_of_the_library(server, client):
    body = {"history": ["i3"], "num_results": 6, "decoding": {"diversity": 5.0, "groups": 3}}
    (expected,) = server.engine.live.recommender.recommend_batch(
        [["i3"]], Wishes(k=6, diversity=Diversity(3, 5.0))
    )
    assert ids(client.post(ASK, json=body).json()) == [item.item_id for item in expected.items]
    off = client.post(ASK, json={"history": ["i3"], "decoding": {"diversity": 0.0}}).json()
    assert ids(off) == ids(client.post(ASK, json={"history": ["i3"]}).json())
    both = client.post(ASK, json={"history": ["i3"], "decoding": {"diversity": 1.0, "exact": True}})
    assert (both.status_code, both.json()["error"]["code"]) == (422, "invalid_request")


def test_the_answer_is_that_of_the_library(server, client):
    body = {
        "history": ["i3", "nobody", {"item_id": "i7", "event": "buy"}],
        "num_results": 4,
        "filter": {"where": {"genre": ["drama", "horror"]}, "exclude": ["i1"], "max_per": {"genre": 2}},
        "decoding": {"beam": 6, "normalize": "catalog", "exact": True},
        "return_fields": ["title", "year", "genre"],
        "user_id": "u1",
    }
    answer = client.post(ASK, json=body).json()
    wishes = Wishes(
        k=4, beam=6, normalize="catalog", exact=True, max_expansions=10_000,
        where={"genre": ["drama", "horror"]}, exclude=["i1"], max_per={"genre": 2},
    )  # fmt: skip
    (expected,) = server.engine.live.recommender.recommend_batch([["i3", "nobody", "i7"]], wishes)
    for got, wanted in zip(answer["items"], expected.items, strict=True):
        assert got["item_id"] == wanted.item_id
        assert got["rank"] == wanted.rank
        assert got["title"] == wanted.title
        assert got["score"] == wanted.score
        assert got["probability"] == wanted.probability
        row = int(wanted.item_id[1:])
        assert got["fields"] == {
            "year": 1980 + row,
            "genre": ("comedy", "drama", "horror", "western")[row % 4],
        }
        assert got["source"] == "generated"
        assert got["explanation"] is None
    assert answer["certified"] == expected.certified == 4
    assert answer["missing_ids"] == ["nobody"]
    assert answer["notes"] == list(expected.notes)
    assert answer["degraded"] is None
    assert (answer["model"], answer["catalog"], answer["mode"]) == (MODEL, CATALOG, "semantic_id")
    assert answer["object"] == "recommendation.list"
    assert re.fullmatch("rec_[0-9a-f]{24}", answer["id"])
    usage = answer["usage"]
    assert (usage["history_items"], usage["beam"]) == (2, 6)
    assert (usage["expansions"], usage["model_calls"]) == (expected.expansions, expected.model_calls)
    times = answer["timings_ms"]
    assert 0 <= times["queue"] + times["search"] <= times["total"] + 0.01


def test_a_bare_history_is_enough_and_an_empty_one_too(client):
    assert len(client.post(ASK, json={"history": ["i3"]}).json()["items"]) == 10
    answer = client.post(ASK, json={"history": []}).json()
    assert "new user" in answer["notes"][0]
    assert client.post(ASK, json={"history": ["nobody"]}).json()["missing_ids"] == ["nobody"]


def test_whole_numbers_may_be_written_with_a_point_and_ids_as_numbers(client):
    sent = b'{"history": [17], "num_results": 3.0}'
    answer = client.post(
        ASK, content=sent, headers={"content-type": "application/json; charset=UTF-8"}
    ).json()
    assert len(answer["items"]) == 3
    assert answer["missing_ids"] == ["17"]


def test_events_with_times_are_put_in_order(client):
    events = [{"item_id": "i9", "ts": 30}, {"item_id": "i1", "ts": 10.5}, {"item_id": "i5", "ts": 20}]
    ordered = client.post(ASK, json={"history": ["i1", "i5", "i9"]}).json()
    assert ids(client.post(ASK, json={"history": events}).json()) == ids(ordered)
    unordered = client.post(ASK, json={"history": [*events[:2], {"item_id": "i5"}]}).json()
    assert ids(unordered) == ids(client.post(ASK, json={"history": ["i9", "i1", "i5"]}).json())
    assert ids(unordered) != ids(ordered)


def test_lists_of_items(client):
    rules: dict = {"include": ["i1", "i2", "i3", "nobody"], "exclude": ["i2"]}
    body = {"history": ["i3"], "num_results": 40, "filter": rules}
    answer = client.post(ASK, json=body).json()
    assert ids(answer) == ["i1"]
    assert "1 of 40 items" in answer["notes"][0]
    rules["exclude_seen"] = False
    assert set(ids(client.post(ASK, json=body).json())) == {"i1", "i3"}
    rules["include"] = []
    assert ids(client.post(ASK, json=body).json()) == []


def test_filters_that_leave_nothing_leave_nothing(client):
    for where in ("year > 2010 and year < 1990", {"any": []}):
        answer = client.post(ASK, json={"history": ["i3"], "filter": {"where": where}})
        assert answer.status_code == 200
        assert answer.json()["items"] == []
        assert "0 of 10 items" in answer.json()["notes"][0]


def test_reasons_name_the_likeness_of_codes(client):
    history = ["i3", "i8", "i3", "i12"]
    answer = client.post(ASK, json={"history": history, "explain": True, "num_results": 20}).json()
    codes = index_of_toys().codes
    assert answer["items"]
    for item in answer["items"]:
        reason, own = item["explanation"], codes[int(item["item_id"][1:])]
        assert reason["proven"] == (item["rank"] <= answer["certified"])
        assert reason["semantic_id"] == own.tolist()
        shared = {
            one: int(np.cumprod(codes[int(one[1:])] == own).sum()) for one in ("i12", "i3", "i8")
        }  # newest first
        expected = sorted((one for one in shared if shared[one]), key=lambda one: -shared[one])
        assert [one["item_id"] for one in reason["similar_in_history"]] == expected
        assert [one["shared_levels"] for one in reason["similar_in_history"]] == [
            shared[one] for one in expected
        ]


def test_vocabulary_scores_are_no_probabilities(client):
    body = {"history": ["i3"], "decoding": {"normalize": "vocabulary", "synchronize": "token"}}
    answer = client.post(ASK, json=body).json()
    assert answer["normalize"] == "vocabulary"
    assert {item["probability"] for item in answer["items"]} == {None}


def test_samples_repeat_by_seed(client):
    def drawn(seed: int) -> list[str]:
        return ids(
            client.post(ASK, json={"history": ["i3"], "decoding": {"sample": True, "seed": seed}}).json()
        )

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 4


def test_a_search_that_ran_out_of_budget_says_so():
    with Server(max_expansions=1) as client:
        body = {"history": ["i3"], "num_results": 5, "decoding": {"exact": True, "beam": 1}}
        answer = client.post(ASK, json=body).json()
    assert answer["certified"] < len(answer["items"])
    assert answer["degraded"] == "budget_exhausted"
    assert "budget ended" in answer["notes"][0]


def test_a_batch_answers_in_order_and_a_bad_request_has_its_error_in_its_place(client):
    requests = [
        {"history": ["i1"], "num_results": 2},
        {"history": ["i1"], "filter": {"where": "colour == 1"}},
        {"history": [], "mode": "title"},
        {"history": ["i5"], "return_fields": ["colour"]},
        {"history": ["i5"], "decoding": {"sample": True, "synchronize": "token"}},
        {"history": ["i9"], "num_results": 3, "explain": True},
    ]
    answer = client.post(f"{ASK}:batch", json={"requests": requests})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [200, 422, 422, 422, 422, 200]
    codes = [one["error"] and one["error"]["code"] for one in results]
    assert codes == [
        None,
        "invalid_filter",
        "mode_unavailable",
        "unknown_return_field",
        "invalid_request",
        None,
    ]
    for one, request in zip(results, requests, strict=True):
        alone = client.post(ASK, json=request)
        assert alone.status_code == one["status"]
        if one["status"] == 200:
            assert ids(one["recommendation"]) == ids(alone.json())
            assert one["error"] is None
        else:
            assert one["error"] == alone.json()["error"]
            assert one["recommendation"] is None


def test_a_batch_of_bad_requests_only(client):
    answer = client.post(f"{ASK}:batch", json={"requests": [{"history": [], "mode": "query"}]})
    assert [one["status"] for one in answer.json()["results"]] == [422]


def test_items_by_title(client):
    answer = client.get("/v1/items", params={"prefix": "THE RÍVER", "limit": 3}).json()
    assert [one["item_id"] for one in answer["data"]] == ["i0", "i1", "i2"]
    assert answer["data"][0]["title"] == "The river comedy"
    assert answer["did_you_mean"] == []
    assert len(client.get("/v1/items", params={"prefix": "the"}).json()["data"]) == 10
    by_word = client.get("/v1/items", params={"prefix": "mirror h"}).json()
    assert [one["title"] for one in by_word["data"]] == ["The mirror horror"]
    assert client.get("/v1/items", params={"prefix": "rivre"}).json() == {
        "object": "list",
        "data": [],
        "did_you_mean": ["river"],
    }


def test_one_item(client):
    assert client.get("/v1/items/i6").json() == {
        "object": "item",
        "item_id": "i6",
        "title": "The night horror",
        "removed": False,
        "fields": {"genre": "horror", "year": 1986},
    }


def test_removed_items_can_be_looked_up_and_are_never_found():
    index = remove_items(index_of_toys(), ["i6"])
    recommender = Recommender(index, FakeDecoder(sum(index.level_sizes)), TaskDefaults(beam=5))
    with Server(LiveBundle(recommender, recommender.index.titles(), MODEL, CATALOG)) as client:
        assert client.get("/v1/items/i6").json()["removed"] is True
        assert client.get("/v1/items", params={"prefix": "the night horror"}).json()["data"] == []
        assert "i6" not in ids(client.post(ASK, json={"history": [], "num_results": ITEMS}).json())
        assert client.get("/v1/models").json()["data"][0]["items"] == ITEMS - 1


def test_models_say_what_may_be_asked(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == MODEL
    assert model["items"] == ITEMS
    assert model["modes"] == ["semantic_id"]
    assert (model["normalize"], model["beam"]) == ("catalog", 5)
    assert model["fields"] == [{"name": "genre", "type": "string"}, {"name": "year", "type": "integer"}]
    assert model["limits"] == {
        "num_results": 200,
        "beam": 500,
        "history": 1000,
        "max_expansions": 10_000,
        "timeout_ms": 60_000,
    }


def test_health_follows_the_engine():
    server = Server()
    with server as client:
        assert client.get("/v2/health/live").json() == {"live": True}
        assert client.get("/v2/health/ready").json() == {"ready": True}
        server.engine.close()
        assert client.get("/v2/health/live").status_code == 200
        for answer in (client.get("/v2/health/ready"), client.post(ASK, json={"history": []})):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not_ready"
            assert answer.headers["retry-after"] == "1"


def test_request_ids_are_echoed_where_plain_and_made_where_not(client):
    def echoed(given: str | None) -> str:
        return client.get("/v2/health/live", headers={"x-request-id": given} if given else {}).headers[
            "x-request-id"
        ]

    assert echoed("my-trace:1.a_B") == "my-trace:1.a_B"
    for given in (None, "a b", "x" * 129, '{"forged": 1}'):
        assert re.fullmatch("req_[0-9a-f]{24}", echoed(given))
    assert echoed(None) != echoed(None)
    assert client.get("/nowhere", headers={"x-request-id": "t1"}).headers["x-request-id"] == "t1"


def test_metrics_count_what_happened():
    server = Server()
    with server as client:
        for n in range(3):
            client.post(ASK, json={"history": ["i1", "nobody"], "num_results": 2 + n})
        client.post(ASK, json={"history": [], "num_results": 0})
        client.get("/v1/items/nobody")
        client.get("/v1/items/somebody/else")
        client.get("/v3/anything/at/all")
        client.request("BREW", "/v1/models")
        text = client.get("/metrics")
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for line in (
        'genrec_http_requests_total{method="POST",route="/v1/recommendations",status="200"} 3.0',
        'genrec_http_requests_total{method="POST",route="/v1/recommendations",status="400"} 1.0',
        'genrec_http_requests_total{method="GET",route="/v1/items/{item_id}",status="404"} 2.0',
        'genrec_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'genrec_http_requests_total{method="other",route="/v1/models",status="405"} 1.0',
        'genrec_http_request_seconds_count{route="/v1/recommendations"} 4.0',
        'genrec_recommend_seconds_count{phase="search"} 3.0',
        'genrec_recommend_seconds_count{phase="queue"} 3.0',
        "genrec_items_recommended_total 9.0",
        "genrec_history_ids_unknown_total 3.0",
        "genrec_http_in_flight 1.0",  # the one that asks
        "genrec_queue_depth 0.0",
        f'genrec_model_info{{catalog="{CATALOG}",model="{MODEL}"}} 1.0',
        f"genrec_catalog_items {float(ITEMS)}",
    ):
        assert line in text.text.splitlines()


def test_every_request_is_one_line_of_json_and_no_line_can_be_forged(caplog):
    caplog.set_level(logging.INFO, "genrec.serving")
    key = "a-key-of-a-client"
    with Server(api_keys=(key,)) as client:
        client.post(
            ASK,
            json={"history": ["i1", "i2"], "num_results": 2, "user_id": 'u\n{"event":"forged"}'},
            headers={"x-request-id": "t1", "authorization": f"Bearer {key}"},
        )
        client.get("/v1/items/a%0Ab", headers={"x-api-key": "wrong"})
    lines = [JsonLines().format(one) for one in caplog.records if one.getMessage() == "request"]
    assert not any("\n" in line for line in lines)
    first, second = (json.loads(line) for line in lines)
    assert first["request_id"] == "t1"
    assert (first["status"], first["items"], first["model"]) == (200, 2, MODEL)
    assert first["timings_ms"]["search"] > 0
    assert second["status"] == 401
    assert key not in "".join(lines)
    assert "i2" not in lines[0]


def test_a_crash_in_a_route_is_one_json_error_and_stays_inside(monkeypatch, caplog):
    def crash(*_: object) -> None:
        raise ZeroDivisionError("weights in some directory")

    monkeypatch.setattr("serving.routes.recommendations.response_of", crash)
    server = Server()
    with server as client:
        answer = client.post(ASK, json={"history": []}, headers={"x-request-id": "t7"})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert "directory" not in answer.text
        assert answer.headers["x-request-id"] == "t7"
        assert client.get("/v2/health/live").status_code == 200
    assert "some directory" in caplog.text
    assert server.metric("genrec_http_requests_total", method="POST", route=ASK, status="500") == 1


def test_reload_over_http():
    versions = [toy_live(FakeDecoder(sum(index_of_toys().level_sizes), seed=5), "toy@other"), None]

    def load(verify: bool) -> LiveBundle:
        live = versions.pop(0)
        if live is None:
            raise IndexFormatError("expected other bytes")
        return live

    with Server(loader=load) as client:
        before = client.post(ASK, json={"history": ["i1"]}).json()
        answer = client.post("/v1/admin/reload", json={})
        assert answer.json() == {
            "object": "reload", "model": "toy@other", "previous": MODEL, "catalog": CATALOG
        }  # fmt: skip
        after = client.post(ASK, json={"history": ["i1"]}).json()
        assert after["model"] == "toy@other"
        assert ids(after) != ids(before)
        refused = client.post("/v1/admin/reload", json={"verify": False})
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "bundle_refused"
        assert ids(client.post(ASK, json={"history": ["i1"]}).json()) == ids(after)


def test_no_page_loads_anything_from_elsewhere(client):
    for path in ("/docs", "/redoc"):
        assert client.get(path).json()["error"]["code"] == "route_not_found"
