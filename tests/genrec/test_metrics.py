"""Metrics: by hand, then against loops over lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.evaluation.metrics import coverage, measure, ndcg, recall, standard_error, validity_rate
from index.errors import RequestError

RANKED = np.array([[7, 3, 5], [2, -1, -1], [4, 0, 2], [1, 6, 4]], dtype=np.int32)
TARGETS = np.array([3, 0, 4, 5], dtype=np.int32)  # places 1, none, 0, none


def test_recall_by_hand() -> None:
    assert recall(RANKED, TARGETS, 1).tolist() == [0, 0, 1, 0]
    assert recall(RANKED, TARGETS, 2).tolist() == [1, 0, 1, 0]


def test_ndcg_by_hand() -> None:
    third = 1 / math.log2(3)  # second place: 1 / log2(1 + 2)
    assert ndcg(RANKED, TARGETS, 1).tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(ndcg(RANKED, TARGETS, 3), [third, 0, 1, 0])


def test_coverage_by_hand() -> None:
    assert coverage(RANKED, items=10) == 0.8  # 0..7, not the padding


def test_coverage_looks_at_ten_places_of_real_items_only() -> None:
    ranked = np.arange(12, dtype=np.int32)[None]
    assert coverage(ranked, items=20) == 0.5
    assert coverage(ranked, items=4) == 1.0  # rows outside the catalog cover nothing
    assert coverage(np.full((3, 10), -1, dtype=np.int32), items=4) == 0.0


def test_validity_by_hand() -> None:
    assert validity_rate([["Alien", "Alien 9"], [], ["Heat", "Alien"]], {"Alien", "Heat"}) == 0.75
    assert validity_rate([[], []], {"Alien"}) == 1.0


def test_an_invalid_entry_costs_the_places_behind_it() -> None:
    ranked = np.array([[99, 3]], dtype=np.int32)
    assert ndcg(ranked, np.array([3]), 2)[0] == pytest.approx(1 / math.log2(3))


def test_a_repeated_target_counts_once_at_its_first_place() -> None:
    ranked = np.array([[3, 3, 3]], dtype=np.int32)
    assert recall(ranked, np.array([3]), 3).tolist() == [1.0]
    assert ndcg(ranked, np.array([3]), 3).tolist() == [1.0]


def test_measure_holds_exactly_the_names_of_the_table() -> None:
    ranked = np.full((2, 10), -1, dtype=np.int32)
    ranked[0, :6] = [9, 8, 7, 6, 5, 4]
    ranked[1, :2] = [99, 3]  # a row outside the catalog
    figures = measure(ranked, np.array([4, 3]), items=10)
    assert figures == {
        "recall@5": 0.5,
        "recall@10": 1.0,
        "hr@5": 0.5,
        "hr@10": 1.0,
        "ndcg@5": pytest.approx(0.5 / math.log2(3)),
        "ndcg@10": pytest.approx(0.5 / math.log2(3) + 0.5 / math.log2(7)),
        "coverage": 0.7,
        "validity": 7 / 8,
    }
    assert measure(ranked, np.array([4, 3]), items=10, validity=0.25)["validity"] == 0.25


@settings(deadline=None)
@given(
    st.integers(1, 8).flatmap(
        lambda cases: st.tuples(
            st.lists(st.lists(st.integers(-1, 25), min_size=12, max_size=12), min_size=cases, max_size=cases),
            st.lists(st.integers(0, 19), min_size=cases, max_size=cases),
        )
    )
)
def test_measure_equals_loops(drawn: tuple[list[list[int]], list[int]]) -> None:
    lists, targets = drawn
    figures = measure(np.array(lists, dtype=np.int32), np.array(targets), items=20)
    for k in (5, 10):
        gains = [
            1 / math.log2(entries.index(target) + 2) if target in entries[:k] else 0.0
            for entries, target in zip(lists, targets, strict=True)
        ]
        assert figures[f"ndcg@{k}"] == pytest.approx(sum(gains) / len(gains))  # type: ignore[literal-required]
        hits = sum(gain > 0 for gain in gains) / len(gains)
        assert figures[f"recall@{k}"] == figures[f"hr@{k}"] == pytest.approx(hits)  # type: ignore[literal-required]
    shown = {entry for entries in lists for entry in entries[:10] if 0 <= entry < 20}
    assert figures["coverage"] == len(shown) / 20
    entries = [entry for entries in lists for entry in entries if entry != -1]
    valid = sum(entry < 20 for entry in entries)
    assert figures["validity"] == (valid / len(entries) if entries else 1.0)


def test_standard_error_of_a_rate_is_the_binomial_one() -> None:
    hits = (np.arange(5000) < 400).astype(np.float64)  # a rate of .08
    assert standard_error(hits, resamples=4000) == pytest.approx(math.sqrt(0.08 * 0.92 / 5000), rel=0.05)
    assert standard_error(hits) == standard_error(hits), "not seeded"
    assert standard_error(hits, seed=1) != standard_error(hits)


def test_standard_error_of_uneven_values_is_deviation_over_root_n() -> None:
    gains = 1 / np.log2(2 + np.arange(900) % 7)
    expected = gains.std() / math.sqrt(len(gains))
    assert standard_error(gains, resamples=4000) == pytest.approx(expected, rel=0.05)


def test_standard_error_of_a_constant_is_zero() -> None:
    assert standard_error(np.ones(50)) == 0.0


def test_bad_input_is_refused() -> None:
    ten = np.zeros((2, 10), dtype=np.int32)
    with pytest.raises(RequestError, match="at least 10 places per case, got 3"):
        measure(RANKED, TARGETS, items=10)
    with pytest.raises(RequestError, match=r"targets in \[0, 3\), got 5"):
        measure(ten, np.array([5, 1]), items=3)
    with pytest.raises(RequestError, match="-1 is padding and would match itself"):
        recall(RANKED, np.array([-1, 0, 0, 0]), 2)
    with pytest.raises(RequestError, match=r"targets \[C\], got \[4, 3\] and \[3\]"):
        recall(RANKED, np.array([1, 2, 3]), 2)
    with pytest.raises(RequestError, match="at least one case"):
        ndcg(np.zeros((0, 10), dtype=np.int32), np.zeros(0, dtype=np.int32), 5)
    for k in (0, 4):
        with pytest.raises(RequestError, match=f"1 <= k <= 3 places, got k={k}"):
            ndcg(RANKED, TARGETS, k)
    with pytest.raises(RequestError, match="at least one item"):
        coverage(RANKED, items=0)
    with pytest.raises(RequestError, match="per-case values"):
        standard_error(np.zeros(0))
    with pytest.raises(RequestError, match="at least 2 resamples"):
        standard_error(np.zeros(3), resamples=1)
