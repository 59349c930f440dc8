"""A training run on disk: one safetensors file, replaced atomically, with the numbers in its header as JSON.

One file, so there is no moment at which weights and step disagree. No pickle. It knows no model.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from index.errors import TrainingError
from index.types import IntArray

HEADER = "genrec_checkpoint"
NUMBERS = ("fingerprint", "step", "epoch", "batch", "seconds", "validation_seconds", "validations", "best")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped."""

    fingerprint: str
    """Of model config, settings and data: a checkpoint fits only its own run."""
    weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    """Of the best validation so far; empty before the first."""
    optimizer: dict[str, dict[str, Tensor]]
    """Parameter name → AdamW's step and moments."""
    rng: Tensor
    """uint8, torch's generator."""
    step: int
    epoch: int
    batch: int
    """Batches of this epoch already taken."""
    seconds: float
    validation_seconds: float
    validations: list[dict[str, float]]
    best: dict[str, float]


def fingerprint(config: Any, settings: Any, *arrays: IntArray) -> str:
    """sha256 over two dataclasses and any arrays."""
    digest = hashlib.sha256(json.dumps([asdict(config), asdict(settings)], sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write beside, fsync, replace: ``path`` holds the old checkpoint or the new one at any moment."""
    tensors = {"rng": checkpoint.rng}
    tensors |= {f"weights/{name}": value for name, value in checkpoint.weights.items()}
    tensors |= {f"best/{name}": value for name, value in checkpoint.best_weights.items()}
    for name, moments in checkpoint.optimizer.items():
        tensors |= {f"optimizer/{name}/{key}": value for key, value in moments.items()}
    numbers = {key: getattr(checkpoint, key) for key in NUMBERS}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    save_file(contiguous, beside, metadata={HEADER: json.dumps(numbers)})
    _sync(beside)
    beside.replace(path)
    _sync(path.parent)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        TrainingError: the file is not such a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"expected a training checkpoint in {path}, got {error!r}; delete it to train from the start"
        ) from error
    weights: dict[str, Tensor] = {}
    best: dict[str, Tensor] = {}
    optimizer: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "weights":
            weights[rest] = value
        elif kind == "best":
            best[rest] = value
        elif kind == "optimizer":
            parameter, _, key = rest.rpartition("/")
            optimizer.setdefault(parameter, {})[key] = value
    return Checkpoint(weights=weights, best_weights=best, optimizer=optimizer, rng=tensors["rng"], **numbers)


def _sync(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
