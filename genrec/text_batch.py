"""What beams and samples share: texts in the making, what may follow them, and feeding what was chosen.

One batch is B prompts, each with its own state of the decoder and its own grammar. All texts of a prompt grow on its
one state, as a tree of tokens; nothing is copied per text. A step is a *choice*: tokens without an alternative (the
tail of a title, the literal text of a schema) ride with the choice before them and are fed in the same call. This
module knows the decoder's contract and automata; choosing is :mod:`genrec.text_beams`'s and
:mod:`genrec.text_samples`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.decoders.base import PROMPT_SLOT, Decoder, Hidden, State
from genrec.grammars.base import Automaton, Edges, End
from genrec.grammars.machine import CUT, Machine
from genrec.search_batch import Normalize
from genrec.token_scores import edge_scores, free_scores, is_asked
from index.errors import RequestError
from index.trie import ragged_positions
from index.types import BoolArray, Float32Array, Float64Array, Int64Array, IntArray

# Tokens of texts that were given up stay in a state, and all that is fed looks at them: after so many tokens it is
# asked whether they are more than the rest, and if so they are forgotten.
_TIDY_EVERY = 128

# What a text in the frontier that is complete already "goes on" with.
_NOTHING_MORE = Edges(np.zeros(1, np.int64), lambda _: End(), is_given=True)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a request's texts begin: a state of the decoder, the slot they follow, and its hidden row."""

    state: State
    hidden: Hidden  # [H]
    slot: int = PROMPT_SLOT


@dataclass(frozen=True, slots=True)
class Written:
    """One text, as tokens."""

    ids: Int64Array  # [T] with the terminator, where the text ends in one
    log_probabilities: Float64Array
    """[T] of each token: over the vocabulary in free text, as ``normalize`` says where the grammar offers a choice,
    0 where it offers none."""
    score: float
    """Their sum; a beam search divides it by the length to the power of its ``length_penalty``."""
    value: Any
    """What the grammar reads in it."""


