"""Timing several callables against each other: interleaved rounds, one thread, wall and CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

ROUND_SECONDS = 0.004  # calls are repeated until a round lasts so long: far above the clock's resolution


@dataclass(frozen=True)
class Timing:
    """Seconds per call, one value per round."""

    wall: np.ndarray  # [rounds]
    cpu: np.ndarray  # [rounds]

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.wall + other.wall, self.cpu + other.cpu)

    @property
    def ms(self) -> float:
        """Median wall time."""
        return float(np.median(self.wall)) * 1e3

    def summary(self) -> dict[str, float]:
        """Milliseconds, for JSON."""
        return {
            "median_ms": round(self.ms, 5),
            "min_ms": round(float(self.wall.min()) * 1e3, 5),
            "max_ms": round(float(self.wall.max()) * 1e3, 5),
            "cpu_median_ms": round(float(np.median(self.cpu)) * 1e3, 5),
        }


def ratio(peer: Timing | None, ours: Timing) -> dict[str, float] | None:
    """How many times ours the peer takes, round by round: median, least and most by CPU time, median by wall time.

    On one thread the two are the same, except that a busy neighbour hardly touches CPU time.
    """
    if peer is None:
        return None
    each = peer.cpu / ours.cpu
    return {
        "median": round(float(np.median(each)), 2),
        "min": round(float(each.min()), 2),
        "max": round(float(each.max()), 2),
        "wall": round(float(np.median(peer.wall / ours.wall)), 2),
    }


def race(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every callable once per round, so that whatever disturbs the machine disturbs all of them."""
    repeats = {}
    for name, call in calls.items():
        call()  # compiles, fills caches
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, int(ROUND_SECONDS / max(time.perf_counter() - begin, 1e-7)))
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times = range(repeats[name])
            cpu_begin, begin = time.process_time(), time.perf_counter()
            for _ in times:
                call()
            wall[name].append((time.perf_counter() - begin) / len(times))
            cpu[name].append((time.process_time() - cpu_begin) / len(times))
    return {name: Timing(np.array(wall[name]), np.array(cpu[name])) for name in calls}
