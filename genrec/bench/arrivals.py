"""When requests are due: planned before the first is sent, so that a slow server cannot slow its own test down.

A load that waits for answers before it asks again (a closed loop) asks less of a server that is slow and hides
what its users would wait. Here every request has its moment, and its time counts from that moment on, whether
the client or the server was the one who was late (Tene, "How not to measure latency", 2015; wrk2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from index.errors import RequestError
from index.types import Float64Array

ArrivalKind: TypeAlias = Literal["poisson", "constant", "gamma"]
"""``poisson``: independent users, exponential gaps; what a service meets. ``constant``: equal gaps; easier on a
server than users are, so a report must say so. ``gamma``: gaps of a gamma distribution; with a shape below 1
requests come in bursts, with 1 it is ``poisson``."""

BURSTY = 0.5
"""Usual shape of ``gamma``: gaps deviate by 1.4 times their mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """The planned moments of n requests."""

    kind: ArrivalKind
    rate: float  # requests a second
    at: Float64Array  # [n] seconds from the start, ascending, the first at 0

    def __len__(self) -> int:
        return len(self.at)


def arrivals(kind: ArrivalKind, rate: float, count: int, seed: int = 0, *, shape: float = BURSTY) -> Arrivals:
    """Plan ``count`` requests at exactly this rate.

    A Poisson plan is one that happened to have so many requests in its time (uniform moments in order): a draw of
    thirty gaps is a fifth faster or slower than its rate, and would try a service at a rate nobody asked for.

    Args:
        kind: how gaps vary.
        rate: requests a second.
        count: requests.
        seed: of the gaps.
        shape: of ``gamma``.

    Raises:
        RequestError: no positive rate or shape, no request, or an unknown kind.
    """
    if not (np.isfinite(rate) and rate > 0) or count < 1:
        raise RequestError(f"expected a rate above 0 and at least one request, got {rate:g} and {count}")
    if kind == "constant":
        gaps = np.full(count - 1, 1 / rate)
    elif kind == "poisson":
        gaps = np.random.default_rng(seed).exponential(1 / rate, count - 1)
    elif kind == "gamma":
        if not (np.isfinite(shape) and shape > 0):
            raise RequestError(f"expected a shape of arrivals above 0, got {shape:g}")
        gaps = np.random.default_rng(seed).gamma(shape, 1 / (rate * shape), count - 1)
    else:
        raise RequestError(f"expected arrivals 'poisson', 'constant' or 'gamma', got {kind!r}")
    at = np.concatenate([[0.0], np.cumsum(gaps)])
    return Arrivals(kind, rate, at if count == 1 else at * ((count - 1) / rate / at[-1]))
