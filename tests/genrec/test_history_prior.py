"""The history prior: by eye, against the baseline it is made of, through files, and as items come and go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec import text_neighbours as neighbours_module
from genrec.evaluation.baselines import recency_weights, text_scores
from genrec.evaluation.cooccurrence import Cooccurrence
from genrec.history_prior import (
    DIRECTORY,
    HistoryPrior,
    NeighbourLists,
    PriorSettings,
    load_history_prior,
)
from genrec.item_words import ItemWords
from genrec.prior_changes import carried_over
from genrec.text_neighbours import neighbours_of, text_neighbours
from genrec.training.fit_prior import fit_history_prior
from index.errors import IndexFormatError
from index.histories import leave_one_out
from index.maintenance import add_items, compact, remove_items
from index.trie import build_trie
from tests.toy import ITEMS, toy_catalog, toy_histories, toy_index

# Three items: 0 is followed by 1 (rate .5) and 2 (rate .1), 1 by 2 (.4); the texts of 0 and 2 are alike.
LISTS = NeighbourLists(
    np.array([0, 2, 3, 3]),
    np.array([1, 2, 2], np.int32),
    np.array([0.5, 0.1, 0.4], np.float32),
    np.array([0, 1, 1, 2]),
    np.array([2, 0], np.int32),
)
TEXT = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)


def dense(shares, items: int = ITEMS) -> np.ndarray:
    result = np.zeros(items)
    result[shares.rows] = shares.shares
    return result


def test_by_eye():
    prior = HistoryPrior(LISTS, TEXT, PriorSettings(0.5, text_weight=0.5, power=1.0, unseen_boost=1.0))
    after_0, after_both, nothing = prior.shares([np.array([0]), np.array([1, 0]), np.array([], np.int64)])
    # After 0: item 1 has .5 and a cosine of 0; item 2 has .1 and half of .6.
    np.testing.assert_allclose(dense(after_0, 3), np.array([0, 0.5, 0.4]) / 0.9, atol=1e-6)
    # After 1, then 0: items of the history have no share, whatever follows them.
    assert dense(after_both, 3).tolist() == [0, 0, 1]
    assert not len(nothing.rows)
    assert nothing.over(build_trie([[0, 0], [0, 1], [1, 0]]), 0.5) is None


def test_power_trusts_the_best_more_and_recency_the_newest():
    asked = [np.array([0])]
    sharp = HistoryPrior(LISTS, TEXT, PriorSettings(0.5, 0.5, 2.0, unseen_boost=1.0)).shares(asked)[0]
    np.testing.assert_allclose(dense(sharp, 3)[1], 0.25 / (0.25 + 0.16), rtol=1e-5)
    evidence = HistoryPrior(LISTS, TEXT, PriorSettings(0.5)).evidence([np.array([0, 0])])[0]
    np.testing.assert_allclose(evidence.rates[evidence.rows == 1], 0.5 + 0.25, rtol=1e-6)


def test_words_say_what_text_vectors_do_not():
    """Items 0 and 2 share one word, 0 and 1 none; half of item 2's words, by weight squared, are others."""
    words = ItemWords(
        np.array([0, 1, 2, 4]), np.array([0, 1, 0, 1], np.int32), np.array([1, 1, 0.6, 0.8], np.float32)
    )
    settings = PriorSettings(0.5, text_weight=0.0, power=1.0, word_weight=0.5, unseen_boost=1.0)
    prior = HistoryPrior(LISTS, TEXT, settings, words)
    after_0, after_both = prior.evidence([np.array([0]), np.array([1, 0])])
    assert dict(zip(after_0.rows.tolist(), after_0.word_cosines.tolist(), strict=True)) == {
        1: 0.0,
        2: pytest.approx(0.6),
    }
    assert after_both.rows.tolist() == [2]
    assert after_both.word_cosines == pytest.approx([(1 * 0.6 + 0.5 * 0.8) / 1.5])
    (shares,) = prior.shares([np.array([0])])
    np.testing.assert_allclose(dense(shares, 3), np.array([0, 0.5, 0.4]) / 0.9, atol=1e-6)
    much = replace(prior, settings=replace(settings, word_weight=3.0))
    assert much.reason(np.array([1, 0]), 2) == 0  # .1 + 3 · .6 / 1.5 is more than half of .4 + 3 · .8 / 1.5
    assert replace(prior, words=None).reason(np.array([1, 0]), 2) == 1
    for items in (0, 2):
        nothing = ItemWords(np.zeros(items + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
        with pytest.raises(IndexFormatError, match=f"words of the 3 items of the index, got {items}"):
            replace(prior, words=nothing)


def test_what_nothing_is_known_to_follow_speaks_louder_by_its_text():
    """Item 2 leads nowhere yet: half of its cosine of .6 counts three times, item 1's own text not more than once."""
    settings = PriorSettings(0.5, text_weight=0.5, power=1.0, unseen_boost=3.0)
    prior = HistoryPrior(LISTS, TEXT, settings)
    assert prior.unseen(np.array([0, 1, 2])).tolist() == [False, False, True]
    (after_0,) = prior.shares([np.array([0])])
    np.testing.assert_allclose(dense(after_0, 3), np.array([0, 0.5, 0.1 + 0.9]) / 1.5, atol=1e-6)
    assert (
        prior.reason(np.array([1, 0]), 2) == 0
    )  # .1 + 3 · .5 · .6 / 1.5 is more than half of .4 + 3 · .5 · .8 / 1.5
    assert replace(prior, settings=replace(settings, unseen_boost=0.1)).reason(np.array([1, 0]), 2) == 1


def test_the_reason_is_the_event_that_says_most():
    prior = HistoryPrior(LISTS, TEXT, PriorSettings(recency=0.5, text_weight=0.0))
    assert prior.reason(np.array([1, 0]), 2) == 1  # .4 a step ago is more than .1 now
    assert prior.reason(np.array([2]), 1) is None
    assert prior.reason(np.array([], np.int64), 1) is None


def test_shares_are_those_of_the_baseline_where_its_lists_are_whole():
    """40 items fit into every list, so nothing is cut: the scores are CooccurrenceText's, of all items."""
    index, histories = toy_index(), toy_histories()
    prior = replace(fit_history_prior(index, histories), settings=PriorSettings(0.7, 0.3, 3.0, 0.0))
    cases = leave_one_out(histories, "test").take(np.arange(20))
    weights = recency_weights(cases, ITEMS, 0.7)
    rates = weights @ Cooccurrence(histories, ITEMS).rates
    score = rates.toarray() + 0.3 * text_scores(weights, np.asarray(index.vectors.text))
    found = prior.shares([cases.history_of(case) for case in range(20)])
    for case in range(20):
        score[case, cases.history_of(case)] = 0
        # A text that no list of the last five events has may only miss where no rate speaks for the item either.
        expected = np.maximum(score[case], 0) ** 3
        np.testing.assert_allclose(dense(found[case]), expected / expected.sum(), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=30), min_size=1, max_size=6))
