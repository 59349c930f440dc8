"""Is an exported model the model? Two decoders of one contract, fed the same prompts and trees, logit by logit.

The cases are those that exports get wrong: prompts of several lengths padded into one batch, requests with
different numbers of rows, forks at several depths, chains within a call, and prompts begun from a kept state.
Nothing here knows torch or onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.decoders.base import Decoder, Prompt, ReusesPrompts
from genrec.search import Normalize, SearchRequest, search
from index.errors import DecoderError
from index.trie import TokenTrie
from index.types import Float64Array, Int64Array

TOLERANCE = 1e-4
"""Largest difference of a logit allowed, as a share of the largest logit (at least 1)."""

_ROWS = (3, 0, 7, 1, 5)  # rows a request grows by in a call, request by request, in turn
_MOST_TOKENS = 2_000  # tokens compared per row: all of a small vocabulary, a random part of a large one
_OVERLAP_BATCH = 25


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference found."""

    share: float  # of the largest logit; infinite where something is no number
    case: str  # where
    logits: int  # compared

    def told_of(self, task: str) -> Difference:
        """The same, saying which task it was found in."""
        return Difference(self.share, f"{task}: {self.case}", self.logits)

    def worse(self, other: Difference) -> Difference:
        """The worse of two, over the logits of both."""
        worst = self if self.share >= other.share else other
        return Difference(worst.share, worst.case, self.logits + other.logits)


@dataclass(frozen=True, slots=True)
class CheckCases:
    """What to feed."""

    prompts: tuple[Prompt, ...]  # one batch, of several lengths
    longer: tuple[Prompt, ...]  # the same prompts, gone on with
    lengths: tuple[int, ...]  # of ``prompts``, for the message
    tokens_at: Callable[[int], tuple[int, int]]  # depth -> first token and one past the last
    depth: int  # answer tokens fed, at most


def compare(reference: Decoder, exported: ReusesPrompts, cases: CheckCases, seed: int) -> Difference:
    """The largest difference between two decoders over a batch of prompts, a tree, and kept states."""
    rng = np.random.default_rng(seed)
    size = len(cases.prompts)
    ours, theirs = exported.prefill(cases.prompts), reference.prefill(cases.prompts)
    pair = _Pair(reference, exported, cases, rng)
    worst = pair.compare(theirs.hidden, ours.hidden, np.arange(size), np.zeros(size, np.int64), "the prompt")
    depth: list[list[int]] = [[] for _ in cases.prompts]  # of every slot
    for call in range(cases.depth):
        rows = []
        for b in range(size):
            for _ in range(_ROWS[(b + call) % len(_ROWS)]):
                # The newest slots that may go on, so that trees grow deep; now and then any, so that they fork.
                open_slots = [-1, *(slot for slot, d in enumerate(depth[b]) if d < cases.depth)]
                newest = rng.random() < 0.5
                parent = open_slots[-1] if newest else open_slots[int(rng.integers(len(open_slots)))]
                at = depth[b][parent] if parent >= 0 else 0
                rows.append((b, int(rng.integers(*cases.tokens_at(at))), parent, at + 1))
                depth[b].append(at + 1)
        request, token, parents, behind = np.array(rows, np.int64).reshape(-1, 4).T
        hidden = exported.extend(ours.states, request, token, parents)
        expected = reference.extend(theirs.states, request, token, parents)
        worst = worst.worse(pair.compare(expected, hidden, request, behind, f"step {call + 1}"))
    # Kept states, used after trees have grown on them, for prompts that go on and for the very same prompt.
    for name, prompts in (("a kept prompt gone on with", cases.longer), ("a kept prompt", cases.prompts)):
        hidden = exported.prefill(prompts, ours.states).hidden
        expected = reference.prefill(prompts).hidden
        none = np.zeros(size, np.int64)
        worst = worst.worse(pair.compare(expected, hidden, np.arange(size), none, name))
    return worst


def require_equal(worst: Difference) -> None:
    """Refuse an export that is not the model.

    Raises:
        DecoderError: the difference is above the tolerance, or no number.
    """
    if not worst.share <= TOLERANCE:  # not `>`: it may be no number
        raise DecoderError(
            f"expected the exported model within {TOLERANCE:g} of the model in torch, got {worst.share:.1e} of the "
            f"largest logit at {worst.case}; nothing was written. Run this bundle in torch"
        )


def top_overlap(
    reference: Decoder,
    other: Decoder,
    trie: TokenTrie,
    prompts: Sequence[Prompt],
    *,
    k: int,
    beam: int,
    normalize: Normalize,
) -> float:
    """Mean share of the reference's best k items that the other decoder finds among its best k."""
    shares: list[Float64Array] = []
    for begin in range(0, len(prompts), _OVERLAP_BATCH):
        requests = [
            SearchRequest(prompt, k=k, beam=beam) for prompt in prompts[begin : begin + _OVERLAP_BATCH]
        ]
        found = [search(one, trie, requests, normalize=normalize) for one in (reference, other)]
        shares.extend(
            np.isin(left.ranks, right.ranks).mean()
            for left, right in zip(*found, strict=True)
            if len(left.ranks)
        )
    return float(np.mean(shares))


class _Pair:
    """Compares hidden rows of two decoders through the logits each makes of its own."""

    def __init__(
        self, reference: Decoder, exported: Decoder, cases: CheckCases, rng: np.random.Generator
    ) -> None:
        self._reference, self._exported, self._cases, self._rng = reference, exported, cases, rng

    def compare(
        self, expected: np.ndarray, hidden: np.ndarray, request: Int64Array, depth: Int64Array, where: str
    ) -> Difference:
        worst = Difference(0.0, "nowhere", 0)
        for level in np.unique(depth).tolist():
            if level >= self._cases.depth:
                continue  # behind the last code there is nothing to say
            rows = np.flatnonzero(depth == level)
            first, end = self._cases.tokens_at(level)
            tokens = np.arange(first, end)
            if len(tokens) > _MOST_TOKENS:
                tokens = np.sort(self._rng.choice(tokens, _MOST_TOKENS, replace=False))
            row, token = np.repeat(rows, len(tokens)), np.tile(tokens, len(rows))
            left = self._reference.edge_logits(expected, row, token).reshape(len(rows), -1)
            right = self._exported.edge_logits(hidden, row, token).reshape(len(rows), -1)
            left = np.column_stack([left, self._reference.log_normalizer(expected[rows], depth[rows])])
            right = np.column_stack([right, self._exported.log_normalizer(hidden[rows], depth[rows])])
            with np.errstate(invalid="ignore"):
                apart = np.abs(left - right) / max(1.0, float(np.abs(left).max()))
            apart = np.where(np.isfinite(apart), apart, np.inf)
            place = int(apart.max(1).argmax())
            length = self._cases.lengths[int(request[rows[place]])]
            case = f"{where} (prompt length {length}, answer depth {level})"
            worst = worst.worse(Difference(float(apart[place].max()), case, apart.size))
        return worst
