"""Items alike to a history: against counting shared codes over the whole catalog, on the toy catalog."""

from __future__ import annotations

import numpy as np
import pytest

from genrec.neighbours import RECENT, neighbours
from genrec.wishes import Wishes
from index.errors import FilterError, RequestError
from tests.toy import toy_index

INDEX = toy_index()
N = len(INDEX.catalog)


def shared_codes(row: int, other: int) -> int:
    return int(np.cumprod(INDEX.codes[row] == INDEX.codes[other]).sum())


def by_counting(history: list[int], allowed: list[int]) -> dict[int, int]:
    """Row to the most codes it shares with one of the latest; those that share none are left out."""
    recent = list(dict.fromkeys(history[::-1]))[:RECENT]
    most = {row: max(shared_codes(row, one) for one in recent) for row in allowed}
    return {row: shared for row, shared in most.items() if shared}


@pytest.mark.parametrize("seed", range(8))
def test_the_most_alike_come_first(seed):
    rng = np.random.default_rng(seed)
    history = rng.integers(0, N, rng.integers(1, 9)).tolist()
    years = INDEX.catalog
    allowed = [row for row in range(N) if row not in history and years[row].fields["year"] >= 1990]
    expected = by_counting(history, allowed)
    found = neighbours(INDEX, np.array(history), Wishes(k=N, where="year >= 1990"))
    assert {one.row: one.shared for one in found} == expected
    shared = [one.shared for one in found]
    assert shared == sorted(shared, reverse=True)
    for k in (1, 3):
        few = neighbours(INDEX, np.array(history), Wishes(k=k, where="year >= 1990"))
        assert few == found[:k]


def test_who_is_as_alike_stands_by_the_latest_item():
    first, last = 0, next(row for row in range(N) if not shared_codes(0, row))
    found = neighbours(INDEX, np.array([first, last]), Wishes(k=N, exclude_seen=False))
    assert [one.row for one in found[:2]] == [last, first]  # themselves, which share all


def test_lists_and_caps_hold():
    history = np.array([0])
    include = [INDEX.catalog.item_ids[row] for row in range(1, 9)]
    found = neighbours(INDEX, history, Wishes(k=N, include=include, exclude=include[:2]), np.arange(N))
    assert {one.row for one in found} == set(range(3, 9))
    capped = neighbours(INDEX, history, Wishes(k=6, max_per={"genre": 1}), np.arange(N))
    genres = [INDEX.catalog[one.row].fields["genre"] for one in capped]
    assert len(set(genres)) == len(genres) > 1


def test_newcomers_fill_up_what_is_left():
    newcomers = np.array([7, 3, 5])
    alone = neighbours(INDEX, np.zeros(0, np.int64), Wishes(k=2), newcomers)
    assert [(one.row, one.shared) for one in alone] == [(7, 0), (3, 0)]
    near = neighbours(INDEX, np.array([3]), Wishes(k=N))
    both = neighbours(INDEX, np.array([3]), Wishes(k=N), newcomers)
    assert both[: len(near)] == near
    assert {one.row for one in both[len(near) :]} == {7, 5} - {one.row for one in near}  # 3 has been seen


def test_what_is_no_filter_or_cap_is_refused():
    with pytest.raises(FilterError):
        neighbours(INDEX, np.array([0]), Wishes(where="colour = 1"))
    with pytest.raises(RequestError):
        neighbours(INDEX, np.array([0]), Wishes(max_per={"colour": 1}))