@dataclass(frozen=True, slots=True)
class Texts:
    """R texts in the making."""

    request: Int64Array  # [R] non-decreasing
    unit: Int64Array  # [R] which of them are chosen among together; non-decreasing
    state: Int64Array  # [R] in their grammar
    score: Float64Array  # [R] sum of log-probabilities
    length: Int64Array  # [R] tokens so far
    trail: Int64Array  # [R] their last token among the batch's; -1 where there is none
    hidden: Int64Array  # [R] their row among the batch's hidden rows
    slot: Int64Array  # [R] of their last token

    def __len__(self) -> int:
        return len(self.request)

    def take(self, index: IntArray | BoolArray) -> Texts:
        """The texts at ``index``."""
        return Texts(*(getattr(self, name)[index] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Options:
    """All that R texts could go on with: E edges, and for F of them any token."""

    edges: list[Edges]  # [R]
    row: Int64Array  # [E] whose edge; non-decreasing
    number: Int64Array  # [E] which of its edges
    score: Float64Array  # [E] log-probability; -inf where it may not be taken
    free: Int64Array  # [F] the texts that may go on freely; ascending
    free_score: Float32Array  # [F, V] log-probabilities; -inf where a token is forbidden


@dataclass(frozen=True, slots=True)
class Steps:
    """C ways for texts to go on."""

    row: Int64Array  # [C] which text
    number: Int64Array  # [C] along which edge; FREELY for a free token
    token: Int64Array  # [C]
    score: Float64Array  # [C] log-probability of the token

    def take(self, index: IntArray | BoolArray) -> Steps:
        """The steps at ``index``."""
        return Steps(self.row[index], self.number[index], self.token[index], self.score[index])


@dataclass(frozen=True, slots=True)
class Taken:
    """C texts one step further, not fed yet."""

    texts: Texts  # `hidden` and `slot` are still those of the text before the step
    first: Int64Array  # [C] the step's first token among the batch's; it goes on to `texts.trail`
    done: BoolArray  # [C] complete, with its score

    def take(self, index: IntArray | BoolArray) -> Taken:
        """The texts at ``index``."""
        return Taken(self.texts.take(index), self.first[index], self.done[index])


class TextBatch:
    """B requests' texts in the making.

    Args:
        decoder: the model; token ids are its own.
        size: V, the tokens that can be read and written.
        stands: where each request begins. Their states are grown, and some of what is fed here is forgotten again.
        automata: one per request; the same object where the grammar is the same.
        max_tokens: most tokens of each request's texts, the terminator included.
        normalize: what the scores of edges are normalised over.

    Raises:
        RequestError: a grammar needs more tokens than there may be.
    """

    def __init__(
        self,
        decoder: Decoder,
        size: int,
        stands: Sequence[Stand],
        automata: Sequence[Automaton],
        max_tokens: Sequence[int],
        normalize: Normalize,
    ) -> None:
        for automaton, most in zip(automata, max_tokens, strict=True):
            if most < max(1, automaton.needs):
                raise RequestError(
                    f"expected max_tokens of at least {max(1, automaton.needs)}, what the shortest text of this "
                    f"grammar takes, got {most}"
                )
        self.decoder = decoder
        self.size = size
        self.states = [stand.state for stand in stands]
        self.max_tokens = list(max_tokens)
        self.normalize = normalize
        made: dict[int, Machine] = {}
        self.machines = [made.setdefault(id(one), Machine(one)) for one in automata]
        self.hidden: Hidden = np.stack([stand.hidden for stand in stands])
        self._origin = np.array([stand.slot for stand in stands], np.int64)  # [B]
        self._base = [stand.state.slots for stand in stands]  # the first slot fed here
        self._parents: list[list[int]] = [[] for _ in stands]  # of the slots fed here
        self._tidy_at = [_TIDY_EVERY for _ in stands]
        # Every token of every text, once: what it is, the one before it, what it is worth, the state behind it.
        self._token: list[int] = []
        self._before: list[int] = []
        self._score: list[float] = []
        self._behind: list[int] = []
        self._due: dict[
            int, tuple[Edges, int]
        ] = {}  # tokens whose score waits for the token before to be fed

    def begin(self, units_per_request: int) -> Texts:
        """An empty text for every unit."""
        request = np.repeat(np.arange(len(self.states)), units_per_request)
        count = len(request)
        start = np.array([machine.start for machine in self.machines], np.int64)
        return Texts(
            request,
            np.arange(count),
            start[request],
            np.zeros(count),
            np.zeros(count, np.int64),
            np.full(count, -1),
            request,
            self._origin[request],
        )

    def options(self, texts: Texts) -> Options:
        """What may follow each text, scored."""
        edges = [
            _NOTHING_MORE if state < 0 else self.machines[b].edges(state, self.max_tokens[b] - length)
            for b, state, length in zip(
                texts.request.tolist(), texts.state.tolist(), texts.length.tolist(), strict=True
            )
        ]
        count = np.array([len(one.token) for one in edges], np.int64)
        row = np.repeat(np.arange(len(texts)), count)
        number = ragged_positions(np.zeros(len(count), np.int64), count)
        score = np.zeros(len(row))
        is_free = np.array([one.forbidden is not None for one in edges], bool)
        free = np.flatnonzero(is_free)
        free_score = free_scores(self.decoder, self.hidden, texts.hidden[free], texts.length[free], self.size)
        closed = np.flatnonzero(~is_free)
        score[~is_free[row]] = edge_scores(
            self.decoder,
            self.hidden,
            texts.hidden[closed],
            texts.length[closed],
            [edges[place] for place in closed.tolist()],
            self.normalize,
        )
        at_free = np.flatnonzero(is_free[row])
        place = np.cumsum(is_free) - 1
        token = np.concatenate([one.token for one in edges])[at_free]
        score[at_free] = free_score[place[row[at_free]], token]
        for place_in_table, text in enumerate(free.tolist()):
            forbidden = edges[text].forbidden
            free_score[place_in_table, forbidden] = -np.inf
        begin = np.cumsum(count) - count
        may = np.zeros(len(row), bool)
        may[np.concatenate([at + one.open for at, one in zip(begin, edges, strict=True)])] = True
        score[~may] = -np.inf
        return Options(edges, row, number, score, free, free_score)

    def take(self, texts: Texts, options: Options, steps: Steps) -> Taken:
        """Go the steps, and on along what must follow them."""
        first = np.zeros(len(steps.row), np.int64)
        state, score, length, trail, done = [], [], [], [], []
        for place, (row, number, token, worth) in enumerate(
            zip(*(getattr(steps, name).tolist() for name in Steps.__slots__), strict=True)
        ):
            request = int(texts.request[row])
            machine, most = self.machines[request], self.max_tokens[request]
            total, size, last = float(texts.score[row]), int(texts.length[row]), int(texts.trail[row])
            behind, waits = int(texts.state[row]), False
            first[place] = len(self._token)
            if behind >= 0:
                behind = machine.follow(options.edges[row], number)
                last = self._note(token, last, worth, behind)
                total, size = total + worth, size + 1
                while behind >= 0 and size < most:
                    edges = machine.edges(behind, most - size)
                    forced = edges.only
                    if forced is None:
                        break
                    behind = machine.follow(edges, forced)
                    last = self._note(int(edges.token[forced]), last, 0.0, behind)
                    size += 1
                    if is_asked(edges, self.normalize):
                        self._due[last] = (edges, forced)
                        waits = True
            is_over = behind < 0 or size == most
            assert not is_over or machine.may_stop(behind)
            state.append(CUT if is_over else behind)
            score.append(total)
            length.append(size)
            trail.append(last)
            done.append(is_over and not waits)
        hidden, slot = texts.hidden[steps.row], texts.slot[steps.row]
        moved = Texts(
            texts.request[steps.row],
            texts.unit[steps.row],
            np.array(state, np.int64),
            np.array(score, np.float64),
            np.array(length, np.int64),
            np.array(trail, np.int64),
            hidden,
            slot,
        )
        return Taken(moved, first, np.array(done, bool))

    def feed(self, taken: Taken) -> Texts:
        """Feed the tokens of texts that are not done; every other text is given up."""
        texts = taken.texts
        if not len(texts):
            return texts
        slot = self._tidied(texts)
        # The last token of a complete text decides nothing: it is here for the scores of those before it.
        stop = texts.trail + np.where(texts.state < 0, 0, 1)
        count = stop - taken.first
        request = np.repeat(texts.request, count)
        fed = ragged_positions(taken.first, count)
        used = np.array([state.slots for state in self.states], np.int64)
        new = used[request] + np.arange(len(request)) - np.searchsorted(request, request)
        begin = np.cumsum(count) - count
        parent = new - 1
        parent[begin[count > 0]] = slot[count > 0]
        token = np.array([self._token[place] for place in fed.tolist()], np.int64)
        self.hidden = self.decoder.extend(self.states, request, token, parent)
        for b, one in zip(request.tolist(), parent.tolist(), strict=True):
            self._parents[b].append(one)
        ends = begin + count - 1
        score = texts.score + self._settle(taken, begin, count)
        return Texts(
            texts.request,
            texts.unit,
            texts.state,
            score,
            texts.length,
            texts.trail,
            ends,
            np.append(new, -1)[ends],
        )

    def path(self, trail: int) -> list[tuple[int, int]]:
        """The tokens of a text and the states behind them, by its last token."""
        return [(self._token[place], self._behind[place]) for place in self._places(trail)]

    def written(self, request: int, trail: int, score: float) -> Written:
        """A text of the batch, by its last token."""
        places = self._places(trail)
        machine = self.machines[request]
        ids = [self._token[place] for place in places]
        states = [machine.state(self._behind[place]) for place in places]
        return Written(
            np.array(ids, np.int64),
            np.array([self._score[place] for place in places]),
            score,
            machine.automaton.read(ids, states),
        )

    def _places(self, trail: int) -> list[int]:
        places = []
        while trail >= 0:
            places.append(trail)
            trail = self._before[trail]
        return places[::-1]

    def _note(self, token: int, before: int, score: float, behind: int) -> int:
        self._token.append(token)
        self._before.append(before)
        self._score.append(score)
        self._behind.append(behind)
        return len(self._token) - 1

    def _settle(self, taken: Taken, begin: Int64Array, count: Int64Array) -> Float64Array:
        """float64[C]: the scores of forced tokens, now that those before them have been fed."""
        settled = np.zeros(len(begin))
        waiting = [
            (text, place, at + place - first - 1)
            for text, (first, last, at) in enumerate(
                zip(taken.first.tolist(), taken.texts.trail.tolist(), begin.tolist(), strict=True)
            )
            for place in range(first + 1, last + 1)
            if place in self._due
        ]
        if not waiting:
            return settled
        owner, places, hidden = (np.array(column, np.int64) for column in zip(*waiting, strict=True))
        edges, forced = zip(*(self._due.pop(place) for place in places.tolist()), strict=True)
        length = taken.texts.length[owner] - (taken.texts.trail[owner] - places) - 1
        score = edge_scores(self.decoder, self.hidden, hidden, length, edges, self.normalize)
        offset = np.cumsum([0] + [len(one.token) for one in edges[:-1]])
        for place, worth in zip(places.tolist(), score[offset + np.array(forced)].tolist(), strict=True):
            self._score[place] = worth
        np.add.at(settled, owner, score[offset + np.array(forced)])
        return settled

    def _tidied(self, texts: Texts) -> Int64Array:
        """int64[C]: the slots of the texts, once states with many given-up tokens are rid of them."""
        slot = texts.slot.copy()
        for b in np.unique(texts.request).tolist():
            parents, base = self._parents[b], self._base[b]
            if len(parents) < self._tidy_at[b]:
                continue
            mine = np.flatnonzero(texts.request == b)
            live: set[int] = set()
            for one in slot[mine].tolist():
                while one >= base and one not in live:
                    live.add(one)
                    one = parents[one - base]
            if len(parents) > 2 * len(live):
                kept = sorted(live)
                self.states[b].compact(np.array([*range(base), *kept], np.int64))
                number = {old: base + new for new, old in enumerate(kept)}
                self._parents[b] = [
                    number.get(parents[old - base], parents[old - base]) for old in kept
                ]  # slots before `base` keep their names
                slot[mine] = [number.get(one, one) for one in slot[mine].tolist()]
            self._tidy_at[b] = len(self._parents[b]) + _TIDY_EVERY
        return slot
