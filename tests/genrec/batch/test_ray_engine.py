"""Batches on a Ray cluster of three nodes, one of which goes away in the middle: the same file, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.batch.job import ShardAnswer, run_batch
from genrec.batch.local_engine import LocalEngine
from genrec.batch.ray_engine import RayEngine
from genrec.batch.shard_answers import AnswerPlan
from genrec.batch.users_file import UsersFile, open_users
from genrec.decoders.onnx_export import export_bundle
from genrec.wishes import Wishes
from index import ray_encoding
from index.ray_encoding import RayEncoding
from index.text_encoders import TfidfSvdEncoder
from tests.genrec.onnx_models import native_bundle
from tests.toy import ITEMS, toy_index

pytestmark = [
    pytest.mark.slow,  # three nodes take half a minute to come up
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
    ),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WISHES = Wishes(k=5, beam=8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, logging_level="error")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = native_bundle(tmp_path_factory.mktemp("ray") / "bundle", toy_index())
    export_bundle(path)
    return path


@dataclass
class LosingANode:
    """A Ray engine whose cluster loses a working node after a few shards."""

    cluster: Any
    after: int

    def run(self, plan: AnswerPlan, users: UsersFile, shards: list[int]) -> Iterator[ShardAnswer]:
        for count, one in enumerate(RayEngine().run(plan, users, shards), 1):
            yield one
            if count == self.after:
                self.cluster.remove_node(sorted(self.cluster.worker_nodes, key=id)[0])


def test_a_removed_node_costs_time_only(cluster, bundle, tmp_path):
    path = tmp_path / "users.txt"
    path.write_text("\n".join(f"u{n} i{n % ITEMS} i{n * 7 % ITEMS}" for n in range(600)))
    users = open_users(path, 10)
    local = run_batch(bundle, users, tmp_path / "local.parquet", WISHES, LocalEngine(2), batch_users=4)
    engine = LosingANode(cluster, after=5)
    ray = run_batch(bundle, users, tmp_path / "ray.parquet", WISHES, engine, batch_users=4)
    assert local.users == ray.users == 600
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "local.parquet").read_bytes()
    assert len(cluster.worker_nodes) == 1


def test_text_vectors_of_a_cluster_are_those_of_one_machine(cluster, monkeypatch):
    texts = [f"the {'very ' * (n % 9)}old film number {n}" for n in range(300)]
    encoder = TfidfSvdEncoder.fit(texts, dimension=16)
    monkeypatch.setattr(ray_encoding, "SHARD_TEXTS", 64)
    vectors = RayEncoding(workers=2)(encoder, texts, lambda done, total: None)
    np.testing.assert_array_equal(vectors, encoder.encode(texts))
