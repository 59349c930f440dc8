"""Prefixes: where a search stands, and what it has left out. It knows places and scores, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from index.types import BoolArray, Float64Array, Int64Array, IntArray
from index.walk import Places


@dataclass(frozen=True, slots=True)
class Prefixes:
    """R prefixes known by score but not (yet) taken up: their last token has not been fed."""

    request: Int64Array  # [R] non-decreasing
    places: Places  # [R]
    score: Float64Array  # [R] log-probability of the path so far
    value: Float64Array
    """[R] the most any item below can be worth to its request: what beams choose by and certificates hold
    against. Where a request asks for no more than the model's ranking it is ``score``, the same array."""
    parent: Int64Array  # [R] slot of the token before the last

    def __len__(self) -> int:
        return len(self.request)

    def take(self, index: IntArray | BoolArray | slice) -> Prefixes:
        """The prefixes at ``index``."""
        score = self.score[index]
        value = score if self.value is self.score else self.value[index]
        return Prefixes(self.request[index], self.places.take(index), score, value, self.parent[index])

    def of(self, request: int) -> Prefixes:
        """The prefixes of one request."""
        return self.take(slice(*np.searchsorted(self.request, (request, request + 1))))

    def renumbered(self, number: Int64Array) -> Prefixes:
        """The same prefixes, request b now called ``number[b]``."""
        return replace(self, request=number[self.request])

    def sorted_by_request(self) -> Prefixes:
        """The same prefixes, requests in order, each request's in the order they had."""
        return self.take(np.argsort(self.request, kind="stable"))


def concatenate(parts: Sequence[Prefixes]) -> Prefixes:
    """Prefixes one after another."""
    if not parts:
        nothing = np.zeros(0, np.int64)
        none = np.zeros(0)
        return Prefixes(nothing, Places(nothing, nothing, nothing), none, none, nothing)
    places = [part.places for part in parts]
    score = np.concatenate([part.score for part in parts])
    plain = all(part.value is part.score for part in parts)
    return Prefixes(
        np.concatenate([part.request for part in parts]),
        Places(
            np.concatenate([place.node for place in places]),
            np.concatenate([place.end for place in places]),
            np.concatenate([place.depth for place in places]),
        ),
        score,
        score if plain else np.concatenate([part.value for part in parts]),
        np.concatenate([part.parent for part in parts]),
    )


class OpenPrefixes:
    """What the search has left out: all of it for requests that may come back to it, the best value of it
    for the others."""

    def __init__(self, comes_back: Sequence[bool]) -> None:
        self._bound = np.full(len(comes_back), -np.inf)  # over all that is not kept
        self._kept: dict[int, list[Prefixes]] = {b: [] for b, wanted in enumerate(comes_back) if wanted}
        self._forgets = ~np.asarray(comes_back, bool)

    def add(self, prefixes: Prefixes) -> None:
        """Leave prefixes out; ``request`` is non-decreasing."""
        gone = self._forgets[prefixes.request]
        np.maximum.at(self._bound, prefixes.request[gone], prefixes.value[gone])
        for b in np.unique(prefixes.request[~gone]).tolist():
            self._kept[b].append(prefixes.of(b))

    def add_bound(self, bound: Float64Array) -> None:
        """Leave out what nobody comes back to: float64[B], the best value among it, -inf for none."""
        np.maximum(self._bound, bound, out=self._bound)

    def join(self, other: OpenPrefixes) -> None:
        """Take in what another batch left out; its requests come behind these."""
        number = len(self._bound) + np.arange(len(other._bound))
        self._bound = np.concatenate([self._bound, other._bound])
        self._forgets = np.concatenate([self._forgets, other._forgets])
        for b, parts in other._kept.items():
            self._kept[int(number[b])] = [part.renumbered(number) for part in parts]

    def keep(self, requests: Int64Array) -> None:
        """Forget all requests but these (ascending), which are renumbered from 0."""
        number = np.full(len(self._bound), -1)
        number[requests] = np.arange(len(requests))
        self._bound, self._forgets = self._bound[requests], self._forgets[requests]
        self._kept = {
            int(number[b]): [part.renumbered(number) for part in parts]
            for b, parts in self._kept.items()
            if number[b] >= 0
        }

    def of(self, request: int) -> Prefixes:
        """Everything left out of a request that may come back to it."""
        if len(self._kept[request]) != 1:
            self._kept[request] = [concatenate(self._kept[request])]
        return self._kept[request][0]

    def take_back(self, request: int, index: IntArray) -> Prefixes:
        """Remove the prefixes at ``index`` of :meth:`of` and return them."""
        everything = self.of(request)
        rest = np.ones(len(everything), bool)
        rest[index] = False
        self._kept[request] = [everything.take(rest)]
        return everything.take(index)

    def forget(self, request: int, floor: float) -> None:
        """Keep no prefix below ``floor``, only the best value among them."""
        everything = self.of(request)
        stays = everything.value >= floor
        if stays.all():
            return
        self._bound[request] = max(self._bound[request], everything.value[~stays].max(initial=-np.inf))
        self._kept[request] = [everything.take(stays)]

    def bound(self) -> Float64Array:
        """float64[B]: the best value among all that is left out."""
        bound = self._bound.copy()
        for b in self._kept:
            bound[b] = max(bound[b], self.of(b).value.max(initial=-np.inf))
        return bound


def best_per_request(request: Int64Array, score: Float64Array, limit: Int64Array) -> IntArray:
    """Positions of each request's best ``limit[b]`` rows, ascending; ties go to the earlier row.

    ``request`` is int[R], non-decreasing.
    """
    kept = []
    bounds = np.searchsorted(request, np.arange(len(limit) + 1))
    for low, high, most in zip(bounds[:-1], bounds[1:], limit, strict=True):
        if high - low <= most or most == 0:
            kept.append(np.arange(low, high if most else low))
            continue
        part = score[low:high]
        threshold = np.partition(part, len(part) - most)[len(part) - most]
        above = part > threshold
        ties = np.flatnonzero(part == threshold)[: most - int(above.sum())]
        above[ties] = True
        kept.append(low + np.flatnonzero(above))
    return np.concatenate(kept or [np.zeros(0, np.int64)])
