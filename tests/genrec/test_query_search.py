"""Query mode: what the model writes finds items, and the answer says by which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from genrec.modes import QueryMode, query_mode
from genrec.queries import QueryRequest
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import ModelQueries
from genrec.recommender import Recommendation, Recommender
from genrec.search import Diversity
from genrec.speech import Speech, SpeechForm
from genrec.tasks import QueryDefaults
from genrec.vocabulary import TextVocabulary
from genrec.wishes import Wishes
from index.bm25.analyzer import analyze
from index.item_index import ItemIndex
from index.maintenance import remove_items
from index.types import Float32Array
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.toy import GENRES, ITEMS, WORDS, toy_index


class Scripted(FakeDecoder):
    """Prefers given texts, the first most, whatever the prompt; beside them it babbles."""

    def __init__(self, vocabulary: TextVocabulary, texts: Sequence[str], seed: int = 0) -> None:
        super().__init__(vocabulary.size, seed, spread=0.1)
        self._paths = vocabulary.answers(texts)

    def logits_after(self, prompt_seed: int, path: Sequence[int]) -> Float32Array:
        logits = super().logits_after(prompt_seed, path)
        for place, answer in enumerate(self._paths):
            if len(answer) > len(path) and answer[: len(path)] == list(path):
                token = answer[len(path)]
                logits[token] = max(logits[token], 20 - place)
        return logits


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


@pytest.fixture(scope="module")
def vocabulary(index: ItemIndex) -> TextVocabulary:
    return TextVocabulary.train(index.catalog.titles, 300)


def speech_of(index: ItemIndex, vocabulary: TextVocabulary) -> Speech:
    return Speech(index, SpeechForm("compact"), vocabulary)


def scripted(index: ItemIndex, vocabulary: TextVocabulary, *texts: str, **defaults: object) -> Recommender:
    """A recommender whose model writes these texts."""
    chosen = QueryDefaults(**{"beam": 6, "queries": 2, **defaults})  # type: ignore[arg-type]
    speech = speech_of(index, vocabulary)
    search = CatalogQuerySearch(
        ModelQueries(Scripted(vocabulary, texts), speech), index.bm25_scored_by(chosen.k1, chosen.b)
    )
    return Recommender(index, modes={"query": query_mode(speech, search, chosen)})


def rows(answer: Recommendation) -> list[int]:
    return [int(item.item_id[1:]) for item in answer.items]


def test_each_query_finds_its_share_and_says_by_which_words(index, vocabulary) -> None:
    answer = scripted(index, vocabulary, "river", "Western night").recommend(["i0"], k=4)
    # Item i is word i // 4 in genre i % 4. "river" finds 0 to 3, of which 0 is the history; "western night" best 7.
    assert rows(answer)[:3] == [1, 2, 7]
    assert rows(answer)[3] in (3, 4)  # by "western" alone, or by "night"
    assert [query.text for query in answer.queries] == ["river", "Western night"]
    assert [query.found for query in answer.queries] == [2, 2]
    assert [item.generated for item in answer.items] == ["river", "river", "Western night", "Western night"]
    assert answer.queries[0].matched_terms == ("river",)
    assert set(answer.queries[1].matched_terms) == {"western", "night"}
    assert answer.queries[0].score > answer.queries[1].score
    for item in answer.items:
        assert sum(part.score for part in item.matched_terms) == pytest.approx(item.score)
        assert {part.term for part in item.matched_terms} <= set(analyze([item.generated or ""])[0])
    assert (answer.mode, answer.certified) == ("query", 0)
    assert answer.model_calls > 5  # the prompt, then a token at a time
    assert all(item.probability is None for item in answer.items)


def test_history_and_filters_act_inside_retrieval(index, vocabulary) -> None:
    recommender = scripted(index, vocabulary, "river", "night")
    answer = recommender.recommend(["i1", "i2"], k=3, where='genre != "comedy"', exclude=["i5"])
    assert rows(answer) == [3, 6, 7]
    again = recommender.recommend(["i1", "i2"], k=8, exclude_seen=False)
    assert rows(again) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert rows(recommender.recommend([], k=3, include=["i6", "i0", "i39"])) == [0, 6]


def test_two_queries_of_the_same_words_count_once(index, vocabulary) -> None:
    recommender = scripted(index, vocabulary, "river", "the river", "Rivers", "night")
    assert [query.text for query in recommender.recommend([], k=4).queries] == ["river", "night"]


def test_a_query_without_a_hit_is_named_and_costs_nothing(index, vocabulary) -> None:
    answer = scripted(index, vocabulary, "zebra", "night").recommend([], k=4)
    assert rows(answer) == [4, 5, 6, 7]
    assert [query.found for query in answer.queries] == [0, 4]
    assert answer.notes[-1] == "1 query found no item that others had not"
    nothing = scripted(index, vocabulary, "zebra", "quagga").recommend(["i1"], k=4)
    assert nothing.items == ()
    assert "0 of 4 items: the queries find no others" in nothing.notes[0]


def test_constrained_queries_stay_in_the_catalog(index, vocabulary) -> None:
    recommender = scripted(index, vocabulary, "zebra", "night garden", "The night", "winter drama", queries=3)
    free = recommender.recommend([], k=6)
    held = recommender.recommend([], k=6, constraint="catalog_ngrams")
    assert [query.text for query in free.queries] == ["zebra", "night garden", "The night"]
    texts = [query.text for query in held.queries]
    assert texts[:2] == ["The night", "winter drama"]
    known = {*WORDS, *GENRES, "The"}
    assert all(set(text.split()) <= known for text in texts)
    assert len(held.items) == 6
    assert all(query.found for query in held.queries)


def test_constrained_answers_are_full_whatever_is_allowed(index, vocabulary) -> None:
    """Each round of queries finds something that was not found yet, until nothing else is allowed."""
    speech = speech_of(index, vocabulary)
    search = CatalogQuerySearch(ModelQueries(FakeDecoder(vocabulary.size, 3), speech), index.bm25)
    rng = np.random.default_rng(0)
    requests = []
    for _ in range(20):
        allowed = rng.random(ITEMS) < rng.random()
        seen = rng.choice(ITEMS, 5, replace=False)
        requests.append(
            QueryRequest(
                item_prompt(*seen.tolist()),
                int(rng.integers(1, 30)),
                int(rng.integers(1, 4)),
                4,
                "catalog_ngrams",
                allowed,
                seen,
            )
        )
    for request, result in zip(requests, search.search(requests), strict=True):
        assert request.allowed is not None
        free = request.allowed.copy()
        free[request.exclude] = False
        found = result.rows.tolist()
        assert len(set(found)) == len(found) == min(request.k, int(free.sum()))
        assert free[found].all()
        # A query never comes without a hit; two may hit the same items.
        hits = search.bm25.search(
            [query.text for query in result.queries], 1, [request.exclude] * len(result.queries),
            [request.allowed] * len(result.queries),
        )  # fmt: skip
        assert all(len(one.rows) for one in hits)


def test_without_refills_m_queries_are_all_there_is(index, vocabulary) -> None:
    recommender = scripted(index, vocabulary, "night garden", constraint="catalog_ngrams", queries=1)
    search = recommender.modes["query"].search
    request = QueryRequest(item_prompt(), ITEMS, 1, 6, "catalog_ngrams")
    (full,) = search.search([request])
    (once,) = search.search([replace(request, refill=False)])
    assert [one.text for one in once.queries] == [full.queries[0].text]
    assert once.rows.tolist() == full.rows[: len(once.rows)].tolist()
    assert 0 < len(once.rows) < len(full.rows) == ITEMS
    assert len(full.queries) > 1


def test_nothing_allowed_is_an_empty_answer(index, vocabulary) -> None:
    recommender = scripted(index, vocabulary, "night", constraint="catalog_ngrams")
    answer = recommender.recommend([], include=[])
    assert (answer.items, answer.queries) == ((), ())


def test_a_batch_of_unlike_requests_answers_each_as_if_alone(index, vocabulary) -> None:
    recommender = scripted(index, vocabulary, "river", "night", "garden", "letter")
    wishes = [
        Wishes(k=3),
        Wishes(k=7, queries=4, where="year > 1990"),
        Wishes(k=5, constraint="catalog_ngrams"),
        Wishes(k=5, sample=True, seed=4),
        Wishes(k=5, sample=True, seed=4, constraint="catalog_ngrams", where='genre == "drama"'),
        Wishes(k=4, diversity=Diversity(2, 5.0)),
    ]
    histories = [["i1", "i2"], ["i5"], [], ["i9"], ["i9"], ["i3"]]
    together = recommender.recommend_batch(histories, wishes)
    for history, wish, answer in zip(histories, wishes, together, strict=True):
        [alone] = recommender.recommend_batch([history], wish)
        assert rows(alone) == rows(answer)
        assert [one.text for one in alone.queries] == [one.text for one in answer.queries]


def test_calls_of_the_model_are_counted_by_round(index, vocabulary) -> None:
    speech = speech_of(index, vocabulary)
    decoder = FakeDecoder(vocabulary.size)
    search = CatalogQuerySearch(ModelQueries(decoder, speech), index.bm25)
    request = QueryRequest(item_prompt(1), 40, 1, 1, "catalog_ngrams")  # one query never finds all forty
    [result] = search.search([request])
    assert len(result.rows) == ITEMS
    assert len(result.queries) > 1
    assert result.model_calls == decoder.calls
    before = decoder.calls
    search.search([request])
    assert decoder.calls == 2 * before  # counted anew


def test_samples_depend_on_their_seed(index, vocabulary) -> None:
    speech = speech_of(index, vocabulary)
    search = CatalogQuerySearch(ModelQueries(FakeDecoder(vocabulary.size), speech), index.bm25)
    recommender = Recommender(
        index, modes={"query": query_mode(speech, search, QueryDefaults(constraint="catalog_ngrams"))}
    )

    def texts(seed: int) -> list[str]:
        return [one.text for one in recommender.recommend(["i1"], sample=True, seed=seed, queries=4).queries]

    assert texts(1) == texts(1) != texts(2)


def test_draws_of_several_histories_are_written_together(index, vocabulary) -> None:
    """Each has a seed of its own, which must not keep them apart: a draw for a hundred users took a hundred turns."""
    decoder = FakeDecoder(vocabulary.size)
    search = CatalogQuerySearch(ModelQueries(decoder, speech_of(index, vocabulary)), index.bm25)
    requests = [QueryRequest(item_prompt(n), 3, 2, sample_seed=7 + n) for n in range(4)]
    alone = [search.search([one])[0] for one in requests]
    each = decoder.calls
    together = search.search(requests)
    assert [one.queries for one in together] == [one.queries for one in alone]
    assert decoder.calls - each < 0.6 * each


def test_k1_and_b_of_the_defaults_are_used(index, vocabulary) -> None:
    recommender = scripted(index, vocabulary, "river", "night", k1=0.0, b=0.0)
    mode = recommender.modes["query"]
    assert isinstance(mode, QueryMode)
    assert isinstance(mode.search, CatalogQuerySearch)
    assert (mode.search.bm25.settings.k1, mode.search.bm25.settings.b) == (0.0, 0.0)
    score = scripted(index, vocabulary, "river", "night").recommend([]).items[0].score
    assert recommender.recommend([]).items[0].score != pytest.approx(score)


def test_a_removed_item_is_not_found(index, vocabulary) -> None:
    less = remove_items(index, ["i0", "i1"])
    for constraint in ("free", "catalog_ngrams"):
        assert rows(
            scripted(less, vocabulary, "river", "night").recommend([], k=4, constraint=constraint)
        ) == [2, 3, 4, 5]
