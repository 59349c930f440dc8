"""Lane: requests of one model that are searched together, a step at a time.

Between two steps others join, finished ones leave, and those nobody waits for any more are dropped. Nobody
waits for a batch to fill or to end, but where more wait than find room, they join together (:class:`Joining`). A lane
knows searches; it knows no queue, no deadline and no client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from genrec.decoders.base import Decoder
from genrec.leaf_search import LeafSearch
from genrec.search import Normalize, SearchRequest, SearchResult
from genrec.search_trace import SearchTrace, TracedSearch
from index.trie import TokenTrie
from index.types import BoolArray

Name = TypeVar("Name")
MOST_HELD = 4  # steps


class Joining:
    """How many of those that wait join at a step.

    All that find room do, at once, unless more wait than that: then they wait for half a batch of room, or for
    :data:`MOST_HELD` steps. Who joins brings a prefill, and a depth of its own to every step until it ends, which
    cost nearly the same for three as for sixteen. Without this a full server that has once fallen into joining by
    threes and fours stays there, at 1.2 to 1.4 times the processor time a request.

    Args:
        batch: requests searched together at most.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._held = 0

    def now(self, waiting: int, room: int) -> int:
        """So many of ``waiting`` join, where there is room for so many."""
        if 0 < room < waiting and room < self._batch // 2 and self._held < MOST_HELD:
            self._held += 1
            return 0
        if room:
            self._held = 0
        return min(waiting, room)


class Lane(Generic[Name]):
    """Requests under one decoder, trie and normalisation, known by names of the caller's choice.

    With a trace the lane is that of one request, which nobody joins, and every step of it is written down.
    Not safe to share between threads.
    """

    def __init__(
        self, decoder: Decoder, trie: TokenTrie, normalize: Normalize, trace: SearchTrace | None = None
    ) -> None:
        self._decoder = decoder
        self._trie = trie
        self._normalize: Normalize = normalize
        self._trace = trace
        self._search: LeafSearch | None = None
        self._names: list[Name] = []

    def __len__(self) -> int:
        return len(self._names)

    @property
    def names(self) -> Sequence[Name]:
        """Who is being searched for."""
        return self._names

    def join(self, names: Sequence[Name], requests: Sequence[SearchRequest]) -> None:
        """Start requests: their prompts go through the model together, then they step with the others.

        Raises:
            DecoderError: the model cannot take one of the prompts; then nobody has joined.
        """
        if not names:
            return
        new = self._start(requests)
        if self._search is None:
            self._search = new
        else:
            self._search.join(new)
        self._names.extend(names)

    def _start(self, requests: Sequence[SearchRequest]) -> LeafSearch:
        if self._trace is None:
            return LeafSearch(self._decoder, self._trie, requests, self._normalize)
        (request,) = requests
        return TracedSearch(self._decoder, self._trie, request, self._normalize, self._trace)

    def step(self) -> list[tuple[Name, SearchResult]]:
        """One decision for everybody; those whose search has ended, with their answers, have left."""
        if self._search is None:
            return []
        self._search.step()
        over = np.flatnonzero(~self._search.going)
        answers = [(self._names[b], self._search.result_now(b)) for b in over.tolist()]
        self._keep(self._search.going)
        return answers

    def drop(self, is_unwanted: Callable[[Name], bool]) -> list[Name]:
        """Take out everybody of whom ``is_unwanted`` says so, unanswered; they are returned."""
        unwanted = np.array([is_unwanted(name) for name in self._names], bool)
        if not unwanted.any():
            return []
        dropped = [self._names[b] for b in np.flatnonzero(unwanted)]
        self._keep(~unwanted)
        return dropped

    def clear(self) -> list[Name]:
        """Take everybody out, unanswered: after a step that failed nothing is known of the states."""
        names, self._names, self._search = self._names, [], None
        return names

    def _keep(self, wanted: BoolArray) -> None:
        stay = np.flatnonzero(wanted)
        if len(stay) == len(self._names):
            return
        self._names = [self._names[b] for b in stay]
        if self._names and self._search is not None:
            self._search.keep(stay)
        else:
            self._search = None
