"""The highest rate a service sustains: a search over offered rates, each tried for long enough. Knows no HTTP."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from genrec.bench.load_report import LoadReport
from index.errors import RequestError

SHARE = 0.99
"""p99 within the limit says: so many of the requests sent were answered within it. Refused ones were not."""


def most_late(requests: int, *, doubtful: bool = False, share: float = SHARE) -> int:
    """How many late requests a trial may have to be taken for one with its percentile within the limit.

    Args:
        requests: sent.
        doubtful: as many as do not disprove it (one-sided, 95 %: at the true share so many or more are late in
            more than one of twenty trials) instead of as many as the share itself allows. With few requests
            that is kind to the service tried.
        share: answered in time.
    """
    if not doubtful:
        return math.floor((1 - share) * requests + 1e-9)
    late, at_least = 0, 1.0  # P(late or more)
    while True:
        exactly = math.comb(requests, late) * (1 - share) ** late * share ** (requests - late)
        if at_least - exactly <= 0.05:
            return late
        at_least -= exactly
        late += 1


@dataclass(frozen=True, slots=True)
class Trial:
    """One offered rate, and whether the service sustained it."""

    rate: float  # requests a second
    sustained: bool
    report: LoadReport


@dataclass(frozen=True, slots=True)
class Goodput:
    """What the search found."""

    best: Trial | None  # the highest rate sustained; None where not even the lowest was
    refused: float | None  # the lowest rate tried above it that was not sustained
    trials: tuple[Trial, ...]  # by rate


async def search_goodput(
    attempt: Callable[[float], Awaitable[Trial]],
    start: float,
    *,
    step: float = 1.25,
    closer: float = 1.1,
    most_trials: int = 40,
    known: Sequence[Trial] = (),
) -> Goodput:
    """Try rates until the highest sustained one and the lowest other are within a factor of ``closer``.

    Args:
        attempt: tries a rate.
        start: where to begin; better a little too low.
        step: factor by which to climb (or descend) until both a sustained and another rate are known.
        closer: when to stop; at least the noise of a trial.
        most_trials: stop after so many new ones in any case; what was refused may then be far above the best, or
            unknown.
        known: trials that were made already; the search goes on from them, and ``start`` is not tried.

    Raises:
        RequestError: factors that do not lead anywhere.
    """
    if not (start > 0 and step > 1 and closer > 1):
        raise RequestError(
            f"expected a start above 0, step and closer above 1, got {start}, {step}, {closer}"
        )
    trials = list(known) if known else [await attempt(start)]
    while len(trials) - len(known) < most_trials:
        good = max((one.rate for one in trials if one.sustained), default=None)
        bad = min((one.rate for one in trials if not one.sustained and one.rate > (good or 0)), default=None)
        if good is not None and bad is not None:
            if bad / good <= closer:
                break
            rate = math.sqrt(good * bad)
        elif good is not None:
            rate = good * step
        else:
            assert bad is not None
            rate = bad / step
            if rate < start / 100:
                break
        trials.append(await attempt(rate))
    best = max((one for one in trials if one.sustained), key=lambda one: one.rate, default=None)
    above = [one.rate for one in trials if not one.sustained and (best is None or one.rate > best.rate)]
    return Goodput(best, min(above, default=None), tuple(sorted(trials, key=lambda one: one.rate)))
