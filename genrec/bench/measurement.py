"""One measured call: CPU time beside wall time, peak memory, a fixed number of threads, medians with quartiles.

It knows the process it runs in; it does not know what the call does.
"""

from __future__ import annotations

import gc
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Run(Generic[Result]):
    """One call: what it gave and what it took."""

    result: Result
    cpu: float  # seconds of processor time of this process: what a busy neighbour hardly touches
    wall: float  # seconds
    peak_mb: float | None  # MiB above what was held before the call; None where the system does not say


def run(call: Callable[[], Result]) -> Run[Result]:
    """Call once and measure. The collector is off meanwhile: its pauses would fall on whoever comes next."""
    gc.collect()
    with no_collector():
        held = start_of_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return Run(result, cpu, wall, peak_above(held))


@contextmanager
def no_collector() -> Iterator[None]:
    """The garbage collector is off inside, and afterwards as it was."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def one_thread() -> Iterator[None]:
    """Every matrix library in this process on one thread."""
    with threads(1):
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Every matrix library that is loaded in this process on so many threads; a missing torch is not missed."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else count
    try:
        if torch:
            torch.set_num_threads(count)
        with threadpool_limits(count):
            yield
    finally:
        if torch:
            torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of some numbers."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Of at least one number."""
        low, median, high = np.percentile(values, (25, 50, 75))
        return Spread(float(median), float(low), float(high), len(values))

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """``median (low–high)``."""
        numbers = [f"{value * scale:.{digits}f}" for value in (self.median, self.low, self.high)]
        return f"{numbers[0]} ({numbers[1]}–{numbers[2]})"


def start_of_peak() -> float | None:
    """Forget this process's peak memory so far; MiB held now, or None where the system does not say (not Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_mb("VmRSS")
    except OSError:
        return None


def peak_above(held: float | None) -> float | None:
    """MiB of the peak since :func:`start_of_peak` above what was held then."""
    return None if held is None else max(0.0, _status_mb("VmHWM") - held)


def _status_mb(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return float(found[1]) / 1024 if found else np.nan
