"""Codes, titles and queries over HTTP: what the recommender answers, in any mixture."""

from __future__ import annotations

import asyncio

import pytest

from genrec.modes import query_mode
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import ModelQueries
from genrec.recommender import Recommender
from genrec.speech import Speech
from genrec.tasks import QueryDefaults
from genrec.wishes import Wishes
from serving.live_bundle import LiveBundle
from tests.fake_decoder import FakeDecoder
from tests.serving.toy_server import CATALOG, MODEL, Server, index_of_toys
from tests.toy_text import toy_recommender, toy_text

ASK = "/v1/recommendations"


def live_of(recommender: Recommender) -> LiveBundle:
    return LiveBundle(recommender, recommender.index.titles(), MODEL, CATALOG)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return toy_recommender(index_of_toys())


@pytest.fixture(scope="module")
def server(recommender):
    return Server(live_of(recommender), max_requests=8)


@pytest.fixture(scope="module")
def client(server):
    with server as client:
        yield client


@pytest.mark.parametrize("mode", ["semantic_id", "title"])
def test_a_mode_answers_as_the_recommender_does(client, recommender, mode: str):
    answer = client.post(ASK, json={"history": ["i3"], "mode": mode, "num_results": 4}).json()
    expected = recommender.recommend(["i3"], k=4, mode=mode)
    assert answer["mode"] == mode
    assert answer["queries"] == []
    for sent, item in zip(answer["items"], expected.items, strict=True):
        assert sent["item_id"] == item.item_id
        assert sent["score"] == pytest.approx(item.score)
        assert sent["generated"] == (item.title if mode == "title" else None)
        assert (sent["source"], sent["matched_terms"]) == ("generated", [])


def test_the_first_mode_is_meant_where_none_is_named(client, recommender):
    answer = client.post(ASK, json={"history": ["i3"]}).json()
    assert answer["mode"] == "semantic_id"
    titles = Recommender(recommender.index, modes={"title": recommender.modes["title"]})
    with Server(live_of(titles)) as other:
        assert other.post(ASK, json={"history": ["i3"]}).json()["mode"] == "title"
        refused = other.post(ASK, json={"history": ["i3"], "mode": "semantic_id"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "mode_unavailable")


def test_queries_are_the_explanation(client):
    body = {"history": ["i0", "i5"], "mode": "query", "num_results": 4, "explain": True}
    answer = client.post(ASK, json=body).json()
    assert [item["item_id"] for item in answer["items"]] == ["i1", "i9", "i4", "i8"]
    assert answer["queries"][0] == {"text": "drama", "score": -1.0, "found": 2, "matched_terms": ["drama"]}
    first = answer["items"][0]
    assert (first["source"], first["generated"], first["probability"]) == ("retrieved", "drama", None)
    assert first["matched_terms"] == [{"term": "drama", "score": pytest.approx(first["score"], rel=1e-5)}]
    assert first["explanation"]["proven"] is False
    assert (answer["certified"], answer["degraded"]) == (0, None)
    fewer = client.post(ASK, json={**body, "decoding": {"queries": 1, "constraint": "free"}}).json()
    assert [query["text"] for query in fewer["queries"]] == ["drama"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"mode": "query", "decoding": {"exact": True}}, 422, "invalid_request"),
        ({"mode": "query", "filter": {"max_per": {"genre": 1}}}, 422, "invalid_request"),
        ({"mode": "title", "decoding": {"queries": 2}}, 422, "invalid_request"),
        ({"mode": "query", "filter": {"where": "colour == 1"}}, 422, "invalid_filter"),
        ({"mode": "query", "decoding": {"queries": 0}}, 400, "invalid_value"),
        ({"mode": "query", "decoding": {"queries": 501}}, 400, "invalid_value"),
        ({"mode": "query", "decoding": {"constraint": "rhyme"}}, 400, "invalid_value"),
    ],
)
def test_what_a_mode_cannot_do_is_said(client, body, status: int, code: str):
    answer = client.post(ASK, json={"history": ["i1"], **body})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_batch_may_mix_modes_and_one_bad_wish_fails_no_other(client):
    requests = [
        {"history": ["i0", "i5"], "mode": "query", "num_results": 3},
        {"history": ["i3"], "mode": "title", "num_results": 3},
        {"history": ["i1"], "mode": "query", "decoding": {"exact": True}},
        {"history": ["i3"], "num_results": 3},
        {"history": ["i3"], "mode": "title", "decoding": {"normalize": "vocabulary"}},
        {"history": ["i9"], "mode": "query", "num_results": 2},
    ]
    results = client.post(f"{ASK}:batch", json={"requests": requests}).json()["results"]
    assert [one["status"] for one in results] == [200, 200, 422, 200, 200, 200]
    for one, request in zip(results, requests, strict=True):
        alone = client.post(ASK, json=request).json()
        if one["status"] == 200:
            assert one["recommendation"]["items"] == alone["items"]
            assert one["recommendation"]["mode"] == request.get("mode", "semantic_id")


def test_queries_that_come_together_are_searched_together(server, recommender):
    asked = recommender.modes["query"].search
    asked.batches.clear()

    async def ask() -> list:
        return await server.engine.recommend_many([["i1"], ["i2"], ["i3"]], [Wishes(mode="query")] * 3)

    answers = asyncio.run(ask())
    assert asked.batches == [3]
    assert [one.batch for one in answers] == [3, 3, 3]


def test_no_client_waits_for_the_ngrams(recommender):
    index, text = recommender.index, toy_text(recommender.index)
    speech = Speech(index, text.form, text.vocabulary)
    writer = ModelQueries(FakeDecoder(text.vocabulary.size), speech)
    search = CatalogQuerySearch(writer, index.bm25)
    mode = query_mode(speech, search, QueryDefaults(beam=1, queries=1))
    live_of(Recommender(index, modes={"query": mode})).warm()
    assert "ngrams" in vars(writer)


def test_the_model_says_what_it_can_write(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert model["modes"] == ["semantic_id", "title", "query"]
    free = {"queries": None, "constraint": None}
    assert model["defaults"] == [
        {"mode": "semantic_id", "normalize": "catalog", "beam": 5, **free},
        {"mode": "title", "normalize": "catalog", "beam": 5, **free},
        {"mode": "query", "normalize": "vocabulary", "beam": 5, "queries": 2, "constraint": "free"},
    ]


def test_a_mode_that_a_reload_took_away_is_refused_not_lost(recommender):
    async def ask(server: Server) -> object:
        (answer,) = await server.engine.recommend_many([["i1"]], [Wishes(mode="title")])
        return answer

    codes = Recommender(recommender.index, modes={"semantic_id": recommender.modes["semantic_id"]})
    server = Server(live_of(codes))
    answer = asyncio.run(ask(server))
    assert "got 'title'" in str(answer)
    server.engine.close()
