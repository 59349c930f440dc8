"""Baselines: by eye, against loops over lists, and the rules all of them share."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.evaluation import baselines as module
from genrec.evaluation.baselines import Baseline, Bm25Last, Popularity, TextLast, top_rows
from genrec.evaluation.cooccurrence import BACKWARD, PRIOR_EVENTS, WINDOW, Cooccurrence, CooccurrenceText
from index.bm25.bm25s_index import Bm25sIndex
from index.errors import RequestError
from index.histories import Cases, Histories, hold_out_last, leave_one_out
from index.types import Float32Array


def histories(*events: Sequence[int]) -> Histories:
    offsets = np.cumsum([0, *map(len, events)]).astype(np.int64)
    items = np.array([item for user in events for item in user], dtype=np.int32)
    return Histories([str(user) for user in range(len(events))], offsets, items)


def cases(*events: Sequence[int]) -> Cases:
    """Questions after these histories; the targets do not matter here."""
    flat = histories(*events)
    users = np.arange(len(events))
    return Cases(users, flat.offsets, flat.items, np.zeros(len(events), dtype=np.int32))


def unit_vectors(items: int, seed: int = 0) -> Float32Array:
    vectors = np.random.default_rng(seed).normal(size=(items, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# --- by eye ---------------------------------------------------------------------------------------------


def test_popularity_by_eye() -> None:
    # Item 2 three times, 0 and 3 twice (a tie: the lower row first), 1 once, 4 never.
    popularity = Popularity(histories([2, 0, 3], [2, 3, 0], [2, 1]), items=5)
    assert popularity.rank(cases([4], [2], [3, 2], [0, 1, 2, 3]), 3).tolist() == [
        [2, 0, 3],
        [0, 3, 1],
        [0, 1, -1],
        [-1, -1, -1],
    ]


def test_bm25_asks_with_the_last_items() -> None:
    texts = ["red shoe", "red shoe small", "green hat", "green hat small", "blue sock"]
    index = Bm25sIndex.build(texts)
    asked = cases([2, 0], [4], [])
    assert Bm25Last(index, texts).rank(asked, 2).tolist() == [[1, -1], [-1, -1], [-1, -1]]
    assert set(Bm25Last(index, texts, last=5).rank(asked, 2)[0].tolist()) == {1, 3}
    assert Bm25Last(index, texts, last=5).rank(cases([2, 4, 4, 4, 4, 0]), 2).tolist() == [[1, -1]]
    assert [Bm25Last(index, texts, last=n).name for n in (1, 5)] == ["bm25-last", "bm25-last5"]


def test_text_last_by_eye() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [0, 0]], dtype=np.float32)
    ranked = TextLast(vectors).rank(cases([0], [0, 3], [2, 1, 4], []), 3).tolist()
    assert ranked == [[1, 2, 3], [2, 1, 4], [-1, -1, -1], [-1, -1, -1]]


def test_cooccurrence_rates_by_eye() -> None:
    model = Cooccurrence(histories([0, 1, 2], [0, 1]), items=4)
    after_zero, after_one, after_two_zero = model.scores(cases([0], [1], [2, 0]))
    far, back = 1 / math.sqrt(2), BACKWARD
    np.testing.assert_allclose(after_zero, [0, 2 / 12, far / 12, 0], rtol=1e-6)  # 0 has two events, prior ten
    np.testing.assert_allclose(after_one, [back * 2 / 12, 0, 1 / 12, 0], rtol=1e-6)
    older = np.array([back * far / 11, back / 11, 0, 0]) / 2  # item 2 is one event older
    np.testing.assert_allclose(after_two_zero, after_zero + older, rtol=1e-6)


def test_cooccurrence_returns_only_what_it_has_evidence_for() -> None:
    model = Cooccurrence(histories([0, 1, 2], [3]), items=5)
    assert model.rank(cases([0], [3], [], [4]), 3).tolist() == [[1, 2, -1], *[[-1, -1, -1]] * 3]


def test_a_window_of_events_counts_as_together() -> None:
    between = list(range(2, 2 + WINDOW))  # so many items stand between 0 and 1
    beyond = Cooccurrence(histories([0, *between, 1]), items=40).scores(cases([0]))
    within = Cooccurrence(histories([0, *between[1:], 1]), items=40).scores(cases([0]))
    assert beyond[0, 1] == 0
    assert within[0, 1] == pytest.approx(1 / math.sqrt(WINDOW) / 11)


def test_the_last_twenty_events_are_asked() -> None:
    model = Cooccurrence(histories([0, 1]), items=40)
    newer = list(range(2, 22))  # items that occurred with nothing
    assert model.rank(cases([0, *newer], [0, *newer[1:]]), 1).tolist() == [[-1], [1]]


def test_text_fills_in_where_nothing_occurred_together() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6], [0, 0]], dtype=np.float32)
    model = CooccurrenceText(histories([0, 1], [4, 1]), vectors)
    assert model.rank(cases([3]), 4).tolist() == [[2, 0, 1, 4]]
    assert model.rank(cases([4]), 4).tolist() == [[1, -1, -1, -1]]  # no text: co-occurrence alone is evidence


# --- against loops --------------------------------------------------------------------------------------


def follows(train: Histories, items: int) -> list[list[float]]:
    table = [[0.0] * items for _ in range(items)]
    for user in range(len(train)):
        events = train.events(user).tolist()
        for place, later in enumerate(events):
            for earlier_place in range(max(0, place - WINDOW), place):
                earlier, weight = events[earlier_place], 1 / math.sqrt(place - earlier_place)
                if earlier != later:
                    table[earlier][later] += weight
                    table[later][earlier] += BACKWARD * weight
    return table


def slow_scores(
    train: Histories, history: list[int], vectors: Float32Array
) -> tuple[list[float], list[float]]:
    """Co-occurrence and text scores of every item for one case."""
    items, table = len(vectors), follows(train, len(vectors))
    bought = [int((train.items == item).sum()) for item in range(items)]
    together, text, total = [0.0] * items, [0.0] * items, 0.0
    for age, seen in enumerate(reversed(history[-20:])):
        total += 0.5**age
        for item in range(items):
            together[item] += 0.5**age * table[seen][item] / (bought[seen] + PRIOR_EVENTS)
            text[item] += 0.5**age * float(vectors[seen] @ vectors[item])
    return together, [value / total for value in text]


events = st.lists(st.integers(0, 7), min_size=1, max_size=30)


@settings(deadline=None)
@given(st.lists(events, max_size=4), events)
def test_cooccurrence_and_text_equal_loops(train_events: list[list[int]], history: list[int]) -> None:
    train, asked, vectors = histories(*train_events), cases(history), unit_vectors(8)
    together, text = slow_scores(train, history, vectors)
    np.testing.assert_allclose(Cooccurrence(train, 8).scores(asked)[0], together, atol=1e-5)

    both = [a + 0.3 * b for a, b in zip(together, text, strict=True)]
    [ranked] = CooccurrenceText(train, vectors).rank(asked, 8).tolist()
    unseen = sorted(set(range(8)) - set(history))
    assert sorted(ranked[: len(unseen)]) == unseen
    assert ranked[len(unseen) :] == [-1] * (8 - len(unseen))
    in_order = [both[row] for row in ranked[: len(unseen)]]
    np.testing.assert_allclose(in_order, sorted(in_order, reverse=True), atol=1e-5)


@settings(deadline=None)
@given(st.lists(events, max_size=5), events, st.integers(1, 10))
def test_popularity_equals_loops(train_events: list[list[int]], history: list[int], k: int) -> None:
    bought = [sum(user.count(item) for user in train_events) for item in range(8)]
    wanted = [item for item in range(8) if bought[item] and item not in history]
    wanted.sort(key=lambda item: (-bought[item], item))
    expected = (wanted + [-1] * k)[:k]
    assert Popularity(histories(*train_events), 8).rank(cases(history), k).tolist() == [expected]


scores = st.sampled_from([-math.inf, -2.5, -1.0, -0.0, 0.0, 1e-30, 1.0, 1.5, 3e38])


@settings(deadline=None)
@given(st.lists(scores, min_size=1, max_size=12), st.integers(1, 14))
def test_top_rows_equals_sorting(row: list[float], k: int) -> None:
    order = sorted(range(len(row)), key=lambda column: (-row[column], column))
    expected = [column if row[column] > -math.inf else -1 for column in order][:k]
    assert top_rows(np.array([row], dtype=np.float32), k).tolist() == [expected]


# --- the rules all share --------------------------------------------------------------------------------

ITEMS = 30
TEXTS = [f"word{row % 6} word{row % 4} thing" for row in range(ITEMS)]


def random_histories(users: int = 60, seed: int = 1) -> Histories:
    rng = np.random.default_rng(seed)
    return histories(*(rng.integers(0, ITEMS, size=rng.integers(3, 12)).tolist() for _ in range(users)))


def fitted(train: Histories) -> list[Baseline]:
    index, vectors = Bm25sIndex.build(TEXTS), unit_vectors(ITEMS)
    return [
        Popularity(train, ITEMS),
        Bm25Last(index, TEXTS),
        Bm25Last(index, TEXTS, last=5),
        TextLast(vectors),
        Cooccurrence(train, ITEMS),
        CooccurrenceText(train, vectors),
    ]


NAMES = ["popularity", "bm25-last", "bm25-last5", "text-last", "cooccurrence", "cooccurrence+text"]


def test_names() -> None:
    assert [baseline.name for baseline in fitted(random_histories())] == NAMES


@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
@pytest.mark.parametrize("k", [1, 10, 50])
def test_lists_hold_unseen_items_once_and_padding_last(place: int, k: int) -> None:
    whole = random_histories()
    asked = leave_one_out(whole, "test")
    ranked = fitted(hold_out_last(whole))[place].rank(asked, k)
    assert ranked.shape == (len(asked), k)
    assert ranked.dtype == np.int32
    assert (ranked >= 0).any(axis=1).all(), "an empty list would pass every check below"
    for case, row in enumerate(ranked.tolist()):
        found = [entry for entry in row if entry != -1]
        assert row == found + [-1] * (k - len(found))
        assert len(set(found)) == len(found)
        assert all(0 <= entry < ITEMS for entry in found)
        assert not set(found) & set(asked.history_of(case).tolist())


@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
def test_chunks_do_not_show(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = random_histories()
    asked, baseline = leave_one_out(whole, "test"), fitted(hold_out_last(whole))[place]
    at_once = baseline.rank(asked, 10)
    monkeypatch.setattr(module, "_CHUNK_SCORES", 7 * ITEMS)
    np.testing.assert_array_equal(baseline.rank(asked, 10), at_once)
    for case in (0, 17):
        np.testing.assert_array_equal(baseline.rank(asked.take(np.array([case])), 10)[0], at_once[case])


def test_memory_does_not_grow_with_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_SCORES", 50 * 2000)
    vectors = unit_vectors(2000)
    model = CooccurrenceText(random_histories(), vectors)

    def peak(count: int) -> int:
        asked = cases(*([row % ITEMS] for row in range(count)))
        tracemalloc.start()
        model.rank(asked, 10)
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    assert peak(2000) < 1.2 * peak(200)


@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
def test_held_out_events_teach_nothing(place: int) -> None:
    """Other last two events, the same training part: the same lists for the same questions."""
    whole = random_histories()
    changed = whole.items.copy()
    for end in whole.offsets[1:]:
        changed[end - 2 : end] = (changed[end - 2 : end] + 7) % ITEMS
    other = Histories(whole.user_ids, whole.offsets, changed)
    asked = leave_one_out(whole, "validation")

    def lists(source: Histories) -> list[list[int]]:
        return fitted(source)[place].rank(asked, 10).tolist()  # type: ignore[no-any-return]

    assert lists(hold_out_last(whole)) == lists(hold_out_last(other))
    if NAMES[place] in ("popularity", "cooccurrence", "cooccurrence+text"):
        assert lists(whole) != lists(other), "the change is too small to show"


@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
def test_no_cases(place: int) -> None:
    assert fitted(random_histories())[place].rank(cases(), 10).shape == (0, 10)


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(len(NAMES)), ids=NAMES)
def test_bad_questions_are_refused(place: int) -> None:
    baseline = fitted(random_histories())[place]
    with pytest.raises(RequestError, match="expected k >= 1, got 0"):
        baseline.rank(cases([1]), 0)
    with pytest.raises(RequestError, match=r"history rows in \[0, 30\), got 30"):
        baseline.rank(cases([1], [30]), 10)


def test_bad_ground_is_refused() -> None:
    for make in (Popularity, Cooccurrence):
        with pytest.raises(RequestError, match=r"training rows in \[0, 2\), got 5"):
            make(histories([1, 5]), 2)
    with pytest.raises(RequestError, match="one text per indexed item"):
        Bm25Last(Bm25sIndex.build(["a", "b"]), ["a"])
    with pytest.raises(RequestError, match="got last=0"):
        Bm25Last(Bm25sIndex.build(["a"]), ["a"], last=0)
    with pytest.raises(RequestError, match="expected vectors of length 1"):
        TextLast(np.full((3, 2), 0.5, dtype=np.float32))
    with pytest.raises(RequestError, match="expected vectors of length 1"):
        TextLast(np.full((3, 2), np.nan, dtype=np.float32))
    with pytest.raises(RequestError, match=r"float32\[N, D\], got float64\[3, 2\]"):
        CooccurrenceText(histories([1]), np.zeros((3, 2)))
