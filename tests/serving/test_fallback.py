"""Answers in place of an error, and requests that are only checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from genrec.neighbours import neighbours
from genrec.plan import plan_of
from genrec.wishes import Wishes
from tests.serving.toy_server import GatedDecoder, Server, index_of_toys, toy_live

ASK, BATCH, WALK = "/v1/recommendations", "/v1/recommendations:batch", "/v1/walk"
LATE = {"history": ["i1", "nobody"], "num_results": 4, "timeout_ms": 50}


@pytest.fixture
def stuck():
    """A server whose model never answers until the test is over."""
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    decoder.gate.clear()
    server = Server(toy_live(decoder))
    with server as client:
        yield server, client
        decoder.gate.set()


def test_a_deadline_is_met_by_items_alike(stuck):
    server, client = stuck
    assert client.post(ASK, json=LATE).status_code == 504
    reply = client.post(
        ASK, json={**LATE, "fallback": "similar", "explain": True, "return_fields": ["genre"]}
    )
    answer = reply.json()
    index = index_of_toys()
    expected = neighbours(index, np.array([1]), Wishes(k=4))
    assert reply.status_code == 200
    assert [one["item_id"] for one in answer["items"]] == [
        index.catalog.item_ids[one.row] for one in expected
    ]
    assert {one["source"] for one in answer["items"]} == {"fallback"}
    assert [one["score"] for one in answer["items"]] == [one.shared for one in expected]
    assert (answer["degraded"], answer["certified"]) == ("deadline_exceeded", 0)
    assert answer["missing_ids"] == ["nobody"]
    assert answer["items"][0]["fields"]["genre"]
    assert not answer["items"][0]["explanation"]["proven"]
    assert "not the model's answer" in answer["notes"][0]
    assert server.metric("genrec_fallbacks_total", reason="deadline_exceeded") == 1
    assert server.metric("genrec_items_recommended_total") == len(expected)


def test_filters_hold_in_a_fallback_and_wrong_ones_are_errors(stuck):
    _, client = stuck
    asked = {**LATE, "fallback": "similar", "filter": {"where": "year >= 2000"}, "return_fields": ["year"]}
    answer = client.post(ASK, json=asked).json()
    assert answer["items"]
    assert all(one["fields"]["year"] >= 2000 for one in answer["items"])


def test_a_mode_the_model_lacks_is_met_too():
    with Server() as client:
        asked = {"history": ["i1"], "mode": "title", "num_results": 2}
        assert client.post(ASK, json=asked).status_code == 422
        answer = client.post(ASK, json={**asked, "fallback": "similar"}).json()
        assert (answer["degraded"], answer["mode"], len(answer["items"])) == ("mode_unavailable", "title", 2)
        wrong = client.post(ASK, json={**asked, "fallback": "similar", "filter": {"where": "colour = 1"}})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "invalid_filter")


def test_other_errors_have_no_fallback():
    with Server() as client:
        asked = {"history": [], "fallback": "similar"}
        for more in (
            {"return_fields": ["colour"]},
            {"filter": {"where": "colour = 1"}},
            {"num_results": 999},
        ):
            assert client.post(ASK, json={**asked, **more}).status_code in (400, 422)


def test_a_new_user_gets_what_the_model_says_to_new_users():
    live = toy_live()
    newcomers = np.array([9, 4], np.int32)
    object.__setattr__(live, "newcomers", newcomers)
    with Server(live) as client:
        answer = client.post(ASK, json={"history": [], "mode": "query", "fallback": "similar"}).json()
    ids = index_of_toys().catalog.item_ids
    assert [one["item_id"] for one in answer["items"]] == [ids[9], ids[4]]
    assert any(note.startswith("2 of 10") for note in answer["notes"])


def test_in_a_batch_each_has_its_own(stuck):
    _, client = stuck
    some = [{**LATE, "fallback": "similar"}, LATE, {**LATE, "mode": "title", "fallback": "similar"}]
    some.append({"history": ["i1"], "validate_only": True})
    results = client.post(BATCH, json={"requests": some}).json()["results"]
    assert [one["status"] for one in results] == [200, 504, 200, 200]
    assert [one["recommendation"] and one["recommendation"]["degraded"] for one in results] == [
        "deadline_exceeded", None, "mode_unavailable", None,
    ]  # fmt: skip
    assert results[3]["recommendation"]["plan"]["allowed_items"] == len(index_of_toys().catalog) - 1


def test_a_batch_that_finds_no_place_falls_back_where_it_is_wished():
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    server = Server(toy_live(decoder), queue_size=2, max_requests=2)
    # A batch of two behind one that waits: both find no place, though one would.
    server.engine.room.has_place = lambda waiting, timeout, more=1: more < 2  # type: ignore[method-assign]
    with server as client:
        one, other = {"history": ["i1"], "fallback": "similar"}, {"history": ["i1"]}
        results = client.post(BATCH, json={"requests": [one, other]}).json()["results"]
        assert [r["status"] for r in results] == [200, 429]
        assert results[0]["recommendation"]["degraded"] == "queue_full"
        assert client.post(BATCH, json={"requests": [other, other]}).status_code == 429


def test_a_check_searches_nothing_and_says_what_would_be(stuck):
    server, client = stuck
    asked = {
        "history": ["i1", "i2", "nobody"], "num_results": 4, "validate_only": True,
        "filter": {"where": "year >= 2000", "exclude": ["i3"]}, "decoding": {"exact": True},
    }  # fmt: skip
    answer = client.post(ASK, json=asked).json()
    catalog = index_of_toys().catalog
    allowed = [
        row for row, one in enumerate(catalog.item_ids)
        if catalog[row].fields["year"] >= 2000 and one not in ("i1", "i2", "i3")
    ]  # fmt: skip
    assert answer["items"] == []
    assert answer["plan"] == {
        "mode": "semantic_id", "normalize": "catalog", "beam": 5, "max_expansions": 10_000,
        "queries": None, "constraint": None, "allowed_items": len(allowed),
    }  # fmt: skip
    assert answer["missing_ids"] == ["nobody"]
    assert (answer["usage"]["history_items"], answer["usage"]["model_calls"]) == (2, 0)
    assert (answer["degraded"], answer["notes"]) == (None, ["validate_only: nothing was searched"])
    assert server.metric("genrec_queue_depth") == 0


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"filter": {"where": "colour = 1"}}, "invalid_filter"),
        ({"mode": "title"}, "mode_unavailable"),
        ({"return_fields": ["colour"]}, "unknown_return_field"),
        ({"decoding": {"exact": True, "diversity": 1.0}}, "invalid_request"),
        ({"filter": {"max_per": {"colour": 1}}}, "invalid_request"),
    ],
)
def test_a_check_fails_as_the_request_would(more, code):
    with Server() as client:
        for validate_only in (True, False):
            reply = client.post(ASK, json={"history": [], "validate_only": validate_only, **more})
            assert (reply.status_code, reply.json()["error"]["code"]) == (422, code)


def test_a_walk_is_a_search():
    with Server() as client:
        for more in ({"fallback": "similar"}, {"validate_only": True}):
            reply = client.post(WALK, json={"history": [], **more})
            assert reply.status_code == 422
            assert reply.json()["error"]["param"] in more


def test_usual_answers_have_no_plan():
    with Server() as client:
        answer = json.loads(client.post(ASK, json={"history": ["i1"], "fallback": "similar"}).content)
    assert (answer["plan"], answer["degraded"], answer["items"][0]["source"]) == (None, None, "generated")


def test_the_plan_in_python():
    recommender = toy_live().recommender
    plan = plan_of(recommender, ["i1"], Wishes(exclude_seen=False))
    assert (plan.allowed_items, plan.history_items, plan.mode) == (
        len(recommender.index.catalog),
        1,
        "semantic_id",
    )