def test_a_batch_is_its_histories_one_by_one(histories):
    prior = fit_history_prior(toy_index(), toy_histories())
    rows = [np.array(one, np.int64) for one in histories]
    for one, together in zip(rows, prior.shares(rows), strict=True):
        alone = prior.shares([one])[0]
        np.testing.assert_allclose(dense(alone), dense(together), rtol=1e-6)
        assert not np.isin(together.rows, one).any()
        assert together.shares.sum() == pytest.approx(1) or not len(together.rows)


def test_neighbours_are_the_nearest_texts():
    rng = np.random.default_rng(0)
    text = rng.standard_normal((60, 8)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    text[7] = 0  # an item without text
    offsets, rows = text_neighbours(text, 5)
    cosine = text @ text.T
    np.fill_diagonal(cosine, -2)
    cosine[:, 7] = -2
    for item in range(60):
        own = rows[offsets[item] : offsets[item + 1]]
        assert own.tolist() == ([] if item == 7 else np.argsort(-cosine[item])[:5].tolist())
    assert [len(one) for one in neighbours_of(text, np.array([3, 7]), 5)] == [5, 0]
    assert neighbours_of(text, np.array([3]), 5)[0].tolist() == rows[offsets[3] : offsets[4]].tolist()
    assert text_neighbours(text[:1], 5)[1].size == 0


def test_a_large_catalog_is_compared_cell_by_cell(monkeypatch):
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 16))
    text = (centres[rng.integers(0, 20, 1_000)] + 0.2 * rng.standard_normal((1_000, 16))).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    _, exact = text_neighbours(text, 10)
    monkeypatch.setattr(neighbours_module, "ALL_PAIRS", 100)
    offsets, rows = text_neighbours(text, 10)
    assert (np.diff(offsets) == 10).all()
    lists, wanted = rows.reshape(1_000, 10), exact.reshape(1_000, 10)
    assert not (lists == np.arange(1_000)[:, None]).any()
    found = np.mean([np.isin(one, other).mean() for one, other in zip(wanted, lists, strict=True)])
    assert found > 0.95


