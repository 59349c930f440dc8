"""The trie of a catalog, smaller or larger than it is: what a search costs over so many items.

A smaller one is a random part of the catalog. A larger one has invented items beside the real ones, whose codes are
spliced from two real items each, so that popular codes stay popular; a model scores them like any others, for it
knows codes, not items. What such a search returns is nobody's business here: only its time is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from index.errors import IdentifierError
from index.item_index import ItemIndex
from index.trie import TokenTrie, build_trie
from index.types import Int64Array, IntArray

USUAL_SIZES = (1_000, 10_000, 100_000, 1_000_000)

_IDLE_ROUNDS = 20  # rounds without one new path: the codes are used up


@dataclass(frozen=True, eq=False)
class SizedTrie:
    """A trie of so many items and where its items come from."""

    trie: TokenTrie
    source: str  # in words, for a report
    row_of_item: Int64Array  # [n] catalog row; an invented item has that of the item it begins like
    item_of_row: Int64Array  # [N] the trie's item that is this catalog row, -1 where none is

    def ranks(self, rows: IntArray) -> Int64Array:
        """int64[≤ P]: ranks of those catalog rows (int[P]) that are in the trie."""
        items = self.item_of_row[rows]
        return np.asarray(self.trie.rank_of_item[items[items >= 0]], np.int64)


def usual_sizes(index: ItemIndex) -> tuple[int, ...]:
    """The usual sizes that the index's codes reach: those up to half of all combinations of codes of each level.

    The other half is left: paths are drawn at random, and the last ones are hard to find.
    """
    if index.trie.fixed_length is None:
        return ()
    codes = [len(np.unique(level)) for level in np.asarray(index.level_tokens).T]
    return tuple(size for size in USUAL_SIZES if size <= max(len(index.catalog), math.prod(codes) // 2))


def trie_of_size(index: ItemIndex, items: int, rng: np.random.Generator) -> SizedTrie:
    """The index's trie with so many items instead of its own; removed items are left out first.

    Raises:
        IdentifierError: no item was asked for, paths of different lengths, or the codes do not reach for so many.
    """
    if items < 1:
        raise IdentifierError(f"expected a catalog of at least one item, got {items}")
    if index.trie.fixed_length is None:
        raise IdentifierError("expected paths of one length to make a catalog of another size, got titles")
    live = np.setdiff1d(np.arange(len(index.catalog)), index.removed)
    item_of_row = np.full(len(index.catalog), -1, np.int64)
    if items <= len(live):
        rows = np.sort(rng.choice(live, items, replace=False)) if items < len(live) else live
        item_of_row[rows] = np.arange(len(rows))
        source = "the catalog" if items == len(live) else f"a random part of the catalog's {len(live):,}"
        return SizedTrie(build_trie(index.level_tokens[rows]), source, rows, item_of_row)
    item_of_row[live] = np.arange(len(live))
    real = np.asarray(index.level_tokens[live], np.int64)
    invented, like = _spliced(real, items - len(live), rng)
    source = f"the catalog's {len(live):,} and {len(invented):,} invented ones"
    return SizedTrie(
        build_trie(np.concatenate([real, invented])),
        source,
        np.concatenate([live, live[like]]),
        item_of_row,
    )


def _spliced(real: Int64Array, wanted: int, rng: np.random.Generator) -> tuple[Int64Array, Int64Array]:
    """int64[wanted, L] new paths, all different, and int64[wanted]: the place in ``real`` of what they begin like."""
    length = real.shape[1]
    base = int(real.max()) + 1
    if length * np.log2(base) >= 63:
        raise IdentifierError(
            f"expected paths that fit into 63 bits, got {length} levels of codes up to {base - 1}"
        )
    weights = base ** np.arange(length - 1, -1, -1, dtype=np.int64)
    known = np.sort(real @ weights)
    paths, like = np.zeros((0, length), np.int64), np.zeros(0, np.int64)
    idle, tries = 0, max(wanted, 256)
    while len(paths) < wanted:
        first, second = rng.integers(0, len(real), (2, tries))
        begins = np.arange(length) < rng.integers(1, length, tries)[:, None] if length > 1 else np.True_
        drawn = np.where(begins, real[first], real[second])  # [tries, L]
        if idle:  # splices are used up: every level from another item
            drawn = np.take_along_axis(real, rng.integers(0, len(real), (tries, length)), axis=0)
            drawn[:, 0] = real[first, 0]
        keys = np.concatenate([paths @ weights, drawn @ weights])
        _, new = np.unique(keys, return_index=True)
        new = np.sort(new)
        new = new[~np.isin(keys[new], known)][:wanted]
        idle += int(len(new) == len(paths))
        if idle > _IDLE_ROUNDS:
            raise IdentifierError(
                f"expected codes enough for {len(real) + wanted:,} items, got {len(real) + len(paths):,} different "
                f"ones; ask for fewer"
            )
        paths = np.concatenate([paths, drawn])[new]
        like = np.concatenate([like, first])[new]
    return paths, like
