"""Which items lists show: by hand, then against scikit-learn and plain loops."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc
from sklearn.metrics.pairwise import cosine_distances

from genrec.evaluation.exposure import distance, gini, novelty, users_by_item
from index.errors import RequestError
from index.histories import Histories

FLAT = np.sqrt(0.5)
VECTORS = np.array([[1, 0], [0, 1], [FLAT, FLAT], [0, 0], [-1, 0]], np.float32)


def test_gini_by_hand() -> None:
    assert gini(np.array([[0, 1], [2, 3]]), items=4) == 0.0  # everything once
    assert gini(np.array([[2], [2], [2]]), items=4) == 0.75  # one item alone: 1 - 1/N
    # Counts 0, 1, 3: the mean difference of all nine pairs is 12/9, twice the mean is 8/3.
    assert gini(np.array([[2, 1], [2, -1], [2, -1]]), items=3) == pytest.approx(0.5)
    assert gini(np.full((3, 10), -1), items=4) == 0.0
    with pytest.raises(RequestError, match="at least one item"):
        gini(np.zeros((1, 1), np.int32), items=0)


def test_only_the_first_ten_items_of_the_catalog_count() -> None:
    lists = np.array([[*range(10), 3, 3, 3], [*range(10), 3, 3, 3]])
    assert gini(lists, items=10) == 0.0
    assert gini(np.array([[0, 99]]), items=1) == 0.0  # a row outside the catalog is no item
    far = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]])
    assert distance(far, VECTORS).tolist() == pytest.approx([0.0])
    assert novelty(far, np.array([4, 1]), users=4).tolist() == [0.0]


@given(st.lists(st.lists(st.integers(-1, 7), min_size=4, max_size=4), min_size=1, max_size=12))
def test_gini_is_what_lies_above_the_lorenz_curve(lists: list[list[int]]) -> None:
    shown = [entry for entries in lists for entry in entries if entry >= 0]
    counts = np.sort(np.bincount(np.array(shown, np.int64), minlength=8))
    if shown:
        lorenz = np.concatenate([[0], np.cumsum(counts) / counts.sum()])
        assert gini(np.array(lists), items=8) == pytest.approx(1 - 2 * auc(np.linspace(0, 1, 9), lorenz))


def test_novelty_is_surprise_in_bits() -> None:
    users_of_item = np.array([8, 4, 1, 0])  # of eight users
    lists = np.array([[0, -1], [0, 1], [2, 1], [3, -1], [-1, -1]])
    # log2(8/8), log2(8/4), log2(8/1); an item nobody met is as one met once; the empty list is left out.
    assert novelty(lists, users_of_item, users=8).tolist() == [0.0, 0.5, 2.0, 3.0]


def test_users_of_an_item_are_counted_once() -> None:
    train = Histories(["a", "b", "c"], np.array([0, 3, 3, 5]), np.array([1, 1, 0, 1, 2], np.int32), None)
    assert users_by_item(train, items=4).tolist() == [1, 2, 1, 0]
    with pytest.raises(RequestError, match=r"rows in \[0, 2\)"):
        users_by_item(train, items=2)


@pytest.mark.parametrize(
    ("ranked", "expected"),
    [
        ([0, 1, -1], 1.0),  # at right angles
        ([0, 4, -1], 2.0),  # opposite
        ([0, 2, -1], 1 - FLAT),
        ([0, 1, 2], 1 - 2 * FLAT / 3),
        ([0, 3, 1], 1.0),  # the one without a vector is left out
        ([3, 0, -1], 0.0),  # one item is not diverse
        ([-1, -1, -1], 0.0),
    ],
)
def test_distance_by_hand(ranked: list[int], expected: float) -> None:
    assert distance(np.array([ranked]), VECTORS).tolist() == pytest.approx([expected])


def test_distance_is_the_mean_of_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = np.stack([rng.permutation(50)[:10] for _ in range(2500)])  # more than one chunk
    ranked[rng.random(ranked.shape) < 0.2] = -1
    apart = cosine_distances(vectors)
    expected = [
        np.mean([apart[a, b] for a, b in combinations(row[row >= 0].tolist(), 2)])
        if (row >= 0).sum() > 1
        else 0
        for row in ranked
    ]
    np.testing.assert_allclose(distance(ranked, vectors), expected, atol=1e-6)


def test_novelty_is_the_mean_over_a_list() -> None:
    rng = np.random.default_rng(1)
    met = rng.integers(1, 40, 30)
    ranked = np.stack([rng.permutation(30)[:10] for _ in range(20)])
    expected = [np.mean([math.log2(100 / met[item]) for item in row]) for row in ranked]
    np.testing.assert_allclose(novelty(ranked, met, users=100), expected)