def test_it_comes_back_from_files(tmp_path):
    index = toy_index()
    prior = replace(fit_history_prior(index, toy_histories()), settings=PriorSettings(0.8, 0.1, 2.0))
    prior.save_files(tmp_path)
    again = load_history_prior(tmp_path, prior.manifest(), index.vectors.text)
    assert again.settings == prior.settings
    history = [np.array([3, 7])]
    assert dense(again.shares(history)[0]).tolist() == dense(prior.shares(history)[0]).tolist()
    with pytest.raises(IndexFormatError, match="lists of 39 items"):
        load_history_prior(tmp_path, prior.manifest(), index.vectors.text[:39])
    with pytest.raises(IndexFormatError, match="expected prior settings"):
        load_history_prior(tmp_path, {"recent": 1}, index.vectors.text)
    with pytest.raises(IndexFormatError, match="power > 0"):
        load_history_prior(tmp_path, {"power": 0}, index.vectors.text)
    for name in (
        "power",
        "text_weight",
        "word_weight",
        "unseen_boost",
    ):  # json reads Infinity and NaN, and scores would be none
        for value in (float("inf"), float("nan")):
            with pytest.raises(IndexFormatError, match="finite, got"):
                load_history_prior(tmp_path, {name: value}, index.vectors.text)
    np.save(tmp_path / DIRECTORY / "word_numbers.npy", np.zeros(3, np.int32))
    with pytest.raises(IndexFormatError, match="weights of words"):
        load_history_prior(tmp_path, prior.manifest(), index.vectors.text)
    for file in (tmp_path / DIRECTORY).glob("word_*"):  # a bundle from before there were words
        file.unlink()
    of_before = {
        name: value for name, value in prior.manifest().items() if name not in ("word_weight", "unseen_boost")
    }
    before = load_history_prior(tmp_path, of_before, index.vectors.text)
    assert (before.words, before.settings.word_weight, before.settings.unseen_boost) == (None, 0.0, 1.0)
    without = replace(prior, settings=replace(prior.settings, word_weight=0.0))
    assert dense(before.shares(history)[0]).tolist() == dense(without.shares(history)[0]).tolist()
    np.save(Path(tmp_path / DIRECTORY / "follow_rows.npy"), np.zeros(3, np.int32))
    with pytest.raises(IndexFormatError, match="with 3 entries"):
        load_history_prior(tmp_path, prior.manifest(), index.vectors.text)


def test_new_items_are_found_by_text_and_gone_ones_leave_no_trace():
    index = toy_index()
    prior = fit_history_prior(index, toy_histories())
    # How much a word says depends on who has it, so with words the shares of others move a little.
    prior = replace(prior, settings=PriorSettings(word_weight=0.0))
    frame = (
        toy_catalog()
        .frame[:1]
        .with_columns(item_id=np.array(["new"]), title=np.array(["The river comedy again"]))
    )
    added = add_items(index, type(index.catalog)(frame))
    grown = carried_over(prior, added.catalog.rows_of(index.catalog.item_ids), added)
    assert grown.unseen(np.arange(ITEMS + 1)).tolist() == [False] * ITEMS + [True]
    louder = replace(grown, settings=replace(grown.settings, unseen_boost=20.0)).shares([np.array([0])])[0]
    assert louder.rows[np.argmax(louder.shares)] == ITEMS, "the new item is what its boost is for"
    assert len(grown.lists) == len(grown.words) == ITEMS + 1
    np.testing.assert_array_equal(grown.words.weights, ItemWords.of_texts(added.catalog.texts()).weights)
    after_its_like = grown.shares([np.array([0])])[0]  # item 0 is The river comedy
    assert ITEMS in after_its_like.rows
    assert len(
        grown.shares([np.array([ITEMS])])[0].rows
    )  # and a history of the new item alone says something
    before = dense(prior.shares([np.array([1])])[0])
    after = dense(grown.shares([np.array([1])])[0], ITEMS + 1)
    np.testing.assert_allclose(after[:ITEMS] / after[:ITEMS].sum(), before, rtol=1e-5)

    smaller = compact(remove_items(added, ["i4", "new"]))
    shrunk = carried_over(grown, smaller.catalog.rows_of(added.catalog.item_ids), smaller)
    assert len(shrunk.lists) == ITEMS - 1
    before[4] = 0
    found = dense(shrunk.shares([smaller.catalog.rows_of(["i1"])])[0], ITEMS - 1)
    np.testing.assert_allclose(found, np.delete(before, 4) / before.sum(), rtol=1e-5)
