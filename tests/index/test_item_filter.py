from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.item_filter import Allowed, AllowedBatch, RankBitmap


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_counts_equal_counting_one_by_one(data):
    items = data.draw(st.integers(1, 20))
    requests = data.draw(st.integers(1, 4))
    masks, excluded = [], []
    for _ in range(requests):
        masks.append(data.draw(st.none() | st.lists(st.booleans(), min_size=items, max_size=items)))
        excluded.append(data.draw(st.lists(st.integers(0, items - 1), max_size=6)))
    rules = [
        Allowed.build(None if mask is None else np.array(mask), np.array(ranks, np.int64))
        for mask, ranks in zip(masks, excluded, strict=True)
    ]
    ranges = sorted(
        data.draw(
            st.lists(
                st.tuples(st.integers(0, requests - 1), st.integers(0, items), st.integers(0, items)),
                max_size=12,
            )
        )
    )
    request = np.array([b for b, _, _ in ranges], np.int64)
    start = np.array([min(x, y) for _, x, y in ranges], np.int64)
    end = np.array([max(x, y) for _, x, y in ranges], np.int64)
    expected = [
        sum((masks[b] is None or masks[b][r]) and r not in excluded[b] for r in range(low, high))
        for b, low, high in zip(request, start, end, strict=True)
    ]
    assert AllowedBatch(rules, items).count(request, start, end).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=200) | st.sampled_from([63, 64, 65, 128]).map(lambda n: [True] * n))
def test_a_bitmap_counts_itself_below_every_rank(mask):
    bitmap = RankBitmap.from_mask(np.array(mask, bool))
    below = bitmap.count_below(np.arange(len(mask) + 1))
    assert below.tolist() == [sum(mask[:rank]) for rank in range(len(mask) + 1)]
    assert bitmap.contains(np.arange(len(mask))).tolist() == mask


def test_an_excluded_rank_that_is_forbidden_anyway_is_subtracted_once():
    rule = Allowed.build(np.array([True, False, True]), np.array([1, 1, 2]))
    batch = AllowedBatch([rule], 3)
    assert batch.count(np.zeros(1, int), np.array([0]), np.array([3])).tolist() == [1]
