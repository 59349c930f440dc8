"""Diversity and the coverage of interests, by hand and against plain loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from genrec.evaluation.interests import diversity, interest_coverage
from index.histories import Cases
from index.labels import Labels

# Items 0..5: {0}, {0, 1}, {1}, {2, 3}, nothing, {0}
TABLE = np.array([[0, -1], [1, 0], [1, -1], [2, 3], [-1, -1], [-1, 0]], np.int32)
LABELS = Labels(TABLE, ("kind",))


def cases_of(*histories: list[int]) -> Cases:
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    flat = np.array([row for history in histories for row in history], np.int32)
    nobody = np.zeros(len(histories), np.int32)
    return Cases(user=nobody, history_offsets=offsets, history=flat, target=nobody)


@pytest.mark.parametrize(
    ("ranked", "expected"),
    [
        ([0, 5, -1], 0.0),  # the same label twice
        ([0, 3, -1], 1.0),  # nothing in common
        ([0, 1, -1], 0.5),
        ([0, 1, 2], 1 - (0.5 + 0 + 0.5) / 3),
        ([0, 4, 3], 1.0),  # the one without a label is left out
        ([4, 0, -1], 0.0),  # one item is not diverse
        ([-1, -1, -1], 0.0),
    ],
)
def test_diversity(ranked: list[int], expected: float):
    assert diversity(np.array([ranked]), LABELS).tolist() == pytest.approx([expected])


def test_diversity_of_many_lists_is_that_of_each():
    rng = np.random.default_rng(0)
    table = np.stack([rng.permutation(6)[:3] for _ in range(30)]).astype(np.int32)
    table[rng.random(table.shape) < 0.3] = -1
    ranked = np.stack([rng.permutation(30)[:8] for _ in range(150)])
    ranked[rng.random(ranked.shape) < 0.2] = -1
    expected = []
    for row in ranked:
        sets = [set(table[item][table[item] >= 0].tolist()) for item in row if item >= 0]
        pairs = [len(a & b) / len(a | b) for a, b in combinations([one for one in sets if one], 2)]
        expected.append(1 - np.mean(pairs) if pairs else 0.0)
    assert diversity(ranked, Labels(table, ("x",))).tolist() == pytest.approx(expected)
    assert len(diversity(ranked[:0], Labels(table, ("x",)))) == 0


def test_coverage_is_the_share_of_the_historys_labels():
    ranked = np.array([[2, 3, -1], [0, -1, -1], [3, -1, -1], [-1, -1, -1]])
    cases = cases_of([0, 2], [0, 1, 3], [4], [3])
    # {0, 1} by {1, 2, 3}; {0, 1, 2, 3} by {0}; the third history has no label; {2, 3} by nothing
    assert interest_coverage(ranked, cases, LABELS).tolist() == [0.5, 0.25, 0.0]
