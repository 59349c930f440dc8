"""Rows that ask a model in other ways, each against what it is said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from genrec.evaluation.protocol import evaluate
from genrec.evaluation.variants import variants
from genrec.modes import TrieMode
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.catalog import Catalog
from index.errors import RequestError
from index.histories import Cases, leave_one_out
from index.item_index import ItemIndex
from index.maintenance import remove_items
from tests.fake_decoder import FakeDecoder
from tests.toy import toy_histories, toy_index
from tests.toy_text import toy_recommender, toy_text, toy_title_mode

K = 6


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    return toy_index()


@pytest.fixture(scope="module")
def recommender(index: ItemIndex) -> Recommender:
    return toy_recommender(index)


@pytest.fixture(scope="module")
def cases() -> Cases:
    return leave_one_out(toy_histories(), "test").take(np.arange(5))


class Spelling(FakeDecoder):
    """All but surely writes the texts it was made with, the first one first."""

    def __init__(self, recommender: Recommender, texts: list[str]) -> None:
        mode = recommender.modes["title"]
        super().__init__(mode.speech.vocabulary.size, spread=0.01)
        self._paths = mode.speech.vocabulary.answers(texts)

    def logits_after(self, prompt_seed: int, path):
        logits = super().logits_after(prompt_seed, path)
        for place, one in enumerate(self._paths):
            if tuple(one[: len(path)]) == tuple(path) and len(one) > len(path):
                logits[one[len(path)]] += 20.0 - place
        return logits


def test_the_rows_beside_each_mode(recommender):
    titles = ["title-vocabulary", "title-length-normalised", "title-unconstrained"]
    assert list(variants(recommender, ["semantic_id", "title", "query"])) == [
        *titles,
        "query-1",
        "query-one-by-one",
        "query-catalog_ngrams",
    ]
    assert list(variants(recommender, ["semantic_id"])) == []


def test_the_other_normalisation_and_other_queries(recommender, cases):
    ways = variants(recommender, ["title", "query"])
    for name, wishes in (
        ("title-vocabulary", Wishes(k=K, mode="title", normalize="vocabulary")),
        ("query-one-by-one", Wishes(k=K, mode="query", queries=1)),
        ("query-catalog_ngrams", Wishes(k=K, mode="query", constraint="catalog_ngrams")),
    ):
        ranked = ways[name](cases, K, None)
        assert ranked.validity is None
        for case in range(len(cases)):
            (alone,) = recommender.search_rows([cases.history_of(case)], wishes)
            rows = recommender.rows_of(alone, wishes).tolist()
            assert ranked.rows[case].tolist() == rows + [-1] * (K - len(rows))


def test_length_normalised_titles_are_ranked_by_the_mean_per_token(index, cases):
    recommender = toy_recommender(index)
    mode = recommender.modes["title"]
    assert isinstance(mode, TrieMode)
    wide = replace(mode, defaults=replace(mode.defaults, beam=len(index.catalog)))
    recommender = Recommender(index, modes={"title": wide})
    ranked = variants(recommender, ["title"])["title-length-normalised"](cases, K, None).rows
    lengths = np.array([len(path) for path in mode.speech.vocabulary.answers(index.catalog.titles)])
    for case in range(len(cases)):
        history = cases.history_of(case)
        wishes = Wishes(k=len(index.catalog), normalize="vocabulary", exclude_seen=False)
        (found,) = recommender.search_rows([history], wishes)
        score = np.empty(len(index.catalog))
        rows = recommender.rows_of(found, wishes)
        score[rows] = found.scores / lengths[rows]
        score[history] = -np.inf
        assert ranked[case].tolist() == np.argsort(-score, kind="stable")[:K].tolist()


def test_free_text_finds_what_it_names_to_the_letter(recommender, cases):
    titles = recommender.index.catalog.titles
    texts = [titles[8], "The green comedy", titles[30], "the night comedy"]
    mode = replace(recommender.modes["title"], decoder=Spelling(recommender, texts))
    asked = Recommender(recommender.index, modes={"title": mode})
    few = Cases(
        user=cases.user[:1],
        history_offsets=np.array([0, 1]),
        history=np.array([1], np.int32),
        target=cases.target[:1],
    )
    ranked = variants(asked, ["title"])["title-unconstrained"](few, 4, None)
    assert ranked.rows.tolist() == [[8, -1, 30, -1]]
    assert ranked.validity == 0.5
    seen = replace(few, history=np.array([8], np.int32))  # a seen item costs its place, as for everybody
    assert variants(asked, ["title"])["title-unconstrained"](seen, 4, None).rows.tolist() == [
        [-1, -1, 30, -1]
    ]


def test_free_text_finds_each_of_two_items_of_one_title_once_and_no_removed_one(index, cases):
    titles = index.catalog.titles
    frame = index.catalog.frame.with_columns(title=pl.Series([*titles[:9], titles[8], *titles[10:]]))
    changed = remove_items(replace(index, catalog=Catalog(frame)), ["i8", "i30"])
    mode = toy_title_mode(changed, toy_text(changed))
    plain = Recommender(changed, modes={"title": mode})
    texts = [titles[8], titles[30]]
    asked = Recommender(changed, modes={"title": replace(mode, decoder=Spelling(plain, texts))})
    few = cases.take(np.arange(1))
    few = replace(few, history=np.zeros(1, np.int32), history_offsets=np.array([0, 1]))
    ranked = variants(asked, ["title"])["title-unconstrained"](few, 2, None)
    assert ranked.rows.tolist() == [[9, -1]]
    assert ranked.validity == 0.5


def test_one_table_of_everything(recommender):
    histories = toy_histories()
    told = []
    result = evaluate(
        recommender,
        recommender.index.trained_events,
        histories,
        users=10,
        with_variants=True,
        progress=lambda system, done, total: told.append(system),
    )
    ours = [
        "genrec", "genrec-title", "genrec-query", "genrec-title-vocabulary", "genrec-title-length-normalised",
        "genrec-title-unconstrained", "genrec-query-1", "genrec-query-one-by-one", "genrec-query-catalog_ngrams",
    ]  # fmt: skip
    assert list(result.systems)[:9] == ours
    assert list(dict.fromkeys(told)) == list(result.systems)
    assert result.label_fields == ("genre",)
    for name, figures in result.systems.items():
        assert figures["recall@10"] <= figures["recall@40"] <= 1
        assert 0 <= figures["diversity@40"] <= 1
        assert 0 <= figures["coverage@40"] <= 1
        assert figures["validity"] == (0.0 if name == "genrec-title-unconstrained" else 1.0)
    # A query of one genre finds that genre alone; its newest item's, so all of this user's interests are covered.
    assert result.systems["genrec-query-1"]["diversity@40"] == 0.0
    assert result.systems["genrec-query-1"]["coverage@40"] == 1.0


def test_modes_may_be_chosen(recommender):
    chosen = evaluate(
        recommender,
        recommender.index.trained_events,
        toy_histories(),
        users=10,
        modes=["title"],
        baselines=False,
        label_fields=[],
    )
    assert list(chosen.systems) == ["genrec-title"]
    assert "diversity@40" not in chosen.systems["genrec-title"]
    with pytest.raises(RequestError, match="got 'song'"):
        evaluate(recommender, recommender.index.trained_events, toy_histories(), modes=["song"])
