from __future__ import annotations

import numpy as np

from genrec.decoders.tree_mask import RaggedRows, prompt_mask, tree_mask
from index.types import BoolArray, Int64Array


def ints(*values: int) -> Int64Array:
    return np.array(values, np.int64)


def drawn(mask: BoolArray) -> list[str]:
    """One string per row, ``x`` where it sees."""
    return ["".join("x" if seen else "." for seen in row) for row in mask]


def test_a_prompt_is_causal_and_its_padding_alone() -> None:
    short, long = prompt_mask(RaggedRows(ints(0, 1, 1, 1)))
    assert drawn(short) == ["x..", ".x.", "..x"]
    assert drawn(long) == ["x..", "xx.", "xxx"]


def test_the_rest_of_a_prompt_sees_what_is_known_of_it() -> None:
    # Request 0: three positions known, one new. Request 1: one known, two new. A past of 3, two new columns.
    short, long = prompt_mask(RaggedRows(ints(0, 1, 1)), ints(3, 1))
    assert drawn(short) == ["xxx" + "x.", "..." + ".x"]
    assert drawn(long) == ["x.." + "x.", "x.." + "xx"]


def test_a_token_sees_prompt_ancestors_and_itself() -> None:
    # Request 0: prompt of 2, slots 0 and 1 behind it; new: 2 below 1, 3 below that new 2.
    # Request 1: prompt of 1, no slots; new: 0 behind the prompt. Padded to a past of 4 and two new columns.
    rows = RaggedRows(ints(0, 0, 1))
    sees, depth = tree_mask(ints(2, 1), [ints(-1, -1), ints()], rows, ints(1, 2, -1))
    assert drawn(sees[0]) == [
        "xx.x" + "x.",
        "xx.x" + "xx",
    ]
    assert drawn(sees[1]) == [
        "x..." + "x.",
        "...." + ".x",
    ]
    assert depth.tolist() == [1, 2, 0]


def test_rows_are_padded_and_split_by_request() -> None:
    rows = RaggedRows(ints(0, 1, 1))
    assert rows.pad(ints(7, 8, 9)).tolist() == [[7, 0], [8, 9]]
    assert [part.tolist() for part in rows.split(ints(7, 8, 9))] == [[7], [8, 9]]
    assert rows.column.tolist() == [0, 0, 1]
