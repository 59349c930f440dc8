"""The machine a measurement was made on: hardware, load, versions, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping

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
