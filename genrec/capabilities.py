"""What this machine and this installation can do: read from the system, nothing is started or loaded for it.

Every function takes where it looks, so that it can be asked about a machine that is not this one. What is missing is
said with the command that brings it; ``genrec doctor`` prints it.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info  # type: ignore[import-untyped]  # ships no types

from index.bm25.java import MINIMUM, Java, installed_javas

FLAGS = {
    "AVX2": ("avx2",),
    "AVX512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16",),
    "AMX": ("amx_tile",),
    "NEON": ("asimd",),
}
"""Vector instructions by the kernel's names for them. VNNI is what int8 exports are fast by."""
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXTRAS = {
    "train": "training, and running models that are not exported",
    "finetune": "fine-tuning any language model: genrec train --base, --lora",
    "text": "sentence vectors for item text",
    "fast": "the fused search step in machine code",
    "lucene": "BM25 by Lucene",
    "openai": "text from an OpenAI-compatible endpoint",
    "ray": "batches and index builds on a cluster",
    "serve": "the server, and exported models without torch",
    "export": "genrec export",
    "bench": "plots of genrec bench report",
    "dev": "tests and checks",
}
"""What each extra is for; an extra that is not named here is listed without a word."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package an extra asks for."""

    name: str
    wanted: str  # ">=2.6"; empty where any version will do
    version: str | None  # installed; None where it is not

    @property
    def fits(self) -> bool:
        """Whether it is installed in a version that was asked for."""
        return self.version is not None and _satisfies(self.version, self.wanted)


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part of genrec."""

    name: str
    purpose: str
    packages: tuple[Package, ...]

    @property
    def complete(self) -> bool:
        """Whether all its packages fit."""
        return all(one.fits for one in self.packages)

    @property
    def install(self) -> str:
        """The command that completes it."""
        return f"pip install 'genrec[{self.name}]'"


def cores() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_limit(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores a container may use on average (cgroup v2, then v1), or None where nothing limits it."""
    v2 = _words(root / "cpu.max")
    if len(v2) == 2 and v2[0] != "max":
        return int(v2[0]) / int(v2[1])
    quota, period = _words(root / "cpu/cpu.cfs_quota_us"), _words(root / "cpu/cpu.cfs_period_us")
    return int(quota[0]) / int(period[0]) if quota and period and int(quota[0]) > 0 else None


def memory_gb(proc: Path = Path("/proc")) -> dict[str, float]:
    """GiB of memory, in all and available now; empty where the system does not say."""
    found = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", _text(proc / "meminfo"), re.MULTILINE)
    names = {"MemTotal": "total", "MemAvailable": "available"}
    return {names[name]: round(int(kilobytes) / 2**20, 1) for name, kilobytes in found}


def memory_limit_gb(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """GiB a container may use (cgroup v2, then v1), or None where nothing limits it."""
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        words = _words(root / file)
        if words and words[0] != "max" and int(words[0]) < 2**60:  # v1 says "no limit" by a number beyond it
            return round(int(words[0]) / 2**30, 1)
    return None


def cpu_name(proc: Path = Path("/proc")) -> str:
    """From the kernel where it says; ``platform.processor`` is often empty."""
    found = re.search(r"model name\s*: (.+)", _text(proc / "cpuinfo"))
    return found[1] if found else platform.processor() or platform.machine()


def vector_instructions(proc: Path = Path("/proc")) -> list[str]:
    """Those of :data:`FLAGS` that the processor has; they decide how fast the small models run on a CPU."""
    found = re.search(r"^(?:flags|Features)\s*: (.+)$", _text(proc / "cpuinfo"), re.MULTILINE)
    has = set(found[1].split()) if found else set()
    return [name for name, flags in FLAGS.items() if has & set(flags)]


def matrix_libraries(loaded: Callable[[], Sequence[Mapping[str, Any]]] = threadpool_info) -> list[str]:
    """What multiplies matrices in numpy and scipy: ``openblas 0.3.31 (SkylakeX, 2 threads)``."""
    lines = [
        f"{one['internal_api']} {one['version']} ({one.get('architecture') or 'any processor'}, "
        f"threads: {one['num_threads']})"
        for one in loaded()
        if one["user_api"] == "blas"
    ]
    return list(dict.fromkeys(lines))


def chromium(which: Callable[[str], str | None] = shutil.which) -> str | None:
    """Where a Chromium is that browser tests can drive."""
    return next(filter(None, map(which, CHROMIUMS)), None)


def javas() -> list[Java]:
    """Every Java found, the one Lucene would take first."""
    return sorted(installed_javas(), key=lambda java: java.major < MINIMUM)


def extras(
    requires: Iterable[str] | None = None, installed: Callable[[str], str | None] | None = None
) -> list[Extra]:
    """Every extra of genrec with its packages, as the installed metadata names them; none where there is none.

    Args:
        requires: requirements as metadata writes them, ``torch>=2.6; extra == "train"``; genrec's own by default.
        installed: the version of a package, or None.
    """
    version_of = installed or installed_version
    found: dict[str, list[Package]] = {}
    for line in _own_requirements() if requires is None else requires:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", marker)
        name = re.match(r"[\w.-]+", requirement.strip())
        if extra is None or name is None or ("win32" in marker and os.name == "nt"):
            continue
        wanted = requirement.strip()[name.end() :].strip()
        found.setdefault(extra[1], []).append(Package(name[0], wanted, version_of(name[0])))
    return [Extra(name, EXTRAS.get(name, ""), tuple(packages)) for name, packages in found.items()]


def installed_version(package: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _own_requirements() -> list[str]:
    try:
        return distribution("genrec").requires or []
    except PackageNotFoundError:  # run from a source tree that is not installed
        return []


def _satisfies(have: str, wanted: str) -> bool:
    """Whether a version meets ``>=`` and ``==`` bounds, by its leading numbers; other bounds are not looked at."""
    for operator, bound in re.findall(r"(>=|==)\s*([\w.]+)", wanted):
        mine, least = _numbers(have), _numbers(bound)
        if mine < least or (operator == "==" and mine[: len(least)] != least):
            return False
    return True


def _numbers(text: str) -> list[int]:
    release = re.match(r"\d+(?:\.\d+)*", text)
    return [int(part) for part in release[0].split(".")] if release else []


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:  # another system, or a cgroup that is not mounted
        return ""
