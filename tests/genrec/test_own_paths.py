"""Own paths: which are kept, and walking them, against sets of tuples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.own_paths import OwnPaths, choose_paths, no_paths
from index.errors import IndexFormatError
from tests.genrec.test_native_model import CODES, PATHS

SIZES = (3, 4, 2)
OFFSETS = (0, 3, 7)


def tuples(paths: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(code) for code in path if code >= 0) for path in paths]


def test_a_toy_by_eye() -> None:
    """(0, 1) has a rival and events; (2, 2) is alone but leads to two; (1, 3, 0) is certain all along."""
    events = np.array([0, 3, 5, 4, 2])
    assert tuples(choose_paths(CODES, events, fewest=2, most=99)) == [
        *tuples(PATHS)[:1],
        (1,),
        *tuples(PATHS)[1:],
    ]
    assert tuples(choose_paths(CODES, events, fewest=3, most=99)) == [
        (0,),
        (1,),
        (2,),
        (0, 1),
        (2, 2),
        (2, 2, 1),
    ]
    assert tuples(choose_paths(CODES, events, fewest=2, most=3)) == [(1,), (2,), (2, 2)]
    assert tuples(choose_paths(CODES, events, fewest=9, most=99)) == []


def test_places_of_a_toy_by_eye() -> None:
    paths = OwnPaths(PATHS, SIZES)
    assert (len(paths), paths.roots) == (6, 2)
    assert paths.places(CODES).tolist() == [
        [0, 1, 0, 0],
        [0, 1, 3, 0],
        [0, 0, 0, 0],
        [0, 2, 4, 6],
        [0, 2, 4, 5],
    ]
    row, child = paths.children(np.array([4, 0, 3, 1]))
    assert (row.tolist(), child.tolist()) == ([0, 0, 1, 1, 3], [5, 6, 1, 2, 3])
    assert paths.code.tolist() == [0, 0, 2, 1, 2, 0, 1]


codes_and_events = st.lists(
    st.tuples(*(st.integers(0, size - 1) for size in SIZES)), min_size=1, max_size=20, unique=True
).flatmap(
    lambda rows: st.tuples(st.just(rows), st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
)


@settings(max_examples=150, deadline=None)
@given(drawn=codes_and_events, fewest=st.integers(0, 4), most=st.integers(0, 25))
def test_paths_against_sets_of_tuples(
    drawn: tuple[list[tuple[int, ...]], list[int]], fewest: int, most: int
) -> None:
    rows, events = drawn
    codes = np.array(rows, np.int32)
    kept = tuples(choose_paths(codes, np.array(events), fewest=fewest, most=most))
    seen = {
        row[:end]: sum(count for other, count in zip(rows, events, strict=True) if other[:end] == row[:end])
        for row in rows
        for end in (1, 2, 3)
    }
    often = {path for path in seen if seen[path] >= max(fewest, 1)}
    rivalled = {
        path
        for path in often
        if len({row[: len(path)] for row in rows if row[: len(path) - 1] == path[:-1]}) > 1
    }
    wanted = {path for path in often if any(other[: len(path)] == path for other in rivalled)}
    assert len(kept) == min(most, len(wanted))
    assert set(kept) <= wanted
    assert min((seen[path] for path in kept), default=99) >= max(
        (seen[path] for path in wanted - set(kept)), default=0
    )

    paths = OwnPaths(choose_paths(codes, np.array(events), fewest=fewest, most=most), SIZES)
    place = {path: number + 1 for number, path in enumerate(kept)}
    for row, places in zip(rows, paths.places(codes).tolist(), strict=True):
        assert places == [0, *(place.get(row[:end], 0) for end in (1, 2, 3))]
    for path in [(), *seen]:
        for code, token in (
            (code, OFFSETS[len(path)] + code) for code in range(SIZES[len(path)] if len(path) < 3 else 0)
        ):
            known = len(path) == 0 or path in place
            step = paths.step(np.array([place.get(path, 0)]), np.array([token]))
            assert step.tolist() == [place.get((*path, code), 0) if known else 0]


def test_no_paths_at_all() -> None:
    paths = OwnPaths(no_paths(3), SIZES)
    assert (len(paths), paths.roots) == (0, 0)
    assert paths.places(CODES).tolist() == [[0] * 4] * 5
    assert paths.step(np.array([0, 0]), np.array([1, 8])).tolist() == [0, 0]
    assert [part.tolist() for part in paths.children(np.array([0]))] == [[], []]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (PATHS[:, :2], r"shape \[M, 3\], got \[6, 2\]"),
        (PATHS[1:], "beginnings before them"),
        (PATHS[[0, 2, 1, 3, 4, 5]], "beginnings before them"),
        (PATHS[[0, 1, 3, 2]], "rising order"),
        (PATHS[[0, 0, 1]], "rising order"),
    ],
)
def test_paths_in_disorder_raise(paths: np.ndarray, message: str) -> None:
    with pytest.raises(IndexFormatError, match=message):
        OwnPaths(paths, SIZES)
