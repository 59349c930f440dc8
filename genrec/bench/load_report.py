"""What a load run says: percentiles with intervals, goodput under a limit, rates, refusals, the client's share.

Intervals come from a bootstrap of blocks (:mod:`genrec.bench.bootstrap`). Requests that wait in one queue wait
together: an interval that takes them for independent is too narrow. Knows numbers, no server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genrec.bench.bootstrap import block_draws
from genrec.bench.load import LoadRun, Outcome
from genrec.bench.percentiles import Percentile, samples_for
from index.types import Float64Array

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
_Z95 = 1.96  # standard normal, 95 % two-sided


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A load run in numbers; times in milliseconds."""

    loop: str  # "poisson", "constant", or "closed, 8 in flight"
    requests: int  # planned
    sent: int
    answered: int
    shed: int
    timed_out: int
    failed: int
    planned_rate: float | None  # requests a second asked for; None in a closed loop
    achieved_rate: float  # answers a second, from the first planned moment to the last end
    slo_ms: float | None
    within: float | None  # share of the requests sent that were answered within the limit
    within_95: tuple[float, float] | None  # Wilson's interval of it
    goodput: float | None  # answers within the limit a second
    latency_ms: Mapping[str, Percentile | None]  # of those answered, from the planned moment; None is refused
    longest_ms: float | None
    send_lag_ms: float  # the client's own: 99 of 100 requests were sent this soon after their moment
    client_cpu_ms: float  # processor time of the client per request
    client_busy: float  # share of one core the client used
    connections: int
    stopped_early: bool

    @staticmethod
    def of(run: LoadRun, slo_ms: float | None = None, seed: int = 0) -> LoadReport:
        """Sum a run up; ``slo_ms`` is the latency that makes an answer a good one."""
        latency = 1000 * run.latency
        answered = latency[np.isfinite(latency)]
        sent = int((run.outcome != Outcome.UNSENT).sum())
        lag = run.sent - run.planned
        good = None if slo_ms is None else int((answered <= slo_ms).sum())
        wall = max(run.wall, 1e-9)
        return LoadReport(
            loop=f"closed, {run.in_flight} in flight" if run.kind == "closed" else run.kind,
            requests=len(run),
            sent=sent,
            answered=len(answered),
            shed=run.count(Outcome.SHED),
            timed_out=run.count(Outcome.TIMED_OUT),
            failed=run.count(Outcome.FAILED),
            planned_rate=run.rate,
            achieved_rate=len(answered) / wall,
            slo_ms=slo_ms,
            within=None if good is None else good / max(sent, 1),
            within_95=None if good is None else share_interval(good, sent),
            goodput=None if good is None else good / wall,
            latency_ms=latency_percentiles(answered, seed=seed),
            longest_ms=float(answered.max()) if len(answered) else None,
            send_lag_ms=1000 * float(np.nanquantile(lag, 0.99)) if sent else 0.0,
            client_cpu_ms=1000 * run.client_cpu / max(sent, 1),
            client_busy=run.client_cpu / wall,
            connections=run.connections,
            stopped_early=run.stopped_early,
        )

    def as_json(self, digits: int = 4) -> dict[str, Any]:
        """Rounded; a refused percentile is null."""
        return {name: _rounded(value, digits) for name, value in asdict(self).items()}


def latency_percentiles(
    values: Float64Array, shares: Sequence[float] = SHARES, seed: int = 0
) -> dict[str, Percentile | None]:
    """The percentiles of a run's latencies (float64[n], in the order of their planned moments), named p50, p99.

    None where the sample cannot support one (:func:`genrec.bench.percentiles.samples_for`).
    """
    found: dict[str, Percentile | None] = {f"p{100 * share:g}": None for share in shares}
    supported = [share for share in shares if len(values) and len(values) >= samples_for(share)]
    if not supported:
        return found
    drawn = np.array([np.quantile(values[rows], supported) for rows in block_draws(len(values), seed)])
    for column, share in enumerate(supported):
        low, high = np.quantile(drawn[:, column], (0.025, 0.975))
        found[f"p{100 * share:g}"] = Percentile(float(np.quantile(values, share)), float(low), float(high))
    return found


def share_interval(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), sound near 0 and 1 and for few trials; (0, 1) for none."""
    if not trials:
        return 0.0, 1.0
    share, z2 = hits / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = _Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, Mapping):
        return {name: _rounded(one, digits) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_rounded(one, digits) for one in value]
    return value
