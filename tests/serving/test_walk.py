"""``POST /v1/walk``: the recommendation, and a walk that leads to it."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from index.item_index import ItemIndex
from serving.live_bundle import LiveBundle
from serving.walks import code_label, label_of
from tests.serving.toy_server import CATALOG, MODEL, Server, index_of_toys
from tests.toy import ITEMS
from tests.toy_text import toy_recommender, toy_text, toy_title_mode

ASK, WALK = "/v1/recommendations", "/v1/walk"
UNLIKE = ("id", "created", "timings_ms")  # of two answers to one request


@pytest.fixture(scope="module")
def client():
    with Server() as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        {"history": ["i3", "i8"], "num_results": 5},
        {"history": []},
        {"history": ["i3"], "filter": {"where": 'genre == "drama" and year > 1990'}, "decoding": {"beam": 3}},
        {
            "history": ["i3"],
            "decoding": {"exact": True, "beam": 2},
            "explain": True,
            "return_fields": ["year"],
        },
        {"history": ["i3"], "decoding": {"sample": True, "seed": 4}},
        {"history": ["i3"], "decoding": {"normalize": "vocabulary"}},
        {"history": ["i3"], "filter": {"max_per": {"genre": 1}}},
        {"history": ["i3"], "filter": {"include": []}},
    ],
)
def test_the_walk_leads_to_the_recommendation(client, body):
    plain, walk = client.post(ASK, json=body).json(), client.post(WALK, json=body).json()
    told = walk["recommendation"]
    for name in plain.keys() - set(UNLIKE):
        assert told[name] == plain[name], name
    assert [one["item_id"] for one in walk["steps"][-1]["found"]] == [
        one["item_id"] for one in plain["items"]
    ]
    assert walk["steps"][-1]["certified"] == plain["certified"]
    assert sum(len(step["expanded"]) for step in walk["steps"]) == plain["usage"]["expansions"]
    assert not walk["truncated"]
    assert (walk["object"], walk["items"]) == ("walk", ITEMS)
    catalog = index_of_toys().catalog
    for item_id, title in walk["titles"].items():
        assert title == catalog.titles[int(item_id[1:])]
    named = {one for prefix in walk["prefixes"] for one in prefix["examples"]}
    assert named | {one["item_id"] for one in plain["items"]} == set(walk["titles"])
    for step in walk["steps"]:
        assert sum(step["counts"].values()) == step["scored"]


def test_labels_are_the_codes_of_the_items_below(client):
    walk = client.post(WALK, json={"history": ["i3"], "num_results": 3}).json()
    codes, by_id = index_of_toys().codes, {one["id"]: one for one in walk["prefixes"]}
    assert by_id[0]["label"] == ""
    for prefix in walk["prefixes"][1:]:
        path, at = [], prefix
        while at["parent"] is not None:
            path, at = [*at["label"].split(" · "), *path], by_id[at["parent"]]
        for item_id in prefix["examples"]:
            assert [str(code) for code in codes[int(item_id[1:])]][: len(path)] == path


def test_a_title_is_walked_piece_by_piece_and_queries_walk_nothing():
    recommender = toy_recommender(index_of_toys())
    with Server(LiveBundle(recommender, recommender.index.titles(), MODEL, CATALOG)) as client:
        body = {"history": ["i3"], "mode": "title", "num_results": 4}
        plain, walk = client.post(ASK, json=body).json(), client.post(WALK, json=body).json()
        assert walk["recommendation"]["items"] == plain["items"]
        by_id = {one["id"]: one for one in walk["prefixes"]}
        finished = [one for one in walk["prefixes"] if one["fate"] == "finished"]
        assert finished
        for at in finished:
            (title,) = {walk["titles"][item_id] for item_id in at["examples"]}
            pieces = []
            while at["parent"] is not None:
                pieces, at = [at["label"], *pieces], by_id[at["parent"]]
            written = "".join(pieces).removesuffix("∎").replace("␣", "")
            assert "".join(written.split()) == "".join(title.split())
        refused = client.post(WALK, json={"history": ["i3"], "mode": "query"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_request")
        assert "expected a mode that searches a trie" in refused.json()["error"]["message"]


def test_what_is_certified_only_grows(client):
    walk = client.post(
        WALK, json={"history": ["i3"], "num_results": 2, "decoding": {"exact": True, "beam": 1}}
    ).json()
    assert len(walk["steps"]) > 1
    certified = [step["certified"] for step in walk["steps"]]
    assert all(one <= other for one, other in pairwise(certified))
    assert certified[-1] == len(walk["recommendation"]["items"])
    bounds = [step["bound"] for step in walk["steps"] if step["bound"] is not None]
    assert all(one >= other - 1e-9 for one, other in pairwise(bounds))


@pytest.mark.parametrize(
    ("decoding", "param"),
    [
        ({"synchronize": "token"}, "decoding.synchronize"),
        ({"diversity": 1.0}, "decoding.diversity"),
    ],
)
def test_searches_without_steps_are_refused(client, decoding, param):
    answer = client.post(WALK, json={"history": ["i3"], "decoding": decoding})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert "expected a search with steps of its own" in error["message"]


def test_bad_requests_get_the_errors_of_recommendations(client):
    for body, code in (
        ({"history": ["i3"], "num_results": 999}, "invalid_value"),
        ({"history": ["i3"], "filter": {"where": "colour == 1"}}, "invalid_filter"),
        ({"history": ["i3"], "mode": "title"}, "mode_unavailable"),
        ({"history": ["i3"], "colour": 1}, "unknown_field"),
    ):
        plain, walk = client.post(ASK, json=body), client.post(WALK, json=body)
        assert walk.status_code == plain.status_code >= 400
        assert walk.json() == plain.json()
        assert walk.json()["error"]["code"] == code


def test_scores_that_are_no_numbers_are_null(client):
    """JSON has no infinity: a search that has nothing left has no bound."""
    answer = client.post(WALK, json={"history": ["i3"], "num_results": ITEMS, "decoding": {"exact": True}})
    walk = json.loads(answer.content, parse_constant=pytest.fail)
    assert walk["steps"][-1]["bound"] is None


def test_forced_codes_are_told_together():
    index = index_of_toys()
    first, second = index.level_sizes[:2]
    label = code_label(index)
    assert isinstance(index, ItemIndex)
    assert label([3], 0) == "3"
    assert label([3, first + 2], 0) == "3 · 2"
    assert label([first + 1, first + second], 1) == "1 · 0"
    assert label([], 0) == ""
    assert np.sum(index.level_sizes) > first + second


def test_a_plan_is_told_as_codes_and_what_follows_as_words():
    index = index_of_toys()
    text = toy_text(index, plan=True)
    label = label_of(toy_title_mode(index, text), index)
    path = text.titles.path(0)
    levels = index.codes.shape[1]
    codes = code_label(index)(index.level_tokens[text.titles.item_at_rank[0]].tolist(), 0)
    title = index.catalog.titles[int(text.titles.item_at_rank[0])]
    assert label(path[:levels], 0) == codes
    assert label(path, 0) == f"{codes} · {title}"
    assert label(path[levels - 1 :], levels - 1).split(" · ", 1) == [codes.split(" · ")[-1], title]
    assert label(path[levels:], levels) == title
    assert label(path[-1:], len(path) - 1) == "∎"


def test_a_server_may_have_no_walk():
    with Server(playground=False) as client:
        assert client.post(WALK, json={"history": ["i3"]}).status_code == 404
        assert WALK not in client.get("/openapi.json").json()["paths"]
        assert client.post(ASK, json={"history": ["i3"]}).status_code == 200
