"""A search that writes down what it does: which prefixes it scored, and what became of each.

Nothing of this is in the search itself. :class:`TracedSearch` is a :class:`~genrec.leaf_search.LeafSearch` of one
request. Before every step it scores the children of the frontier once more, all of them; afterwards it looks which of
them the step has chosen. So a traced search answers what an untraced one answers, and an untraced one pays nothing.
Only prefixes worth looking at are listed one by one; the others are counted. This module knows tokens and ranks; what
they mean is their reader's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Literal, TypeAlias

import numpy as np

from genrec.decoders.base import PROMPT_SLOT, Decoder
from genrec.leaf_search import LeafSearch
from genrec.prefixes import Prefixes
from genrec.search_batch import Normalize, SearchRequest, SearchResult
from index.trie import TokenTrie
from index.types import BoolArray, Float64Array, Int64Array, IntArray
from index.walk import Places

Fate: TypeAlias = Literal["live", "pruned", "filtered", "finished"]
"""What a step does with a prefix: it goes on, it is left out, nothing allowed is below it, or it is an item."""

FATES: tuple[Fate, ...] = ("live", "pruned", "filtered", "finished")
ROOT = 0
"""Number of the empty prefix in every trace."""
EXAMPLES = 3  # items named per prefix
_LIVE, _PRUNED, _FILTERED, _FINISHED = range(4)


@dataclass(frozen=True, slots=True)
class TracedPrefix:
    """One prefix that a step has scored."""

    id: int  # counts up in the order of the trace
    parent: int  # the prefix it was reached from; -1 of the root
    step: int  # the step that scored it; of one first listed when it was taken up again, the step that did so
    level: int  # decisions from the root
    depth: int  # tokens from the root to the first of `tokens`
    tokens: tuple[int, ...]  # its own token and those that are forced behind it
    start: int  # first rank below
    end: int  # one past the last
    allowed: int  # items below that the request may get
    score: float  # log-probability of the path; under a blend the model's part of it
    order: float  # what the beam chose by: with look-ahead, a prior or a sample it is not the score
    fate: Fate  # in its step; a later step's `expanded` says which pruned ones were taken up after all
    examples: tuple[int, ...]  # ranks below, allowed ones where there are any, spread evenly


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Prefixes of one parent and one fate that a step has scored and the trace does not list."""

    parent: int
    fate: Fate
    count: int
    items: int  # below all of them
    best: float  # their best score


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One decision."""

    expanded: tuple[int, ...]  # prefixes whose children were scored
    scored: int  # children
    counts: Mapping[Fate, int]  # children by fate, listed or not
    unlisted: tuple[Unlisted, ...]
    bound: (
        float  # the most an item that is not found yet can be worth after this step; -inf where none is left
    )
    found: SearchResult  # the answer as it stands after this step, with what is certified of it
    ended: Mapping[int, float]
    """Prefixes of earlier steps that this one took up again and that were items, with the score they ended with:
    under vocabulary normalisation a unique path goes through the model once more, for its tail."""
    model_calls: int  # so far


@dataclass(slots=True, eq=False)
class SearchTrace:
    """What is written down of one search. It is filled while the search is stepped.

    Args:
        most_listed: pruned, and as many filtered, prefixes of a step that are listed, the best by score; the best of
            each parent is listed always.
        most_prefixes: no step is written down once so many prefixes are listed.
    """

    most_listed: int = 40
    most_prefixes: int = 3_000
    prefixes: list[TracedPrefix] = field(default_factory=list)
    steps: list[TracedStep] = field(default_factory=list)
    truncated: bool = False  # the search took more steps than are written down


@dataclass(frozen=True, slots=True)
class _Scored:
    """All children of a frontier, E of them."""

    row: Int64Array  # [E] of the frontier
    token_depth: Int64Array  # [E] tokens from the root to their parent
    prefixes: Prefixes  # [E]
    allowed: Int64Array  # [E] items
    order: Float64Array  # [E]
    ended: BoolArray  # [E] paths that end here


class TracedSearch(LeafSearch):
    """One request's search, and its trace.

    Args:
        decoder: as of any search.
        trie: as of any search.
        request: the one request.
        normalize: as of any search.
        trace: an empty one, which every step adds to.
    """

    def __init__(
        self,
        decoder: Decoder,
        trie: TokenTrie,
        request: SearchRequest,
        normalize: Normalize,
        trace: SearchTrace,
    ) -> None:
        assert request.diversity is None
        assert not trace.prefixes
        self._trace = trace
        self._chosen: Prefixes | None = None
        self._taken: Prefixes | None = None
        self._tails: list[Prefixes] = []  # the paths that have ended in this step
        super().__init__(decoder, trie, [request], normalize)
        self._chosen = self._taken = self.frontier
        self._of_slot = {PROMPT_SLOT: ROOT}  # prefix by the slot of its last token
        self._of_node: dict[tuple[int, int], int] = {}  # prefix by its parent's slot and its own node
        self._list(self.root(), np.zeros(1, np.int64), self.root().value, np.array([_LIVE]), step=0)

    def step(self) -> None:
        """See :meth:`~genrec.leaf_search.LeafSearch.step`."""
        if len(self._trace.prefixes) >= self._trace.most_prefixes:
            self._trace.truncated = True
            super().step()
            return
        frontier = self.frontier
        scored = self._score(frontier)
        self._tails = []
        super().step()
        self._write(frontier, scored)

    def finish(self, paths: Prefixes, *, ahead: bool = False) -> None:
        """See :meth:`~genrec.search_batch.SearchBatch.finish`."""
        self._tails.append(paths)
        super().finish(paths, ahead=ahead)

    def _take_up(self, chosen: Prefixes) -> Prefixes:
        taken = super()._take_up(chosen)
        self._chosen, self._taken = chosen, taken
        return taken

    def _score(self, frontier: Prefixes) -> _Scored:
        """The children of the frontier as the step about to come will see them."""
        children = self.walk.children(frontier.places)
        below = self.below(frontier, children)
        step = self.values.mix(self.edge_scores(self.hidden, frontier.places, children), below)
        score = frontier.score[children.row] + step
        value = self.values.of(score, frontier.value, below)
        prefixes = Prefixes(below.request, children.places, score, value, frontier.parent[children.row])
        allowed = self.allowed.count(below.request, below.start, below.end)
        ended = self.walk.is_leaf(children.places)
        if self.normalize == "vocabulary":
            ended &= self.walk.tail_length(children.places) == 0
        order = value.copy()
        going = np.flatnonzero((allowed > 0) & ~ended)
        if not self.best_first[0]:
            order[going] = self._order(prefixes.take(going), allowed[going])
        depth = frontier.places.depth[children.row]
        return _Scored(children.row, depth, prefixes, allowed, order, ended)

    def _write(self, frontier: Prefixes, scored: _Scored) -> None:
        trace, number = self._trace, len(self._trace.steps)
        chosen, taken = self._chosen, self._taken
        assert chosen is not None
        assert taken is not None
        expanded = tuple(self._of_slot[slot] for slot in frontier.parent.tolist())
        node = scored.prefixes.places.node
        goes_on = np.isin(node, chosen.places.node)
        leaf = self.walk.is_leaf(scored.prefixes.places)
        fate = np.full(len(node), _PRUNED)
        fate[goes_on] = _LIVE
        fate[scored.ended | (goes_on & leaf)] = _FINISHED
        fate[scored.allowed == 0] = _FILTERED
        self._complete_tails(scored, fate == _FINISHED)
        is_listed = self._worth_listing(scored, fate)
        rows = np.flatnonzero(is_listed)
        self._list(
            scored.prefixes.take(rows), scored.token_depth[rows], scored.order[rows], fate[rows], step=number
        )
        ended = self._follow(chosen, taken, number)
        bound = max(self.open.bound()[0], self.frontier.value.max(initial=-np.inf))
        trace.steps.append(
            TracedStep(
                expanded=expanded,
                scored=len(node),
                counts={name: int((fate == place).sum()) for place, name in enumerate(FATES)},
                unlisted=tuple(self._count(scored, fate, ~is_listed, expanded)),
                bound=self.values.open_bound(0, float(bound)),
                found=self.result(0, float(bound)),
                ended=ended,
                model_calls=int(self.model_calls[0]),
            )
        )

    def _complete_tails(self, scored: _Scored, finished: BoolArray) -> None:
        """Give paths that ended in this step the score they ended with: their tails have been scored since."""
        ended = self._ended_scores()
        for row in np.flatnonzero(finished).tolist():
            node = int(scored.prefixes.places.node[row])
            scored.prefixes.score[row] = ended.get(node, scored.prefixes.score[row])

    def _ended_scores(self) -> dict[int, float]:
        """By node, the scores of the paths that have ended in this step."""
        pairs = (zip(part.places.node.tolist(), part.score.tolist(), strict=True) for part in self._tails)
        return dict(chain.from_iterable(pairs))

    def _worth_listing(self, scored: _Scored, fate: Int64Array) -> BoolArray:
        """bool[E]: all that go on, the best that have ended, and of the others the best and one per parent."""
        listed: BoolArray = fate == _LIVE
        most = {
            _PRUNED: self._trace.most_listed,
            _FILTERED: self._trace.most_listed,
            _FINISHED: 2 * int(self.k[0]),
        }
        for one, limit in most.items():
            rows = np.flatnonzero(fate == one)
            best_first = rows[np.argsort(-scored.prefixes.score[rows], kind="stable")]
            listed[best_first[:limit]] = True
            if one != _FINISHED:
                _, first = np.unique(scored.row[best_first], return_index=True)
                listed[best_first[first]] = True
        return listed

    def _count(
        self, scored: _Scored, fate: Int64Array, unlisted: BoolArray, expanded: tuple[int, ...]
    ) -> list[Unlisted]:
        """What is not listed, by parent and fate."""
        counted = []
        start, end = self.walk.start(scored.prefixes.places), scored.prefixes.places.end
        group = scored.row * len(FATES) + fate
        for one in np.unique(group[unlisted]).tolist():
            rows = np.flatnonzero(unlisted & (group == one))
            counted.append(
                Unlisted(
                    parent=expanded[one // len(FATES)],
                    fate=FATES[one % len(FATES)],
                    count=len(rows),
                    items=int((end[rows] - start[rows]).sum()),
                    best=float(scored.prefixes.score[rows].max()),
                )
            )
        return counted

    def _follow(self, chosen: Prefixes, taken: Prefixes, step: int) -> dict[int, float]:
        """Note where the chosen prefixes stand now; those taken up again may not have been listed before.

        Returns:
            See :attr:`TracedStep.ended`.
        """
        keys = list(zip(chosen.parent.tolist(), chosen.places.node.tolist(), strict=True))
        new = np.array([key not in self._of_node for key in keys], bool)
        if new.any():
            again = chosen.take(new)
            depth = again.places.depth - 1
            self._list(again, depth, again.value, np.full(len(again), _PRUNED), step=step)
        leaf = self.walk.is_leaf(chosen.places).tolist()
        goes_on = (key for key, ends in zip(keys, leaf, strict=True) if not ends)
        for key, slot in zip(goes_on, taken.parent.tolist(), strict=True):
            self._of_slot[slot] = self._of_node[key]
        scores = self._ended_scores()
        ended = [key for key, ends in zip(keys, leaf, strict=True) if ends]
        return {
            self._of_node[key]: scores[key[1]]
            for key in ended
            if self._trace.prefixes[self._of_node[key]].fate == "pruned"
        }

    def _list(
        self, prefixes: Prefixes, token_depth: Int64Array, order: Float64Array, fate: Int64Array, *, step: int
    ) -> None:
        """Add prefixes to the trace, one by one."""
        listed = self._trace.prefixes
        start, end = self.walk.start(prefixes.places), prefixes.places.end
        allowed = self.allowed.count(prefixes.request, start, end)
        tokens = self._tokens(prefixes.places, start, token_depth)
        examples = self._examples(start, end, allowed)
        for row in range(len(prefixes)):
            slot, node = int(prefixes.parent[row]), int(prefixes.places.node[row])
            is_root = node == 0
            parent = -1 if is_root else self._of_slot[slot]
            if not is_root:
                self._of_node[slot, node] = len(listed)
            listed.append(
                TracedPrefix(
                    id=len(listed),
                    parent=parent,
                    step=step,
                    level=0 if is_root else listed[parent].level + 1,
                    depth=int(token_depth[row]),
                    tokens=tokens[row],
                    start=int(start[row]),
                    end=int(end[row]),
                    allowed=int(allowed[row]),
                    score=float(prefixes.score[row]),
                    order=float(order[row]),
                    fate=FATES[int(fate[row])],
                    examples=examples[row],
                )
            )

    def _tokens(self, places: Places, start: Int64Array, depth: Int64Array) -> list[tuple[int, ...]]:
        """Per prefix its own token and what is forced behind it: to the next decision, or to the path's end."""
        last = np.where(
            self.walk.is_leaf(places), self.trie.path_length(start), self.walk.forced(places).depth
        )
        last[places.node == 0] = 0  # the search begins at the root, wherever that leads
        flat = self.walk.path_slices(start, depth, last).tolist()
        bounds = np.concatenate([[0], np.cumsum(last - depth)]).tolist()
        return [tuple(flat[low:high]) for low, high in pairwise(bounds)]

    def _examples(self, start: Int64Array, end: Int64Array, allowed: Int64Array) -> list[tuple[int, ...]]:
        """Per range some ranks of allowed items, evenly spread; of a range without any, just some ranks."""
        columns = []
        for place in range(EXAMPLES):
            number = (np.where(allowed > 0, allowed, end - start) - 1) * place // (EXAMPLES - 1)
            plain = start + number
            columns.append(np.where(allowed > 0, self._rank_of_allowed(number, start, end), plain))
        ranks = np.stack(columns, axis=1)
        return [tuple(dict.fromkeys(row)) for row in ranks.tolist()]

    def _rank_of_allowed(self, number: IntArray, start: Int64Array, end: Int64Array) -> Int64Array:
        """int64[R]: the rank of the ``number``-th allowed item of each range, by bisection."""
        low, high = start.copy(), end - 1
        request = np.zeros(len(start), np.int64)
        while (low < high).any():
            middle = (low + high) // 2
            has_it = self.allowed.count(request, start, middle + 1) > number
            high = np.where(has_it, middle, high)
            low = np.where(has_it, low, np.minimum(middle + 1, high))
        return low
