"""Prior: what is known of every item beside the model (popularity, a BM25 score, a click rate), and its weight.

``mixture``
    The prior is a distribution over items (the vector, normalised). At every node the probability of a child
    is (1 - weight) * the model's + weight * the child's share of the prior mass below the node, so that
    probabilities still sum to one over the catalog. Prefix sums answer for any node in O(1). Below a node
    without prior mass the model decides alone.
``additive``
    An item is worth its log-probability plus weight * vector. A prefix is worth at most its score plus the
    best such term of any allowed item below it, so beams and certificates stay sound.

Items are named by rank; :meth:`Prior.of_rows` takes a vector in catalog order. It knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np

from index.errors import RequestError
from index.trie import TokenTrie
from index.types import Float64Array, FloatArray, Int64Array, IntArray

PriorKind: TypeAlias = Literal["mixture", "additive"]

CANDIDATES = (
    50  # one call; lifts recall@10 of beam 20 from .75 to 1 under a mixture of weight .9 (benchmarks/LOG.md)
)


@dataclass(frozen=True, eq=False)
class Prior:
    """A vector over item ranks and how it acts. Make one per vector and share it between requests.

    Raises:
        RequestError: the vector is no finite vector, a mixture's has a negative value or no positive one, or
            the weight is not in [0, 1) for a mixture, or not finite.
    """

    vector: Float64Array  # [N] by item rank
    weight: float
    kind: PriorKind = "mixture"
    candidates: int = CANDIDATES
    """So many of the prior's best allowed items are scored exactly beside the beam, in one call: what a
    strong prior loves and a beam would not find."""
    item_at_rank: IntArray | None = None
    """[N] catalog row at each rank, where the prior was made from rows: then it serves any trie of the catalog."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", np.asarray(self.vector, np.float64))
        _check(self)

    def over(self, trie: TokenTrie) -> Prior:
        """The same prior by the ranks of a trie: codes and titles put the items in different orders.

        One that was made from ranks is by the ranks of the trie it is used with, and comes back as it is.

        Raises:
            RequestError: it was made for another catalog.
        """
        order = self.item_at_rank
        if order is trie.item_at_rank or order is None:
            return self
        if len(order) != len(trie):
            raise RequestError(f"expected one prior value per item, {len(trie)}, got {len(order)}")
        kept = self._by_order.get(id(trie.item_at_rank))
        if kept is None:
            by_row = np.empty(len(order))
            by_row[order] = self.vector
            kept = Prior.of_rows(trie, by_row, self.weight, self.kind, candidates=self.candidates)
            self._by_order[id(trie.item_at_rank)] = kept
        return kept

    @cached_property
    def _by_order(self) -> dict[int, Prior]:
        """What :meth:`over` has made, by the id of a trie's order; each holds that, so that no other takes its id."""
        return {}

    @classmethod
    def of_rows(
        cls,
        trie: TokenTrie,
        vector: FloatArray,
        weight: float,
        kind: PriorKind = "mixture",
        *,
        candidates: int = CANDIDATES,
    ) -> Prior:
        """From float[N] in the order of catalog rows."""
        if np.shape(vector) != (len(trie),):
            raise RequestError(f"expected one prior value per item, [{len(trie)}], got {np.shape(vector)}")
        by_rank = np.asarray(vector, np.float64)[trie.item_at_rank]
        return cls(by_rank, weight, kind, candidates, trie.item_at_rank)

    @cached_property
    def mass(self) -> Float64Array:
        """float64[N + 1]: sum of the vector below each rank."""
        result = np.zeros(len(self.vector) + 1)
        np.cumsum(self.vector, out=result[1:])
        return result

    @cached_property
    def bonus(self) -> Float64Array:
        """float64[N]: what an additive prior gives each item."""
        return self.weight * self.vector

    def mixed(
        self, log_probability: Float64Array, row: Int64Array, start: Int64Array, end: Int64Array
    ) -> Float64Array:
        """float64[E]: log-probabilities of children after mixing.

        Children of one parent have equal ``row`` (non-decreasing), stand together, and split its ranks into
        their ranges ``start .. end - 1``. ``log_probability`` sums to one over each parent.
        """
        if not len(row):
            return log_probability
        first = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
        last = np.append(first[1:], len(row)) - 1
        count = last - first + 1
        below_parent = np.repeat(self.mass[end[last]] - self.mass[start[first]], count)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_share = np.log((self.mass[end] - self.mass[start]) / below_parent)
            mixed = np.logaddexp(log_probability + np.log1p(-self.weight), log_share + np.log(self.weight))
        return np.where(below_parent > 0, np.minimum(mixed, 0.0), log_probability)


def best_in_ranges(vector: Float64Array, start: Int64Array, end: Int64Array) -> Float64Array:
    """float64[E]: the largest value at ranks ``start .. end - 1`` of each range; no range is empty."""
    if not len(start):
        return np.zeros(0)
    padded = np.append(vector, -np.inf)  # reduceat takes no index behind the last
    edges = np.stack([start, end], axis=1).ravel()
    return np.asarray(np.maximum.reduceat(padded, edges)[::2])


def _check(prior: Prior) -> None:
    if prior.kind not in get_args(PriorKind):
        raise RequestError(f"expected a prior of kind mixture or additive, got {prior.kind!r}")
    vector, weight = prior.vector, prior.weight
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise RequestError(
            f"expected a prior of finite values, [N], got {vector.shape} with "
            f"{int((~np.isfinite(vector)).sum())} values that are not finite"
        )
    if not np.isfinite(weight):
        raise RequestError(f"expected a finite prior weight, got {weight}")
    if prior.candidates < 0:
        raise RequestError(f"expected candidates >= 0, got {prior.candidates}")
    if prior.kind == "mixture":
        if not 0 <= weight < 1:
            raise RequestError(
                f"expected a mixture weight in [0, 1), got {weight}; to rank by the prior alone, sort by it"
            )
        if len(vector) and (vector.min() < 0 or vector.max() <= 0):
            raise RequestError("expected a mixture prior >= 0 with at least one value above 0, got another")
