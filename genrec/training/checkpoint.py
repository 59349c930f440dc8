"""A training run on disk: one safetensors file, replaced atomically, with the numbers in its header as JSON.

One file, so there is no moment at which weights and step disagree. No pickle. It knows no model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from index.errors import TrainingError
from index.types import Float32Array, IntArray

HEADER = "genrec_checkpoint"
_DIGEST = "sha256:"
NUMBERS = ("origin", "step", "epoch", "batch", "seconds", "validation_seconds", "validations", "best")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped."""

    origin: dict[str, Any]
    """What the run was started with (:func:`origin_of`): a checkpoint fits only its own run."""
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


def origin_of(*settings: Any, **data: Sequence[IntArray | Float32Array]) -> dict[str, Any]:
    """What decides the course of a run: the fields of dataclasses, which share no name, and digests of data."""
    values = {name: value for one in settings for name, value in asdict(one).items()}
    values |= {name.replace("_", " "): _digest(arrays) for name, arrays in data.items()}
    read_back: dict[str, Any] = json.loads(json.dumps(values))  # as a checkpoint gives it: tuples are lists
    return read_back


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Where two origins differ, each in words; digests say nothing to a person and are left out."""
    found = []
    for name in dict.fromkeys((*stored, *given)):
        one, other = stored.get(name), given.get(name)
        if one != other:
            is_digest = isinstance(one, str) and one.startswith(_DIGEST)
            found.append(
                f"other {name}" if is_digest else f"{name} {_shown(other)} where it has {_shown(one)}"
            )
    return found


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
            if set(numbers) != set(NUMBERS):
                raise KeyError(*(set(numbers) ^ set(NUMBERS)))
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


def _digest(arrays: Sequence[IntArray | Float32Array]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return _DIGEST + digest.hexdigest()


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _sync(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
