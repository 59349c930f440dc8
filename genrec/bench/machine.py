"""The machine a measurement was made on: hardware, versions, how fast it multiplies, and who else was at work.

A neighbour on the same cores, or a hypervisor that gives them to somebody else (steal), makes wall times long: a
report says how much of either there was, so that a reader knows which of its numbers to believe.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.capabilities import cpu_name, installed_version

_PACKAGES = ("numpy", "torch", "transformers", "onnxruntime", "numba")


def machine() -> dict[str, str | int | float]:
    """Hardware, load and versions, for the head of a report."""
    versions = {package: installed_version(package) or "not installed" for package in _PACKAGES}
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **versions,
    }


def machine_line(described: Mapping[str, str | int | float]) -> str:
    """:func:`machine` as one line, with a warning where others were at work."""
    line = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in described.items())
    busy = float(described["load_average"]) > float(described["cores"])
    return line + (" (busy: read CPU times and ratios, not wall times)" if busy else "")


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
    return float(2 * rows * inner * columns / best / 1e9)


@dataclass(frozen=True, slots=True)
class Company:
    """Who was at work while something was measured; cores are means over the time."""

    seconds: float
    own_cores: float  # this process, and those it started that have ended
    other_cores: float | None  # everybody else; None where the system does not say (not Linux)
    steal: float | None  # share of all cores' time that the hypervisor gave away
    load_average: float  # of the last minute, at the end

    @property
    def is_crowded(self) -> bool:
        """Whether wall times are to be read with care: more than a tenth of a core was not ours to use."""
        return (self.other_cores or 0.0) > 0.1 or (self.steal or 0.0) > 0.01

    def as_json(self) -> dict[str, Any]:
        """Rounded."""
        rounded = {name: None if value is None else round(value, 4) for name, value in asdict(self).items()}
        return {**rounded, "crowded": self.is_crowded}


class CompanyWatch:
    """Reads the system's counters now and again when asked."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._start = time.monotonic()
        self._own = _own_seconds()
        self._all = _processor_seconds(stat)

    def company(self) -> Company:
        """Since the watch was made."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        own = _own_seconds() - self._own
        now, before = _processor_seconds(self._stat), self._all
        others = steal = None
        if now is not None and before is not None:
            busy, stolen, whole = (late - early for late, early in zip(now, before, strict=True))
            others, steal = max(0.0, busy - own) / seconds, stolen / max(whole, 1e-9)
        return Company(seconds, own / seconds, others, steal, os.getloadavg()[0])


def _own_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _processor_seconds(stat: Path) -> tuple[float, float, float] | None:
    """Seconds of all cores: at work, given away by the hypervisor, in all; None where the system does not say."""
    try:
        ticks = [int(word) for word in stat.read_text("utf-8").split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    _, _, _, idle, waiting, _, _, steal = ticks  # user, nice, system, idle, iowait, irq, softirq, steal
    whole, second = sum(ticks), os.sysconf("SC_CLK_TCK")
    return (whole - idle - waiting - steal) / second, steal / second, whole / second
