"""Paths: the token paths of a trie as part of a text, each followed by an ending. What closed grammars stand on.

Where paths end in the vocabulary's terminator (titles do), a text that goes on writes the first token of its ending
instead: "Alien" and "Aliens" part at a terminator in the trie, and in a list at the comma. Paths that do not (codes
of one length) have the ending behind them. It knows no model; what is chosen from is the owner's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from genrec.grammars.base import Edges, GrammarState
from index.errors import RequestError
from index.item_filter import Allowed, AllowedBatch
from index.trie import TokenTrie
from index.types import BoolArray, Int64Array
from index.walk import Places, TrieWalk

NEVER = 2**31 - 1
"""The cost of what may not be written."""
_RULE_BYTES = 2**26
"""Most bytes of the rules that are kept, where they are more than four."""


class Place(NamedTuple):
    """Where a text stands on its way along a path."""

    node: int = 0
    end: int = 0  # one past the last rank below the node
    depth: int = 0  # tokens of the path
    ended: int = 0  # tokens of the ending


class Span(NamedTuple):
    """A path that was written: the ranks of the items that share it."""

    first: int
    end: int


class Rule:
    """Which ranks may be written.

    Args:
        paths: whose.
        allowed: the rule, untitled items left out.
    """

    def __init__(self, paths: Paths, allowed: Allowed) -> None:
        self._paths = paths
        self.allowed = allowed
        self._batch = AllowedBatch([allowed], len(paths.trie))
        self.is_open = allowed.bitmap is None and not len(allowed.excluded)

    def any_below(self, start: Int64Array, end: Int64Array) -> BoolArray:
        """bool[E]: whether an allowed rank lies in ``start .. end - 1``."""
        if self.is_open:
            return np.asarray(end > start)
        return np.asarray(self._batch.count(np.zeros(len(start), np.int64), start, end) > 0)

    @cached_property
    def lengths(self) -> Int64Array:
        """int64[N]: tokens of each rank's path and of a terminator's worth of ending; NEVER where not allowed."""
        ranks = np.arange(len(self._paths.trie))
        length = self._paths.trie.path_length(ranks)
        return np.where(self.any_below(ranks, ranks + 1), length, NEVER)


class Paths:
    """A trie's paths under a vocabulary and a filter.

    Args:
        trie: of titles, or of any other paths.
        end: the vocabulary's terminator.
        allowed: the items that may be written; ones without a title never are.

    Raises:
        RequestError: nothing may be written, or some paths end in the terminator and others do not.
    """

    def __init__(self, trie: TokenTrie, end: int, allowed: Allowed) -> None:
        self.trie = trie
        self._walk = TrieWalk(trie)
        self._end = end
        self.terminated, untitled = _facts(trie, end)
        self._base = Allowed.from_bitmap(allowed.bitmap, np.concatenate([allowed.excluded, untitled]))
        # A rule may come to hold eight bytes a rank.
        self.rule = lru_cache(maxsize=min(256, max(4, _RULE_BYTES // (8 * len(trie)))))(self._rule)
        self.everything: Rule = self.rule(())
        if not self.everything.any_below(np.zeros(1, np.int64), np.array([len(trie)]))[0]:
            raise RequestError("expected at least one item that may be named, got none; widen the filter")

    @property
    def root(self) -> Place:
        """Before the first token."""
        return Place(0, len(self.trie))

    @cached_property
    def count(self) -> int:
        """Paths that may be written; items of one title have one."""
        return len(self._by_length)

    def shortest(self, count: int, taken: Sequence[Span] = ()) -> list[int]:
        """Tokens of the shortest ``count`` paths but the taken ones, or of as many as there are."""
        gone = {span.first for span in taken}
        found: list[int] = []
        for start in range(0, len(self._by_length), count + len(gone)):
            some = self._by_length[start : start + count + len(gone)]
            found += self.trie.path_length(some[~np.isin(some, list(gone))]).tolist()
            if len(found) >= count:
                break
        return found[:count]

    @cached_property
    def _by_length(self) -> Int64Array:
        """int64[P]: the first rank of every path that may be written, the shortest first."""
        first = _first_ranks(self.trie)
        first = first[self.everything.any_below(first, np.append(first[1:], len(self.trie)))]
        return first[np.argsort(self.trie.path_length(first), kind="stable")]

    def extra(self, ending: Sequence[int]) -> int:
        """Tokens that an ending adds to a path's."""
        return len(ending) - self.terminated

    def length(self, span: Span) -> int:
        """Tokens of a path."""
        return int(self.trie.path_length(np.array(span.first)))

    def rows(self, span: Span) -> tuple[int, ...]:
        """The catalog rows of the items that a path names and that may be named."""
        ranks = np.arange(span.first, span.end)
        may = self.everything.any_below(ranks, ranks + 1)
        return tuple(sorted(int(row) for row in self.trie.item_at_rank[ranks[may]]))

    def tokens(self, span: Span) -> list[int]:
        """The tokens of a path, without the terminator."""
        path = self.trie.path(span.first)
        return path[:-1] if self.terminated else path

    def span_of_row(self, row: int) -> Span:
        """The path of a catalog row."""
        first, rank = _first_ranks(self.trie), int(self.trie.rank_of_item[row])
        place = int(np.searchsorted(first, rank, side="right")) - 1
        return Span(int(first[place]), int(first[place + 1]) if place + 1 < len(first) else len(self.trie))

    def edges(
        self, place: Place, ending: Sequence[int], rule: Rule, room: int, cost: Int64Array | None = None
    ) -> Edges:
        """What may follow a place; ``follow`` gives the next :class:`Place`, or the :class:`Span` at the end.

        Args:
            place: where the text stands.
            ending: what follows the path.
            rule: which paths may be written.
            room: tokens that may be written, ending included.
            cost: int64[N], tokens of a whole path, with all that must follow it; NEVER where it may not be written.
                None is what path and ending take.
        """
        if place.ended or (not self.terminated and place.depth and place.depth == self._length_at(place)):
            return Edges(
                np.array([ending[place.ended]], np.int64),
                lambda _: self._moved(place._replace(ended=place.ended + 1), ending),
                is_given=True,
            )
        return self._along(place, ending, rule, room, cost)

    def _along(
        self, place: Place, ending: Sequence[int], rule: Rule, room: int, cost: Int64Array | None
    ) -> Edges:
        here = Places(np.array([place.node]), np.array([place.end]), np.array([place.depth]))
        below = self._walk.children(here)
        token, node, end = below.token.astype(np.int64), below.places.node, below.places.end
        start = self._walk.start(below.places)
        if not len(token):
            rank = self._walk.start(here)
            token = self._walk.path_slices(rank, np.array([place.depth]), np.array([place.depth + 1])).astype(
                np.int64
            )
            node, start, end = np.array([place.node]), rank, np.array([place.end])
        is_end = token == self._end if self.terminated else np.zeros(len(token), bool)
        written = np.where(is_end, ending[0], token) if is_end.any() else token
        ample = self.trie.longest_path + self.extra(ending) - place.depth
        if cost is None and room >= ample:
            allowed = None if rule.is_open else rule.any_below(start, end)
        else:
            costs = rule.lengths + self.extra(ending) if cost is None else cost
            allowed = np.minimum.reduceat(costs[: int(end[-1])], start) - place.depth <= room

        def follow(edge: int) -> GrammarState:
            return self._moved(
                Place(int(node[edge]), int(end[edge]), place.depth + 1, int(is_end[edge])), ending
            )

        return Edges(written, follow, allowed, ample=ample)

    def _moved(self, place: Place, ending: Sequence[int]) -> GrammarState:
        """A place, or the span of a path that is complete with its ending."""
        over = place.ended == len(ending) and (self.terminated or place.depth == self._length_at(place))
        return Span(int(self.trie.span_start[place.node]), place.end) if over else place

    def _length_at(self, place: Place) -> int:
        return int(self.trie.path_length(np.array(self.trie.span_start[place.node])))

    def _rule(self, taken: tuple[Span, ...]) -> Rule:
        """The rule with some paths taken out."""
        gone = [np.arange(span.first, span.end) for span in taken]
        excluded = np.concatenate([self._base.excluded, *gone])
        return Rule(self, Allowed.from_bitmap(self._base.bitmap, excluded))


