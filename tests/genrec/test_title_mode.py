"""Titles as answers: everything a request may ask rides on the trie, against brute force over all titles."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from genrec.modes import TrieMode
from genrec.recommender import Recommendation, Recommender
from genrec.search import Diversity
from genrec.wishes import Wishes
from index.catalog import Catalog
from index.errors import RequestError
from index.item_index import ItemIndex
from index.maintenance import remove_items
from tests.fake_decoder import FakeDecoder
from tests.reference import best_rows, best_rows_under_caps, score_all, score_all_mixed
from tests.toy import ITEMS, toy_index
from tests.toy_text import toy_recommender, toy_text, toy_title_mode


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return toy_recommender(toy_index())


def scores(recommender: Recommender, history: list[int], normalize: str = "catalog") -> np.ndarray:
    """float64[N]: the title score of every row, from the definition."""
    mode = recommender.modes["title"]
    assert isinstance(mode, TrieMode)
    assert isinstance(mode.decoder, FakeDecoder)
    prompt = mode.spec.prompt(mode.speech, np.array(history))
    paths = mode.speech.vocabulary.answers(recommender.index.catalog.titles)
    return score_all(mode.decoder, mode.decoder.prompt_seed(prompt), paths, normalize)


def rows(answer: Recommendation) -> list[int]:
    return [int(item.item_id[1:]) for item in answer.items]


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_the_best_titles_come_back_proven(recommender, normalize: str):
    expected = scores(recommender, [3, 7], normalize)
    answer = recommender.recommend(["i3", "i7"], k=8, mode="title", normalize=normalize, exact=True)
    others = ~np.isin(np.arange(ITEMS), [3, 7])
    assert rows(answer) == best_rows(expected, 8, others)
    assert [item.score for item in answer.items] == pytest.approx(expected[rows(answer)], abs=1e-5)
    assert answer.certified == 8
    assert answer.mode == "title"
    assert answer.normalize == normalize


def test_what_the_model_wrote_is_the_title(recommender):
    answer = recommender.recommend(["i3"], mode="title")
    assert [item.generated for item in answer.items] == [item.title for item in answer.items]
    codes = recommender.recommend(["i3"])
    assert {item.generated for item in codes.items} == {None}
    assert codes.mode == "semantic_id"  # the first mode is the default


def test_probabilities_sum_to_one_over_the_catalog(recommender):
    everything = recommender.recommend(["i3"], k=ITEMS, mode="title", exclude_seen=False)
    assert sum(item.probability for item in everything.items) == pytest.approx(1, abs=1e-5)


def test_a_filter_acts_inside_the_search(recommender):
    year = 1980 + np.arange(ITEMS)
    answer = recommender.recommend(["i3"], k=4, mode="title", where="year >= 2015", exact=True)
    assert rows(answer) == best_rows(scores(recommender, [3]), 4, year >= 2015)
    include = ["i1", "i2", "i3", "nobody"]
    assert set(rows(recommender.recommend(["i3"], mode="title", include=include))) == {1, 2}
    assert set(rows(recommender.recommend(["i3"], mode="title", include=include, exclude=["i1"]))) == {2}


def test_caps_and_priors_and_samples(recommender):
    genres = [[row % 4] for row in range(ITEMS)]
    allowed = np.arange(ITEMS) != 3
    capped = recommender.recommend(["i3"], k=6, mode="title", max_per={"genre": 2}, exact=True)
    assert rows(capped) == best_rows_under_caps(scores(recommender, [3]), 6, allowed, genres, [2] * 4)

    by_row = np.arange(ITEMS, dtype=float)
    mode = recommender.modes["title"]
    prompt = mode.spec.prompt(mode.speech, np.array([3]))
    paths = mode.speech.vocabulary.answers(recommender.index.catalog.titles)
    mixed = score_all_mixed(mode.decoder, mode.decoder.prompt_seed(prompt), paths, by_row, 0.5)
    prior = recommender.prior(by_row, 0.5)  # made for codes: titles stand in another order
    answer = recommender.recommend(["i3"], k=6, mode="title", prior=prior, exact=True)
    assert rows(answer) == best_rows(mixed, 6, allowed)

    sample = recommender.recommend(["i3"], k=6, mode="title", sample=True, seed=4)
    assert rows(sample) == rows(recommender.recommend(["i3"], k=6, mode="title", sample=True, seed=4))
    assert len(set(rows(sample)) - {3}) == 6


def test_unlike_titles_and_token_synchronous_ones(recommender):
    groups = recommender.recommend(["i3"], k=6, mode="title", diversity=Diversity(3, 5.0))
    assert len(set(rows(groups)) - {3}) == 6
    token = recommender.recommend(
        ["i3"], k=4, beam=ITEMS, mode="title", synchronize="token", normalize="vocabulary"
    )
    assert rows(token) == best_rows(scores(recommender, [3], "vocabulary"), 4, np.arange(ITEMS) != 3)


def test_a_batch_may_mix_modes(recommender):
    wishes = [
        Wishes(k=3, mode="title"),
        Wishes(k=4),
        Wishes(k=5, mode="title", normalize="vocabulary"),
        Wishes(k=6, mode="title", where="year < 2000"),
    ]
    histories = [["i3"], ["i3", "i7"], [], ["i9"]]
    together = recommender.recommend_batch(histories, wishes)
    for history, one, answer in zip(histories, wishes, together, strict=True):
        (alone,) = recommender.recommend_batch([history], one)
        assert rows(answer) == rows(alone)
        assert answer.mode == (one.mode or "semantic_id")


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"mode": "song"}, r"trained for \(semantic_id, title, query\), got 'song'"),
        ({"mode": "title", "queries": 3}, "queries and constraint with mode='query' alone"),
        ({"constraint": "free"}, "queries and constraint with mode='query' alone"),
    ],
)
def test_wishes_that_no_mode_has_are_refused(recommender, wishes: dict[str, object], message: str):
    with pytest.raises(RequestError, match=message):
        recommender.recommend(["i3"], **wishes)


@pytest.fixture(scope="module")
def odd_index() -> ItemIndex:
    """Item 1 has the title of item 0, item 2 has none."""
    index = toy_index()
    titles = index.catalog.titles
    frame = index.catalog.frame.with_columns(title=pl.Series([titles[0], titles[0], " ", *titles[3:]]))
    return replace(index, catalog=Catalog(frame))


@pytest.fixture(scope="module")
def odd(odd_index: ItemIndex) -> Recommender:
    return toy_recommender(odd_index)


def test_equal_titles_share_their_probability(odd):
    answer = odd.recommend([], k=ITEMS, mode="title")
    score = {item.item_id: item.score for item in answer.items}
    assert score["i0"] == score["i1"]
    assert score["i0"] == pytest.approx(scores(odd, [])[0], abs=1e-5)


def test_an_untitled_item_is_never_returned(odd):
    for wishes in (
        Wishes(k=ITEMS, mode="title"),
        Wishes(k=ITEMS, mode="title", exact=True),
        Wishes(k=ITEMS, mode="title", where="year >= 1980"),
        Wishes(k=ITEMS, mode="title", include=["i1", "i2"]),
        Wishes(k=ITEMS, mode="title", synchronize="token"),
    ):
        (answer,) = odd.recommend_batch([["i5"]], wishes)
        assert 2 not in rows(answer)
        assert len(answer.items) == (1 if wishes.include else ITEMS - 2)
    assert 2 in rows(odd.recommend(["i5"], k=ITEMS))  # its codes are as good as any
    assert rows(odd.recommend(["i2"], k=3, mode="title", exact=True))  # and it may be read


def test_so_is_a_removed_one(odd_index):
    less = remove_items(odd_index, ["i4"])
    answer = Recommender(less, modes={"title": toy_title_mode(less, toy_text(less))}).recommend([], k=ITEMS)
    assert Counter(rows(answer)) == Counter(set(range(ITEMS)) - {2, 4})
