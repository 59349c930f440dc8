"""Text vectors of a large catalog on a Ray cluster: those one machine computes.

An encoder sorts texts by length and takes them in batches. Shards are whole runs of those batches, so every text
meets the same batch mates wherever it is encoded, and vectors are equal to the bit on machines of one kind (where a
model's sums do not depend on its number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from index.ray_cluster import cluster_cpus, map_shards, ray_cluster
from index.text_encoders import BATCH, Progress, TextEncoder
from index.types import Float32Array

SHARD_TEXTS = 64 * BATCH  # some half a minute of one core with MiniLM


@dataclass(frozen=True, slots=True)
class RayEncoding:
    """Implements :data:`index.build.Encode` on a cluster.

    Raises:
        MissingDependencyError: Ray is not installed.
        BatchError: the cluster gave up.
    """

    address: str | None = None
    """Of a running cluster, ``auto`` or ``ray://…``; None starts one on this machine."""
    workers: int | None = None
    """Actors that hold a model each; None takes as many as the cluster has CPUs."""

    def __call__(self, encoder: TextEncoder, texts: Sequence[str], progress: Progress) -> Float32Array:
        """float32[N, dimension], as ``encoder.encode(texts)``."""
        vectors = np.zeros((len(texts), encoder.dimension), np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        runs = [order[start : start + SHARD_TEXTS] for start in range(0, len(texts), SHARD_TEXTS)]
        shards = [
            {"run": number, "texts": [texts[row] for row in rows.tolist()]}
            for number, rows in enumerate(runs)
        ]
        # Without the model it may have loaded: each worker loads its own.
        light = replace(encoder) if is_dataclass(encoder) else encoder
        done = 0
        with ray_cluster(self.address, "no vectors are kept: run it again") as data:
            most = self.workers or cluster_cpus()
            for row in map_shards(data, shards, _Encoder, (light,), most):
                rows = runs[int(row["run"])]
                vectors[rows] = np.frombuffer(row["vectors"], np.float32).reshape(len(rows), -1)
                done += len(rows)
                progress(done, len(texts))
        return vectors


class _Encoder:
    """An encoder on its node."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        return {
            "run": [int(one) for one in batch["run"]],
            "vectors": [self._encoder.encode([str(t) for t in texts]).tobytes() for texts in batch["texts"]],
        }