_KNOWN_FACTS: WeakKeyDictionary[TokenTrie, dict[int, tuple[bool, Int64Array]]] = WeakKeyDictionary()
_KNOWN_RANKS: WeakKeyDictionary[TokenTrie, Int64Array] = WeakKeyDictionary()
"""What passes over a whole trie have found, for as long as somebody else holds the trie: a reload lets it go."""


def _facts(trie: TokenTrie, end: int) -> tuple[bool, Int64Array]:
    """Whether paths end in the terminator, and the ranks whose path is nothing else: items without a title."""
    known = _KNOWN_FACTS.setdefault(trie, {})
    if end not in known:
        known[end] = _facts_now(trie, end)
    return known[end]


def _facts_now(trie: TokenTrie, end: int) -> tuple[bool, Int64Array]:
    ranks = np.arange(len(trie))
    length = trie.path_length(ranks)
    is_end = trie.path_tokens[trie.path_start(ranks) + length - 1] == end
    if is_end.any() and not is_end.all():
        raise RequestError("expected all paths of a trie to end in the terminator, or none, got some")
    return bool(is_end.any()), ranks[is_end & (length == 1)]


def _first_ranks(trie: TokenTrie) -> Int64Array:
    """int64[P], ascending: the first rank of every distinct path."""
    if trie not in _KNOWN_RANKS:
        leaf = trie.first_child[1:] == trie.first_child[:-1]
        _KNOWN_RANKS[trie] = np.sort(trie.span_start[leaf].astype(np.int64))
    return _KNOWN_RANKS[trie]
