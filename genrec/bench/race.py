"""Timing several callables against each other: interleaved rounds, wall and CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from index.types import Float64Array

ROUND_SECONDS = 0.004  # calls are repeated until a round lasts so long: far above the clock's resolution


@dataclass(frozen=True, slots=True, eq=False)
class Timing:
    """Seconds per call, one value per round."""

    wall: Float64Array  # [rounds]
    cpu: Float64Array  # [rounds]

    def __add__(self, other: Timing) -> Timing:
        return Timing(self.wall + other.wall, self.cpu + other.cpu)

    @property
    def us(self) -> float:
        """Median CPU time of a call in microseconds; on one thread a quiet machine's wall time."""
        return float(np.median(self.cpu)) * 1e6

    def as_json(self) -> dict[str, float]:
        """Microseconds: median, least and most by CPU time, median by wall time."""
        return {
            "cpu_median_us": round(self.us, 3),
            "cpu_min_us": round(float(self.cpu.min()) * 1e6, 3),
            "cpu_max_us": round(float(self.cpu.max()) * 1e6, 3),
            "wall_median_us": round(float(np.median(self.wall)) * 1e6, 3),
        }


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times ours a peer takes, round by round."""

    median: float  # by CPU time
    low: float  # the least
    high: float  # the most
    wall: float  # median by wall time

    @staticmethod
    def of(peer: Timing, ours: Timing) -> Ratio:
        """Of two that raced each other."""
        each = peer.cpu / ours.cpu
        wall = float(np.median(peer.wall / ours.wall))
        return Ratio(float(np.median(each)), float(each.min()), float(each.max()), wall)

    def as_json(self) -> dict[str, float]:
        """Rounded."""
        return {
            "median": round(self.median, 4),
            "min": round(self.low, 4),
            "max": round(self.high, 4),
            "wall": round(self.wall, 4),
        }


def race(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every callable once per round, so that whatever disturbs the machine disturbs all of them."""
    repeats = {}
    for name, call in calls.items():
        call()  # compiles, fills caches
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, int(ROUND_SECONDS / max(time.perf_counter() - begin, 1e-7)))
    wall, cpu = ({name: np.zeros(rounds) for name in calls} for _ in range(2))
    for number in range(rounds):
        for name, call in calls.items():
            times = range(repeats[name])
            cpu_begin, begin = time.process_time(), time.perf_counter()
            for _ in times:
                call()
            wall[name][number] = (time.perf_counter() - begin) / len(times)
            cpu[name][number] = (time.process_time() - cpu_begin) / len(times)
    return {name: Timing(wall[name], cpu[name]) for name in calls}
