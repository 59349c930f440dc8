"""Items alike to a history, from the index alone: what can be answered where no model can, in microseconds.

Two items are alike by as many leading codes as they share. It needs no vector and no pass over the catalog: who
shares so many codes with an item stands in one range of ranks around it. What it finds is likeness, no
prediction, and no score of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genrec.cap_rules import CapRules
from genrec.wishes import Wishes
from index.item_filter import Allowed
from index.item_index import ItemIndex
from index.trie import TokenTrie
from index.types import BoolArray, Int64Array, IntArray
from index.walk import TrieWalk

RECENT = 5  # last items of the history that are looked around
_MOST = 10_000  # candidates looked at, so that caps that few items fit end too


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An item, and how alike it is."""

    row: int  # of the catalog
    shared: int  # leading codes it has in common with the item of the history that it is closest to; 0: none


def neighbours(
    index: ItemIndex,
    history: IntArray,
    wishes: Wishes,
    newcomers: IntArray | None = None,
    cap_rules: CapRules | None = None,
) -> list[Neighbour]:
    """At most ``wishes.k`` items: the most alike first, then those near the latest item of the history.

    Filters, lists, seen items and caps of the wishes hold; all else that they say is about a search.

    Args:
        index: the items.
        history: int[P] catalog rows, oldest first.
        wishes: of the request.
        newcomers: int[M] rows that fill up what is left, best first: what a model says to who has no history.
        cap_rules: over the index's trie, where somebody keeps them; made anew they read all of a capped field.

    Raises:
        FilterError, RequestError: filters or caps that are none over this catalog.
    """
    trie = index.trie
    banned = index.catalog.rows_of([str(one) for one in wishes.exclude])
    banned = np.concatenate([banned[banned >= 0], history if wishes.exclude_seen else history[:0]])
    allowed = index.rules.allowed(wishes.where, wishes.include, np.asarray(banned, np.int64))
    caps = (cap_rules or CapRules(index.catalog, trie)).caps(wishes.max_per or {})
    recent = list(dict.fromkeys(np.asarray(history)[::-1].tolist()))[:RECENT]
    ranks: dict[int, int] = {}  # to the codes shared, in order
    for shared, some in _around(trie, recent):
        for rank in some[_passes(allowed, some)].tolist():
            ranks.setdefault(rank, shared)
        if len(ranks) >= (_MOST if caps else wishes.k):
            break
    rest = np.asarray(trie.rank_of_item[[] if newcomers is None else newcomers], np.int64)
    for rank in rest[_passes(allowed, rest)].tolist():
        ranks.setdefault(rank, 0)
    order = np.array(list(ranks), np.int64)
    taken = order[: wishes.k] if caps is None else order[caps.take(order, wishes.k)]
    return [Neighbour(int(trie.item_at_rank[rank]), ranks[rank]) for rank in taken.tolist()]


def _around(trie: TokenTrie, rows: list[int]) -> Iterator[tuple[int, Int64Array]]:
    """Ranks by how many leading codes they share with one of the rows, most first; some come several times."""
    own = trie.rank_of_item[rows].astype(np.int64)  # [Q]
    walk = TrieWalk(trie)
    places = walk.root(len(own))
    spans = []  # by depth: [Q, 2] ranks that share so many codes
    for depth in range(trie.longest_path):
        places = walk.step(places, trie.path_tokens[trie.path_start(own) + depth])
        spans.append(np.stack([walk.start(places), places.end], axis=1))
    for depth in range(len(spans), 0, -1):
        for start, end in spans[depth - 1].tolist():
            yield depth, np.arange(start, end)


def _passes(allowed: Allowed, ranks: Int64Array) -> BoolArray:
    """bool[R]: which ranks a request may get."""
    passes = ~np.isin(ranks, allowed.excluded)
    return passes if allowed.bitmap is None else passes & allowed.bitmap.contains(ranks)
