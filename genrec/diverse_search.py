"""Diverse beams: groups of a request search one after another, each kept away from where the others went.

The groups of Vijayakumar et al. ("Diverse beam search for improved description of complex scenes", AAAI 2018)
over a trie. At every decision group g chooses its share of the beam by score minus ``strength`` times the
number of *choices it would repeat*: earlier groups' choices of a prefix on the way to this one. Vijayakumar
counts tokens chosen at the same time, whatever came before them. A first code is treated alike by both; but
the second code of a semantic ID means something else below every first one, and the third word of a title too,
so a token under another parent is no repetition here. What is counted is the length of the beginnings shared,
in decisions: the likeness that a trie of semantic IDs is built to express. The count includes all decisions up
to the present one, else a group could be sent off at the first code and return to the favourite at the second.

Every group then gives its share of the k items, none of them twice. This module knows scores and prefixes, no
model and no catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.decoders.base import Decoder
from genrec.finished import FoundItems
from genrec.leaf_search import LeafSearch
from genrec.prefixes import Prefixes, best_per_request, concatenate
from genrec.search_batch import Normalize, SearchRequest, SearchResult
from index.trie import TokenTrie
from index.types import BoolArray, Float64Array, IntArray


@dataclass(frozen=True, slots=True)
class GroupedPrefixes:
    """R prefixes, and what each is to the G groups of its request."""

    prefixes: Prefixes
    member: BoolArray  # [R, G] the groups that hold it
    repeats: Float64Array
    """[R, G] for each group how often earlier ones chose a prefix on the way to this one, itself included."""

    def __len__(self) -> int:
        return len(self.prefixes)

    def take(self, index: IntArray | BoolArray) -> GroupedPrefixes:
        """The prefixes at ``index``."""
        return GroupedPrefixes(self.prefixes.take(index), self.member[index], self.repeats[index])

    def of(self, request: int) -> GroupedPrefixes:
        """The prefixes of one request."""
        return self.take(np.flatnonzero(self.prefixes.request == request))


@dataclass(frozen=True, slots=True)
class GroupedItems:
    """M items of one request, in any order."""

    items: FoundItems
    member: BoolArray  # [M, G] the groups that found it
    repeats: Float64Array  # [M, G] as of the prefix it ended


class DiverseSearch(LeafSearch):
    """One batch's search; every request has :attr:`~genrec.search_batch.SearchRequest.diversity`.

    A prefix held by several groups is fed and expanded once. Each group keeps ``max(beam, k) / groups``
    prefixes, rounded up. Where the groups found the same items and too few of them, the last one goes on
    from the best prefixes left out: min(k, allowed) items always come back.
    """

    def __init__(
        self, decoder: Decoder, trie: TokenTrie, requests: Sequence[SearchRequest], normalize: Normalize
    ) -> None:
        asked = [request.diversity for request in requests]
        assert None not in asked
        self.groups = np.array([one.groups for one in asked if one is not None], np.int64)  # [B]
        self.strength = np.array([one.strength for one in asked if one is not None])  # [B]
        super().__init__(decoder, trie, requests, normalize)
        most = int(self.groups.max(initial=1))
        place = np.arange(most)
        width = -(-self.beam // self.groups)
        self.width = np.where(place < self.groups[:, None], width[:, None], 0)  # [B, G]
        self.left_out: list[GroupedPrefixes] = []
        self.ended: list[GroupedPrefixes] = []
        self.grouped = GroupedPrefixes(
            self.frontier, place < self.groups[:, None], np.zeros((len(requests), most))
        )

    def run(self) -> list[SearchResult]:
        """Step until every group has ended and every request has its items."""
        grouped = self.grouped
        while len(grouped):
            grouped = self._take_up_grouped(self._choose_in_turn(grouped))
        if len(more := self._more()):
            grouped = self._take_up_grouped(more)
            while len(grouped):
                grouped = self._take_up_grouped(self._choose_in_turn(grouped))
        bound = np.full(self.size, -np.inf)
        for part in self.left_out:
            np.maximum.at(bound, part.prefixes.request, part.prefixes.score)
        return [self._answer(b, float(bound[b])) for b in range(self.size)]

    def _choose_in_turn(self, frontier: GroupedPrefixes) -> GroupedPrefixes:
        """Score the frontier's children; group after group chooses among those of its own prefixes."""
        parents = frontier.prefixes
        self.expansions += np.bincount(parents.request, minlength=self.size)
        children = self.walk.children(parents.places)
        score = parents.score[children.row] + self.edge_scores(self.hidden, parents.places, children)
        request = parents.request[children.row]
        places = children.places
        allowed = self.allowed.count(request, self.walk.start(places), places.end)
        done = self.walk.is_leaf(places)
        if self.normalize == "vocabulary":
            done &= self.walk.tail_length(places) == 0
        candidates = GroupedPrefixes(
            Prefixes(request, places, score, score, parents.parent[children.row]),
            frontier.member[children.row],
            frontier.repeats[children.row],
        )
        self.ended.append(candidates.take((allowed > 0) & done))
        rest = np.flatnonzero((allowed > 0) & ~done)
        candidates = candidates.take(rest)
        order = self._order(candidates.prefixes, allowed[rest])
        strength = self.strength[candidates.prefixes.request]
        chosen = np.zeros_like(candidates.member)
        times = np.zeros(len(rest))  # earlier groups that chose each candidate at this decision
        for group in range(chosen.shape[1]):
            candidates.repeats[:, group] += times
            mine = np.flatnonzero(candidates.member[:, group])
            penalised = order[mine] - strength[mine] * candidates.repeats[mine, group]
            best = best_per_request(candidates.prefixes.request[mine], penalised, self.width[:, group])
            chosen[mine[best], group] = True
            times += chosen[:, group]
        kept = chosen.any(axis=1)
        self.left_out.append(candidates.take(np.flatnonzero(~kept)))
        return replace(candidates, member=chosen).take(np.flatnonzero(kept))

    def _take_up_grouped(self, chosen: GroupedPrefixes) -> GroupedPrefixes:
        """The next frontier; unique prefixes, which only vocabulary scores take up, end here."""
        leaf = self.walk.is_leaf(chosen.prefixes.places)
        self._fed_to_the_end = chosen.prefixes.take(slice(0))
        branching = self._take_up(chosen.prefixes)
        self.ended.append(replace(chosen.take(leaf), prefixes=self._fed_to_the_end))
        return replace(chosen.take(~leaf), prefixes=branching)

    def finish(self, paths: Prefixes, *, ahead: bool = False) -> None:
        """Hold on to paths that :meth:`_take_up` ended: they are recorded with their groups."""
        self._fed_to_the_end = paths

    def _more(self) -> GroupedPrefixes:
        """For requests with too few items, the last group's best prefixes among all that were left out."""
        items = len(self.trie)
        most = np.minimum(
            self.k,
            self.allowed.count(
                np.arange(self.size), np.zeros(self.size, np.int64), np.full(self.size, items)
            ),
        )
        parts, everything = [], _concatenate(self.left_out)
        stays = np.ones(len(everything), bool)
        for b in range(self.size):
            missing = int(most[b]) - len(self._found(b).items)
            if missing <= 0:
                continue
            last = int(self.groups[b]) - 1
            rows = np.flatnonzero(everything.prefixes.request == b)
            penalty = self.strength[b] * everything.repeats[rows, last]
            value = everything.prefixes.score[rows] - penalty
            best = rows[best_per_request(np.zeros(len(rows), np.int64), value, np.array([missing]))]
            stays[best] = False
            more = everything.take(best)
            parts.append(
                replace(more, member=np.arange(more.member.shape[1]) == np.full((len(more), 1), last))
            )
            self.width[b, last] = max(self.width[b, last], missing)
        self.left_out = [everything.take(stays)]
        return _concatenate(parts)

    def _found(self, b: int) -> GroupedItems:
        """All allowed items that the groups of a request found."""
        ended = _concatenate([part.of(b) for part in self.ended])
        paths = ended.prefixes
        request, items = self.items_of(paths)
        row = np.repeat(np.arange(len(paths)), paths.places.end - self.walk.start(paths.places))
        keep = np.flatnonzero(self.allowed.count(request, items.rank, items.rank + 1) > 0)
        return GroupedItems(items.take(keep), ended.member[row[keep]], ended.repeats[row[keep]])

    def _answer(self, b: int, bound: float) -> SearchResult:
        """Each group's share, then whatever scores best where a group found too little; best score first."""
        found, k, groups = self._found(b), int(self.k[b]), int(self.groups[b])
        items = found.items
        row = self.trie.item_at_rank[items.rank]
        ranking = np.lexsort((row, -items.score))
        taken = np.zeros(len(items), bool)
        for group in range(groups):
            share = k // groups + (group < k % groups)
            value = items.score - self.strength[b] * found.repeats[:, group]
            own = np.lexsort((row, -value))
            own = own[found.member[own, group] & ~taken[own]]
            taken[own[:share]] = True
        rest = ranking[~taken[ranking]]
        taken[rest[: k - int(taken.sum())]] = True
        best = items.take(ranking[taken[ranking]])
        in_turn = int(np.append(taken[ranking], False).argmin())  # results above every item passed over
        certified = min(in_turn, int(np.searchsorted(-best.score, -bound, side="left")))
        return SearchResult(
            best.rank, best.score, certified, int(self.expansions[b]), int(self.model_calls[b])
        )


def _concatenate(parts: Sequence[GroupedPrefixes]) -> GroupedPrefixes:
    """Grouped prefixes one after another."""
    if not parts:
        return GroupedPrefixes(concatenate([]), np.zeros((0, 1), bool), np.zeros((0, 1)))
    return GroupedPrefixes(
        concatenate([part.prefixes for part in parts]),
        np.concatenate([part.member for part in parts]),
        np.concatenate([part.repeats for part in parts]),
    )
