"""Blend: a few items' shares of another distribution, mixed with the model's item by item.

An item is worth ``(1 - weight) * model + weight * share``: probabilities still sum to one over the catalog, and no
prefix has to be looked at twice. Below a prefix the model's part falls along the path as ever, and the other part is
known beforehand: the ``ahead`` best allowed shares are scored exactly before the first step, what is left of them
tops every item that a search has not found by one number. So a search walks as it does without a blend, with the
model's scores lowered by log(1 - weight); its bounds and floors are moved by that one number.

A mixture :class:`~genrec.prior.Prior` mixes at every node instead: there an item with one improbable code is lost,
however sure the prior is of it. This module knows ranks and shares, no history and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from index.errors import RequestError
from index.item_filter import Allowed
from index.types import BoolArray, Float64Array, Int64Array

AHEAD = 64
"""Items scored before the first step. With them and what a beam of 50 finds, the ten best of 200 of 200 histories of
Amazon Beauty are those of scoring all 12,101 items."""


@dataclass(frozen=True, eq=False)
class Blend:
    """A distribution over some items of a trie, and its weight against the model.

    Raises:
        RequestError: ranks and shares do not fit together, a rank is below 0, shares are no part of a distribution,
            or the weight is not in [0, 1).
    """

    ranks: Int64Array  # [S] ascending
    shares: Float64Array  # [S] above 0; their sum is 1 or less
    weight: float
    ahead: int = AHEAD

    def __post_init__(self) -> None:
        _check(self)

    @property
    def model_part(self) -> float:
        """log(1 - weight): what every score of the model is lowered by."""
        return float(np.log1p(-self.weight))

    def of_items(self, score: Float64Array, rank: Int64Array) -> Float64Array:
        """float64[M]: items' log-probabilities; ``score`` is the model's, lowered already."""
        if not len(self.ranks):
            return score
        place = np.minimum(np.searchsorted(self.ranks, rank), len(self.ranks) - 1)
        share = np.where(self.ranks[place] == rank, self.shares[place], 0.0)
        return self._with(score, share)

    def of_ranges(self, score: Float64Array, start: Int64Array, end: Int64Array) -> Float64Array:
        """float64[E]: log-probabilities of all items at ranks ``start .. end - 1`` together."""
        mass = self._mass[np.searchsorted(self.ranks, end)] - self._mass[np.searchsorted(self.ranks, start)]
        return self._with(score, mass)

    def first(self, allowed: Allowed, most: int) -> FirstItems:
        """Which items to score before the first step: the best ``most`` allowed ones by share."""
        ranks = self.ranks
        may = np.ones(len(ranks), bool) if allowed.bitmap is None else allowed.bitmap.contains(ranks)
        may &= ~_among(ranks, allowed.excluded)
        places = np.flatnonzero(may)
        best = places[np.argsort(-self.shares[places], kind="stable")]
        left = self.shares[best[most]] if len(best) > most else 0.0
        with np.errstate(divide="ignore"):
            return FirstItems(np.sort(ranks[best[:most]]), float(np.log(self.weight * left)))

    @cached_property
    def _mass(self) -> Float64Array:
        """float64[S + 1]: sum of the shares below each place."""
        return np.concatenate([[0.0], np.cumsum(self.shares)])

    def _with(self, score: Float64Array, share: Float64Array) -> Float64Array:
        with np.errstate(divide="ignore"):
            return np.minimum(np.logaddexp(score, np.log(self.weight * share)), 0.0)


@dataclass(frozen=True, slots=True)
class FirstItems:
    """What a blend settles before a search begins."""

    ranks: Int64Array  # ascending: to be scored exactly
    rest: float
    """log of the most that shares give to any other allowed item; -inf where they give none."""

    def on_top(self, bound: float) -> float:
        """What an item that is not found yet may be worth where the model's part of it is at most ``bound``."""
        return bound if bound == -np.inf else float(np.logaddexp(bound, self.rest))

    def floor_of(self, floor: float) -> float:
        """The least the model's part must be for an item to reach ``floor`` after all."""
        if self.rest >= floor:
            return -np.inf
        return floor + float(np.log1p(-np.exp(self.rest - floor)))


def _among(ranks: Int64Array, some: Int64Array) -> BoolArray:
    """bool[S]: which ranks are among others that are sorted."""
    if not len(some):
        return np.zeros(len(ranks), bool)
    place = np.minimum(np.searchsorted(some, ranks), len(some) - 1)
    return np.asarray(some[place] == ranks, bool)


def _check(blend: Blend) -> None:
    ranks, shares = blend.ranks, blend.shares
    if ranks.ndim != 1 or ranks.shape != shares.shape or (np.diff(ranks) <= 0).any():
        raise RequestError(
            f"expected ascending ranks with a share each, got {ranks.shape} and {shares.shape}; sort them"
        )
    if len(ranks) and ranks[0] < 0:
        raise RequestError(
            f"expected ranks >= 0, got {ranks[0]}; they are places in the order of token paths"
        )
    # Sums of a few hundred shares are off by far less.
    if not (np.isfinite(shares).all() and (shares > 0).all() and shares.sum() <= 1 + 1e-9):
        raise RequestError(
            f"expected shares above 0 that sum to at most 1, got a sum of {shares.sum():.6g}; normalise them"
        )
    if not 0 <= blend.weight < 1:
        raise RequestError(f"expected a weight in [0, 1), got {blend.weight}; 0 leaves the model alone")
    if blend.ahead < 0:
        raise RequestError(f"expected ahead >= 0, got {blend.ahead}")
