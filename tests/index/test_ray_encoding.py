"""Text vectors from a cluster are those of one machine. The cluster itself: tests/genrec/batch/test_ray_engine.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from index import ray_encoding
from index.errors import MissingDependencyError
from index.ray_encoding import RayEncoding
from index.text_encoders import TfidfSvdEncoder

TEXTS = [f"{'word ' * (n % 7)}item {n % 13} of {n}" for n in range(50)]


class Counting:
    """A text's vector says who its batch mates were: equal only where batches are."""

    name, dimension = "counting", 2

    def encode(self, texts: Sequence[str], progress: Any = None) -> np.ndarray:
        vectors = np.zeros((len(texts), 2), np.float32)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), 4):
            rows = order[start : start + 4]
            vectors[rows] = [[len(texts[row]), sum(len(texts[mate]) for mate in rows)] for row in rows]
        return vectors


@pytest.fixture
def shuffled(monkeypatch) -> None:
    """A cluster without Ray: shards come back in another order."""

    @contextmanager
    def cluster(address: str | None, kept: str) -> Iterator[str]:
        yield "data"

    def shards(data, rows, worker, arguments, most):
        answer = worker(*arguments)
        for row in reversed(rows):
            columns = answer({name: [value] for name, value in row.items()})
            yield {name: values[0] for name, values in columns.items()}

    monkeypatch.setattr(ray_encoding, "ray_cluster", cluster)
    monkeypatch.setattr(ray_encoding, "map_shards", shards)
    monkeypatch.setattr(ray_encoding, "SHARD_TEXTS", 12)


@pytest.mark.parametrize(
    "encoder", [Counting(), TfidfSvdEncoder.fit(TEXTS, dimension=8)], ids=lambda one: one.name
)
def test_every_text_meets_the_batch_mates_it_would_meet_here(shuffled, encoder):
    done: list[tuple[int, int]] = []
    vectors = RayEncoding(workers=2)(encoder, TEXTS, lambda count, total: done.append((count, total)))
    np.testing.assert_array_equal(vectors, encoder.encode(TEXTS))
    assert done[-1] == (50, 50)
    assert sorted(done) == done


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'genrec\[ray\]'"):
        RayEncoding()(Counting(), TEXTS, lambda done, total: None)
