"""What every benchmark shares: one thread, CPU time beside wall time, the machine in words, tables and JSON.

A benchmark opens with its question, runs its peers in the same process on the same inputs, interleaved, so
that a busy neighbour slows both; it reports medians with quartiles and ends in one line of JSON.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

Result = TypeVar("Result")

_PACKAGES = ("numpy", "torch", "transformers", "numba")


@dataclass(frozen=True, slots=True)
class Run(Generic[Result]):
    """One call: what it gave and what it took."""

    result: Result
    cpu: float  # seconds of processor time of this process: what a busy neighbour hardly touches
    wall: float  # seconds
    peak_mb: float | None  # memory above what was held before the call; None where the system does not say


def run(call: Callable[[], Result]) -> Run[Result]:
    """Call once and measure. The collector is off meanwhile: its pauses would fall on whoever comes next."""
    gc.collect()
    gc.disable()
    held = _start_of_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = None if held is None else max(0.0, (_status_kb("VmHWM") - held) / 1024)
    gc.enable()
    return Run(result, cpu, wall, peak)


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Every matrix library in this process on one thread."""
    import threadpoolctl  # type: ignore[import-untyped]
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def matrix_throughput(rows: int = 256, inner: int = 256, columns: int = 768) -> float:
    """GFLOP/s of one float32 matrix product in torch, the best of 30: the roof under which a model runs."""
    import torch

    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    best = np.inf
    for _ in range(30):
        start = time.process_time()
        for _ in range(20):
            torch.nn.functional.linear(left, right)
        best = min(best, (time.process_time() - start) / 20)
    return 2 * rows * inner * columns / best / 1e9


def machine() -> dict[str, str | int | float]:
    """Hardware, load and versions, for the head of a report."""
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "memory_gb": round(memory),
        "system": platform.system(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **versions,
    }


def machine_line(described: dict[str, str | int | float]) -> str:
    """:func:`machine` as one line, with a warning where others were at work."""
    line = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in described.items())
    busy = float(described["load_average"]) > float(described["cores"])
    return line + (" (busy: read CPU times and ratios, not wall times)" if busy else "")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with its first column left-aligned and the others right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def last_line(report: dict[str, Any]) -> str:
    """The report as one line of JSON; what is no number becomes null."""
    return json.dumps(report, default=_plain, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected plain numbers, texts and lists in a report, got {type(value).__name__}")


def _cpu_name() -> str:
    """From the kernel where it says; ``platform.processor`` is often empty."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _start_of_peak() -> float | None:
    """Reset this process's peak memory (Linux only); KiB held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status_kb("VmRSS")
    except OSError:
        return None


def _status_kb(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return float(found[1]) if found else np.nan
