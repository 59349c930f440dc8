"""The contract of the fused step: what one decision of a search asks for, and what comes back.

One call takes R prefixes of B requests and the model's logits, and returns each request's best children: their
scores, without those the request's filter leaves empty, items that ended apart from prefixes that go on, and
the bound a certificate needs. Two kernels do this with equal results: :mod:`genrec.kernels.numpy_step` is the
one to read, :mod:`genrec.kernels.numba_step` the one to run. They know the trie's arrays and ranks; they know
no model, no prompt and no item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from index.item_filter import Allowed
from index.types import BoolArray, Float32Array, Float64Array, Int64Array
from index.walk import Places


@dataclass(frozen=True, slots=True)
class StepRules:
    """What stays the same over all steps of B requests."""

    beam: Int64Array  # [B] prefixes to keep at most; a number above all edges keeps every one
    items: Int64Array  # [B] ended paths wanted: those that cannot be among so many best items are dropped
    allowed: Sequence[Allowed]  # B of them
    look_ahead: BoolArray
    """[B] choose prefixes by score plus log(allowed items below / items below); scores and bound stay pure."""
    catalog: bool
    """Normalise over the children in the trie, and end a path where it is unique (the rest of it has
    probability one). Otherwise the caller brings the normaliser, and a path ends with its last token."""


@dataclass(frozen=True, slots=True)
class Edges:
    """The E edges below R prefixes, row by row, children in token order."""

    row: Int64Array  # [E]
    token: Int64Array  # [E]


# Not frozen: setting six slots through object.__setattr__ would be a tenth of a whole step.
@dataclass(slots=True)
class StepResult:
    """The C chosen children: first the prefixes that go on, then the paths that ended.

    Both parts are in the order of their edges (row, then token), so requests stay in order.
    """

    row: Int64Array  # [C] the prefix each is a child of
    node: Int64Array  # [C]
    end: Int64Array  # [C] one past the last rank below
    score: Float64Array  # [C] log-probability of the path, ended or not
    prefixes: int  # how many of the C go on
    bound: Float64Array  # [B] best score of a prefix that holds allowed items and was not kept; -inf if none


class StepKernel(Protocol):
    """A trie and a batch's rules, ready to step."""

    def edges(self, node: Int64Array) -> Edges:
        """The edges below int[R] nodes, for decoders that compute only the logits asked for."""

    def step(
        self,
        request: Int64Array,
        places: Places,
        score: Float64Array,
        logits: Float32Array,
        normalizer: Float32Array | None = None,
    ) -> StepResult:
        """Expand, score, filter and choose.

        A step's log-probability is at most 0, so scores fall along a path. Ties go to the earlier edge; where
        several paths end with the score that is just enough, all of them come back.

        Args:
            request: int64[R], non-decreasing.
            places: R places of the trie.
            score: float64[R], log-probabilities of the prefixes.
            logits: float32[R, V], one per token of the vocabulary, or float32[E], one per edge of
                :meth:`edges`. Finite; -inf is allowed where a row has another logit.
            normalizer: float32[R], subtracted from the logits; None where they are log-probabilities.
                Unused under catalog normalisation.
        """
