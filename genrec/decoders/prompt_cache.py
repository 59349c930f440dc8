"""PromptCache: a decoder that remembers prompts, so that a history that grew by an item costs that item only.

It stands around any decoder that can start from an earlier prompt's state and looks like a decoder itself; a
search does not know that it is there. Which prompts begin alike is found by hashes of their beginnings. A wrong
match costs nothing but time: the decoder itself looks how far two prompts agree.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from threading import Lock

import numpy as np

from genrec.decoders.base import Hidden, Prefilled, Prompt, ReusesPrompts, ScoresVocabulary, State
from index.errors import RequestError
from index.types import Float32Array, Int64Array, IntArray, UInt64Array

# Beginnings that are a multiple of this long are known too, not only whole prompts: many prompts may share an
# instruction, or part ways in the middle.
BLOCK = 32
CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What a cache has done since it was made, and what it holds."""

    prompts: int
    hits: int  # prompts of which at least the first position was known
    positions: int  # of all prompts
    reused: int  # of these, positions that were not run again
    entries: int
    nbytes: int  # held

    @classmethod
    def of(cls, caches: Sequence[PromptCache]) -> CacheCounts:
        """The counts of several caches together."""
        counts = [astuple(cache.counts) for cache in caches]
        return cls(*(sum(column) for column in zip(*counts, strict=True)))


@dataclass(frozen=True, slots=True)
class _Entry:
    key: Int64Array
    state: State
    nbytes: int
    names: tuple[int, ...]  # hashes of its beginnings, the whole prompt last


class PromptCache:
    """Implements :class:`genrec.decoders.base.Decoder`. Safe to share between threads if the decoder is.

    Args:
        decoder: what does the work.
        most_bytes: keys and values kept at most; the prompts used longest ago are forgotten first.

    Raises:
        RequestError: a limit below 1.
    """

    def __init__(self, decoder: ReusesPrompts, most_bytes: int = CACHE_BYTES) -> None:
        if most_bytes < 1:
            raise RequestError(f"expected a prompt cache of at least 1 byte, got {most_bytes}; leave it out")
        self.decoder = decoder
        self._most_bytes = most_bytes
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # by the hash of the whole prompt
        self._owner: dict[int, int] = {}  # hash of a beginning to an entry that begins so
        self._nbytes = self._prompts = self._hits = self._positions = self._reused = 0
        self._lock = Lock()

    @property
    def counts(self) -> CacheCounts:
        """A snapshot."""
        with self._lock:
            return CacheCounts(
                self._prompts,
                self._hits,
                self._positions,
                self._reused,
                len(self._entries),
                self._nbytes,
            )

    def clear(self) -> None:
        """Forget every prompt, and what was counted."""
        with self._lock:
            self._entries.clear()
            self._owner.clear()
            self._nbytes = self._prompts = self._hits = self._positions = self._reused = 0

    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        """See :class:`~genrec.decoders.base.Decoder`."""
        keys = [self.decoder.prompt_key(prompt) for prompt in prompts]
        hashes = [_prefix_hashes(key) for key in keys]
        with self._lock:
            kept = [self._look_up(key, known) for key, known in zip(keys, hashes, strict=True)]
        filled = self.decoder.prefill(prompts, kept)
        # A copy: the state itself grows with what the search feeds it, and is gone with the search.
        copies = [state.fork() for state in filled.states]
        with self._lock:
            for key, known, copy in zip(keys, hashes, copies, strict=True):
                self._keep(key, known, copy)
        return filled

    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """See :class:`~genrec.decoders.base.Decoder`."""
        return self.decoder.extend(states, request, token, parent)

    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """See :class:`~genrec.decoders.base.Decoder`."""
        return self.decoder.edge_logits(hidden, row, token)

    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """See :class:`~genrec.decoders.base.Decoder`."""
        return self.decoder.log_normalizer(hidden, depth)

    def _look_up(self, key: Int64Array, hashes: UInt64Array) -> State | None:
        """The state that knows the longest beginning of a prompt."""
        self._prompts += 1
        self._positions += len(key)
        for name in hashes[::-1].tolist():
            whole = self._owner.get(name)
            if whole is None:
                continue
            entry = self._entries[whole]
            self._entries.move_to_end(whole)
            shared = min(
                _common_length(entry.key, key), max(len(key) - 1, 0)
            )  # the last position is run anyway
            self._reused += shared
            self._hits += shared > 0
            return entry.state
        return None

    def _keep(self, key: Int64Array, hashes: UInt64Array, state: State) -> None:
        if not len(key):
            return
        whole = int(hashes[-1])
        if whole in self._entries:
            self._forget(whole)
        names = (*hashes[BLOCK - 1 : -1 : BLOCK].tolist(), whole)
        entry = _Entry(key, state, state.nbytes + key.nbytes, names)
        if entry.nbytes > self._most_bytes:
            return
        self._entries[whole] = entry
        for name in names:
            self._owner[name] = whole  # the latest is forgotten last
        self._nbytes += entry.nbytes
        while self._nbytes > self._most_bytes:
            self._forget(next(iter(self._entries)))

    def _forget(self, whole: int) -> None:
        entry = self._entries.pop(whole)
        self._nbytes -= entry.nbytes
        for name in entry.names:
            if self._owner.get(name) == whole:
                del self._owner[name]


class WritingPromptCache(PromptCache):
    """The same around a decoder that gives all logits at once, as free text needs them."""

    def __init__(self, decoder: ReusesPrompts, writer: ScoresVocabulary, most_bytes: int) -> None:
        super().__init__(decoder, most_bytes)
        self._writer = writer

    def logits(self, hidden: Hidden) -> Float32Array:
        """See :class:`~genrec.decoders.base.ScoresVocabulary`."""
        return self._writer.logits(hidden)


def prompt_cache_of(decoder: ReusesPrompts, most_bytes: int = CACHE_BYTES) -> PromptCache:
    """A cache that can do what the decoder can; see :class:`PromptCache`."""
    if isinstance(decoder, ScoresVocabulary):
        return WritingPromptCache(decoder, decoder, most_bytes)
    return PromptCache(decoder, most_bytes)


def _prefix_hashes(key: Int64Array) -> UInt64Array:
    """uint64[P]: a hash of every beginning of a key, by Horner's rule read backwards (mod 2**64)."""
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(len(key), _MULTIPLIER, np.uint64))
        terms = _spread(key.astype(np.uint64) + np.uint64(1)) * powers
        return np.asarray(np.cumsum(terms, dtype=np.uint64), np.uint64)


# An odd number of random bits; SplitMix64's first multiplier spreads small keys over all bits.
_MULTIPLIER = np.uint64(0x9FB21C651E98DF25)


def _spread(value: UInt64Array) -> UInt64Array:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray(value ^ (value >> np.uint64(27)), np.uint64)


def _common_length(one: Int64Array, other: Int64Array) -> int:
    shortest = min(len(one), len(other))
    differs = np.flatnonzero(one[:shortest] != other[:shortest])
    return int(differs[0]) if len(differs) else shortest
