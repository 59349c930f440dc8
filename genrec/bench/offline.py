"""How many users a second a bundle answers on this machine when nobody waits: searches in batches of several sizes.

All batch sizes take turns on the same group of users, in an order that rotates, so that what disturbs the machine
disturbs all of them; a group is one sample. Latency of one request is another question: :mod:`genrec.bench.decode`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.bench.bootstrap import resampled_means
from genrec.bench.decode import PHASES, Phase, Progress
from genrec.bench.measurement import no_collector, peak_above, start_of_peak
from genrec.bench.percentiles import Percentile
from genrec.bench.request_histories import RequestHistories
from genrec.bench.timed_decoder import DECODER_PHASES, TimedDecoder
from genrec.decoders.base import Decoder
from genrec.history_prior import HistoryPrior
from genrec.modes import codes_mode
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes
from index.errors import RequestError
from index.item_index import SEMANTIC_ID, ItemIndex
from index.types import Float64Array


@dataclass(frozen=True, slots=True)
class OfflineSettings:
    """What to measure."""

    k: int = 10
    beam: int | None = None  # the bundle's own where None
    batches: tuple[int, ...] = (1, 8, 32, 64)  # requests searched together
    groups: int = 10  # samples; each is as many users as the largest batch
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what measures nothing.

        Raises:
            RequestError: no batch size, one below 1, or no group.
        """
        if not self.batches or min(self.batches) < 1 or self.groups < 1:
            raise RequestError(
                f"expected batch sizes and groups above 0, got {self.batches} and {self.groups}"
            )

    @property
    def users(self) -> int:
        """Histories the measurement needs."""
        return max(self.batches) * self.groups


@dataclass(frozen=True, eq=False)
class BatchTimes:
    """One batch size over all groups. Seconds a user."""

    batch: int
    wall: Float64Array  # [G]
    cpu: Float64Array  # [G]
    phases: Mapping[Phase, float]  # CPU seconds a user, mean
    peak_mb: float | None  # above what the process held before

    def users_per_second(self, seed: int = 0) -> Percentile:
        """Users over seconds of all groups, with a bootstrap interval over the groups."""
        low, high = np.quantile(resampled_means(self.wall, seed), (0.025, 0.975))
        return Percentile(float(1 / self.wall.mean()), float(1 / high), float(1 / low))

    def as_json(self, seed: int = 0) -> dict[str, Any]:
        """For a report; times are milliseconds a user."""
        rate = self.users_per_second(seed)
        assert rate.low is not None
        assert rate.high is not None
        return {
            "name": f"batch {self.batch}",
            "batch": self.batch,
            "users_per_second": round(rate.value, 3),
            "users_per_second_95": [round(rate.low, 3), round(rate.high, 3)],
            "wall_ms": round(1e3 * float(self.wall.mean()), 4),
            "cpu_ms": round(1e3 * float(self.cpu.mean()), 4),
            "phases_cpu_ms": {name: round(1e3 * value, 4) for name, value in self.phases.items()},
            "peak_mb": None if self.peak_mb is None else round(self.peak_mb, 2),
            "samples": {
                "wall_ms": [round(1e3 * one, 4) for one in self.wall.tolist()],
                "cpu_ms": [round(1e3 * one, 4) for one in self.cpu.tolist()],
            },
        }


@dataclass(frozen=True, eq=False)
class OfflineReport:
    """All batch sizes over the same users."""

    source: str  # what the histories are
    users: int  # that every batch size answered
    beam: int
    results: Sequence[BatchTimes]


def measure_offline(
    index: ItemIndex,
    decoder: Decoder,
    defaults: TaskDefaults,
    histories: RequestHistories,
    settings: OfflineSettings,
    progress: Progress = lambda _stage, _done, _total: None,
    prior: HistoryPrior | None = None,
) -> OfflineReport:
    """Answer every user once with every batch size, with the prior that the bundle's answers have.

    Raises:
        RequestError: fewer histories than ``settings.users``.
    """
    if len(histories.rows) < settings.users:
        raise RequestError(
            f"expected {settings.users} histories for {settings.groups} groups of {max(settings.batches)}, "
            f"got {len(histories.rows)}"
        )
    timed = TimedDecoder(decoder)
    recommender = Recommender(index, modes={SEMANTIC_ID: codes_mode(index, timed, defaults, prior)})
    wishes = Wishes(k=settings.k, beam=settings.beam)
    group = max(settings.batches)
    wall, cpu = (np.zeros((len(settings.batches), settings.groups)) for _ in range(2))
    inside = np.zeros(
        (len(settings.batches), len(DECODER_PHASES) + 1)
    )  # CPU seconds; the last: search and rest
    peaks: list[float | None] = [None] * len(settings.batches)
    for place, batch in enumerate(settings.batches):
        progress("compile and warm up", place, len(settings.batches))
        recommender.search_rows(histories.rows[:batch], wishes)
    for number in range(settings.groups):
        progress("groups of users", number, settings.groups)
        users = histories.rows[number * group : (number + 1) * group]
        for turn in range(len(settings.batches)):
            place = (turn + number) % len(settings.batches)
            batch = settings.batches[place]
            timed.restart()
            held = start_of_peak() if number == 0 else None
            with no_collector():
                begin, begin_cpu = time.perf_counter(), time.process_time()
                for start in range(0, group, batch):
                    results = recommender.search_rows(users[start : start + batch], wishes)
                    for one in results:
                        _ = [index.catalog.item_ids[row] for row in recommender.rows_of(one).tolist()]
                    timed.forget_states()
                spent_cpu, spent = time.process_time() - begin_cpu, time.perf_counter() - begin
            wall[place, number], cpu[place, number] = spent / group, spent_cpu / group
            by_phase = [timed.spent[phase].cpu for phase in DECODER_PHASES]
            inside[place] += [*by_phase, max(0.0, spent_cpu - sum(by_phase))]
            if number == 0:
                peaks[place] = peak_above(held)
    progress("groups of users", settings.groups, settings.groups)
    names: tuple[Phase, ...] = (*DECODER_PHASES, "search")  # seen items and ids are in it: 1 % of it
    assert set(names) <= set(PHASES)
    means = [dict(zip(names, one, strict=True)) for one in (inside / settings.users).tolist()]
    times = [
        BatchTimes(batch, wall[place], cpu[place], means[place], peaks[place])
        for place, batch in enumerate(settings.batches)
    ]
    beam = max(settings.beam or defaults.beam, settings.k)
    return OfflineReport(histories.source, settings.users, beam, times)
