"""Plan, then write: a native model's heads choose the codes of an item, its body puts the item into words.

The decoder of texts that begin with a plan. An answer is the item's codes level by level, then words. Codes are
scored by the decoder of the codes; when the last of them is fed, the item goes to the decoder of the words as one
position, and words follow. So which item comes next is known as well in text as in codes, and a word is asked only
how an item is put into words (:mod:`genrec.text_branch` teaches that).

A code's probability is one among the codes the catalog has at its place, under any normalisation: the heads are
trained so, and never learn to push down what no item has. A plan that names no item (a grammar may leave it free) is
read as the sum of its codes.

It stands on two decoders of the contract, in torch or exported, and is numpy itself. It knows no titles and no users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genrec.decoders.base import Decoder, Hidden, Prefilled, Prompt, ReusesPrompts, ScoresVocabulary, State
from genrec.decoders.native_inputs import plan_ids
from genrec.native_config import NativeConfig
from index.errors import DecoderError
from index.trie import TokenTrie
from index.types import BoolArray, Float32Array, Int64Array, IntArray
from index.walk import Places, TrieWalk


class WordsDecoder(ReusesPrompts, ScoresVocabulary, Protocol):
    """The decoder of words; a prompt is items and a mark, and plans may be fed (:func:`plan_ids`)."""


@dataclass(slots=True)
class PlannedState:
    """One request: what both decoders remember of it, and where each slot stands."""

    codes: State
    words: State
    stands: _Stands  # [S]

    @property
    def slots(self) -> int:
        """Tokens fed after the prompt."""
        return len(self.stands)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.codes.nbytes + self.words.nbytes + self.stands.nbytes

    def fork(self) -> PlannedState:
        """An independent copy. Arrays are replaced, never written, so sharing them is safe."""
        return PlannedState(self.codes.fork(), self.words.fork(), self.stands)

    def compact(self, live: IntArray) -> None:
        """Keep the slots ``live``, renumbered in their order; so are those of both decoders."""
        kept = self.stands.take(live)
        codes, words = kept.code_slot[kept.code_slot >= 0], kept.word_slot[kept.word_slot >= 0]
        self.codes.compact(codes)
        self.words.compact(words)
        self.stands = _Stands(
            kept.node,
            kept.end,
            kept.depth,
            kept.path,
            np.where(kept.code_slot >= 0, np.searchsorted(codes, kept.code_slot), -1),
            np.where(kept.word_slot >= 0, np.searchsorted(words, kept.word_slot), -1),
        )


@dataclass(frozen=True, slots=True)
class _Stands:
    """Where S slots stand: in the trie of codes, and in both decoders."""

    node: Int64Array  # -1 where the plan has left the trie
    end: Int64Array  # one past the last rank below
    depth: Int64Array  # codes of the plan so far; all of them behind its last code and in the words
    path: Int64Array  # these codes as one number
    code_slot: Int64Array  # of the decoder of the codes; -1 where the slot is none of its
    word_slot: Int64Array  # the same of the words

    def __len__(self) -> int:
        return len(self.node)

    @property
    def nbytes(self) -> int:
        return sum(int(getattr(self, name).nbytes) for name in self.__slots__)

    def take(self, index: IntArray | slice) -> _Stands:
        """Those at ``index``."""
        return _Stands(*(getattr(self, name)[index] for name in self.__slots__))

    @classmethod
    def together(cls, parts: Sequence[_Stands]) -> _Stands:
        """One behind the other."""
        return cls(*(np.concatenate([getattr(one, name) for one in parts]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class _Widths:
    """Of the hidden rows of both decoders."""

    codes: int
    words: int


class PlannedText:
    """Implements :class:`genrec.decoders.base.ReusesPrompts` and :class:`~genrec.decoders.base.ScoresVocabulary`.

    Token ids are those of words, and behind them the codes, level by level. A hidden row is that of the decoder it
    comes from (of whichever width), then the level of the code that follows it (the number of levels, where a word
    does), then what the codes of that level that exist there add up to.

    Args:
        codes: the decoder of the codes.
        words: the decoder of the words.
        trie: of the codes of the catalog.
        config: the model's shape.
    """

    def __init__(self, codes: Decoder, words: WordsDecoder, trie: TokenTrie, config: NativeConfig) -> None:
        self.codes, self.words = codes, words
        self.config = config
        self._widths = _Widths(codes=config.hidden_size + 1, words=config.hidden_size)  # codes: and a place
        self._walk = TrieWalk(trie)
        self._levels = config.levels
        self._size = config.text_size
        self._offsets = np.array(config.offsets, np.int64)  # [L + 1]
        self._level_of = np.repeat(np.arange(config.levels), config.code_sizes)  # [C]

    @property
    def vocabulary(self) -> int:
        """Tokens of words and codes."""
        return self._size + int(self._offsets[-1])

    def prompt_key(self, prompt: Prompt) -> Int64Array:
        """int64[P]: see the contract.

        Raises:
            DecoderError: the prompt is not items and one mark.
        """
        return self.words.prompt_key(prompt)

    def prefill(self, prompts: Sequence[Prompt], kept: Sequence[State | None] | None = None) -> Prefilled:
        """Run the prompts in both decoders, from what is kept where they can.

        Raises:
            DecoderError: a prompt is not items and one mark.
        """
        mine = [None if one is None else self._own(one) for one in kept or [None] * len(prompts)]
        words = self.words.prefill(prompts, [None if one is None else one.words for one in mine])
        histories = [prompt[:1] for prompt in prompts]
        if isinstance(self.codes, ReusesPrompts):
            codes = self.codes.prefill(histories, [None if one is None else one.codes for one in mine])
        else:
            codes = self.codes.prefill(histories)
        nothing = np.zeros(0, np.int64)
        states: list[State] = [
            PlannedState(code, word, _Stands(*[nothing] * 6))
            for code, word in zip(codes.states, words.states, strict=True)
        ]
        hidden = self._rows(len(prompts))
        self._plan_rows(hidden, np.arange(len(prompts)), codes.hidden, self._walk.root(len(prompts)))
        return Prefilled(states, hidden)

    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """Feed one token to each of R prefixes; see the contract.

        Raises:
            DecoderError: a word stands before the end of a plan, or a code where another is due. No state has changed
                then.
        """
        mine = [self._own(state) for state in states]
        owner, fed = request.astype(np.int64), token.astype(np.int64)
        stands, before = self._follow(mine, owner, fed, parent.astype(np.int64))
        hidden = self._rows(len(fed))
        rows = np.flatnonzero(stands.code_slot >= 0)
        if len(rows):
            codes = [state.codes for state in mine]
            query = self.codes.extend(codes, owner[rows], fed[rows] - self._size, before.code_slot[rows])
            places = Places(stands.node[rows], stands.end[rows], stands.depth[rows])
            self._plan_rows(hidden, rows, query, places)
        rows = np.flatnonzero(stands.word_slot >= 0)
        if len(rows):
            ids = np.where(fed[rows] >= self._size, self._items(stands.take(rows)), fed[rows])
            words = [state.words for state in mine]
            hidden[rows, : self._widths.words] = self.words.extend(
                words, owner[rows], ids, before.word_slot[rows]
            )
        first = np.searchsorted(owner, np.arange(len(mine) + 1))
        for state, begin, end in zip(mine, first[:-1], first[1:], strict=True):
            if begin < end:
                state.stands = _Stands.together([state.stands, stands.take(slice(begin, end))])
        return hidden

    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """float32[E]: the logit of each edge.

        Raises:
            DecoderError: a word is asked for where a code is due, or a code where a word is.
        """
        row, token = np.asarray(row, np.int64), np.asarray(token, np.int64)
        is_code = token >= self._size
        level = np.full(len(token), self._levels)
        level[is_code] = self._level_of[token[is_code] - self._size]
        due = hidden[row, -2].astype(np.int64)
        if (level != due).any():
            wrong = int(np.flatnonzero(level != due)[0])
            raise self._disorder(int(token[wrong]), int(due[wrong]))
        logits = np.empty(len(token), np.float32)
        edge = np.flatnonzero(is_code)
        if len(edge):
            logits[edge] = self.codes.edge_logits(self._of_codes(hidden), row[edge], token[edge] - self._size)
        edge = np.flatnonzero(~is_code)
        if len(edge):
            logits[edge] = self.words.edge_logits(self._of_words(hidden), row[edge], token[edge])
        return logits

    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """float32[R]: over the codes that exist where a code is due, over all words where a word is."""
        total = np.array(hidden[:, -1], np.float32)
        rows = np.flatnonzero(self._writes(hidden))
        if len(rows):
            total[rows] = self.words.log_normalizer(self._of_words(hidden[rows]), np.asarray(depth)[rows])
        return total

    def logits(self, hidden: Hidden) -> Float32Array:
        """float32[R, V]: of all words, or of all codes of the level that is due; the others are impossible."""
        table = np.full((len(hidden), self.vocabulary), -np.inf, np.float32)
        writes = self._writes(hidden)
        if writes.any():
            table[writes, : self._size] = self.words.logits(self._of_words(hidden[writes]))
        for level in range(self._levels):
            rows = np.flatnonzero(hidden[:, -2] == level)
            if len(rows):
                first, end = self._offsets[level : level + 2].tolist()
                token = np.tile(np.arange(first, end), len(rows))
                own = self.codes.edge_logits(self._of_codes(hidden), np.repeat(rows, end - first), token)
                table[rows, self._size + first : self._size + end] = own.reshape(len(rows), -1)
        return table

    def _follow(
        self, states: Sequence[PlannedState], request: Int64Array, token: Int64Array, parent: Int64Array
    ) -> tuple[_Stands, _Stands]:
        """Where each row stands, and where its predecessor does."""
        count = np.array([state.slots for state in states], np.int64)
        root = _Stands(*(np.array([value]) for value in (0, len(self._walk.trie), 0, 0, -1, -1)))
        known = _Stands.together([root, *(state.stands for state in states)])
        base = 1 + np.cumsum(count) - count
        in_call = parent >= count[request]
        caller = np.where(in_call, np.searchsorted(request, request) + parent - count[request], -1)
        before = known.take(np.where(in_call | (parent < 0), 0, base[request] + parent))
        code = token - self._size  # of a plan, where it is one
        is_plan = code >= 0
        level = np.where(is_plan, self._level_of[np.maximum(code, 0)], self._levels)
        stands = _Stands(*(getattr(before, name).copy() for name in _Stands.__slots__))
        stands.code_slot[:] = _counted(
            request, is_plan & (level < self._levels - 1), [state.codes.slots for state in states]
        )
        stands.word_slot[:] = _counted(
            request, level >= self._levels - 1, [state.words.slots for state in states]
        )
        waiting = np.arange(len(token))
        while len(waiting):  # chains: a row whose predecessor is in this call waits for it
            blocked = np.zeros(len(token), bool)
            blocked[waiting] = True
            is_free = ~(in_call[waiting] & blocked[caller[waiting]])
            rows, waiting = waiting[is_free], waiting[~is_free]
            chained = rows[in_call[rows]]
            for name in _Stands.__slots__:
                getattr(before, name)[chained] = getattr(stands, name)[caller[chained]]
            due = before.depth[rows]
            if (level[rows] != due).any():
                wrong = int(np.flatnonzero(level[rows] != due)[0])
                raise self._disorder(int(token[rows[wrong]]), int(due[wrong]))
            for name in ("node", "end", "depth", "path"):
                getattr(stands, name)[rows] = getattr(before, name)[rows]
            planned = rows[is_plan[rows]]
            if len(planned):
                here = Places(before.node[planned], before.end[planned], before.depth[planned])
                moved = self._walk.step(here, code[planned])
                sizes = np.array(self.config.code_sizes, np.int64)[level[planned]]
                stands.node[planned], stands.end[planned] = moved.node, moved.end
                stands.depth[planned] = moved.depth
                own = code[planned] - self._offsets[level[planned]]
                stands.path[planned] = before.path[planned] * sizes + own
        return stands, before

    def _plan_rows(self, hidden: Hidden, rows: Int64Array, query: Hidden, places: Places) -> None:
        """Write the rows behind which a code is due."""
        hidden[rows, : self._widths.codes], hidden[rows, -2] = query, places.depth
        hidden[rows, -1] = self._sums(query, places)

    def _sums(self, query: Hidden, places: Places) -> Float32Array:
        """float32[R]: log of the sum of exp(logit) over the codes that exist at places; over all of the level, for a
        plan that has left the trie."""
        total = np.empty(len(places), np.float32)
        gone = np.flatnonzero(places.node < 0)
        if len(gone):
            total[gone] = self.codes.log_normalizer(query[gone], places.depth[gone])
        inside = np.flatnonzero(places.node >= 0)
        here = places.take(inside)
        below = self._walk.children(here)
        leaf = np.flatnonzero(self._walk.is_leaf(here))
        row, token = below.row, below.token.astype(np.int64)
        if len(leaf):
            depth = here.depth[leaf]
            tail = self._walk.path_slices(self._walk.start(here.take(leaf)), depth, depth + 1)
            row, token = np.concatenate([row, leaf]), np.concatenate([token, tail])
            order = np.argsort(row, kind="stable")
            row, token = row[order], token[order]
        if len(row):
            logits = self.codes.edge_logits(query[inside], row, token)
            first = np.searchsorted(row, np.arange(len(here)))
            top = np.maximum.reduceat(logits, first)
            total[inside] = top + np.log(np.add.reduceat(np.exp(logits - top[row]), first))
        return total

    def _items(self, stands: _Stands) -> Int64Array:
        """int64[R]: what the decoder of the words is fed for whole plans."""
        trie, items = self._walk.trie, len(self._walk.trie)
        node = np.maximum(stands.node, 0)
        row = np.where(stands.node >= 0, trie.item_at_rank[trie.span_start[node]].astype(np.int64), -1)
        return plan_ids(row, stands.path, self._size, items)

    def _rows(self, count: int) -> Hidden:
        """float32[R, W + 2] of rows behind which a word is due."""
        hidden = np.zeros((count, max(self._widths.codes, self._widths.words) + 2), np.float32)
        hidden[:, -2] = self._levels
        return hidden

    def _of_codes(self, hidden: Hidden) -> Hidden:
        """The rows as the decoder of the codes made them."""
        return np.ascontiguousarray(hidden[:, : self._widths.codes])

    def _of_words(self, hidden: Hidden) -> Hidden:
        """The rows as the decoder of the words made them."""
        return np.ascontiguousarray(hidden[:, : self._widths.words])

    def _writes(self, hidden: Hidden) -> BoolArray:
        """bool[R]: where a word is due."""
        writes: BoolArray = hidden[:, -2] == self._levels
        return writes

    def _own(self, state: State) -> PlannedState:
        if not isinstance(state, PlannedState):
            raise DecoderError(
                f"expected states made by {type(self).__name__}.prefill, got those of another decoder"
            )
        return state

    def _disorder(self, token: int, due: int) -> DecoderError:
        wanted = "a word" if due == self._levels else f"a code of level {due}"
        got = (
            f"the word {token}"
            if token < self._size
            else f"a code of level {self._level_of[token - self._size]}"
        )
        return DecoderError(
            f"expected {wanted}, got {got}: what a native model writes begins with the {self._levels} codes of an "
            "item; hold texts by genrec.grammars.planned.Planned"
        )


def _counted(request: Int64Array, which: BoolArray, begin: Sequence[int]) -> Int64Array:
    """int64[R]: the slots that rows get in a decoder that is fed only some of them; -1 for the others."""
    mine = request[which]
    slots = np.full(len(request), -1)
    slots[which] = np.array(begin, np.int64)[mine] + np.arange(len(mine)) - np.searchsorted(mine, mine)
    return slots
