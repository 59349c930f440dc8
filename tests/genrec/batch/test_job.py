"""A batch job answers every user exactly once, in order, whatever happens to it on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]  # ships no types

from genrec.batch.job import ShardAnswer, run_batch
from genrec.batch.local_engine import LocalEngine
from genrec.batch.shard_answers import SCHEMA, AnswerPlan, ShardAnswerer
from genrec.batch.users_file import UsersFile, open_users
from genrec.decoders.onnx_export import export_bundle
from genrec.prior import Prior
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.errors import BatchError, FilterError
from tests.genrec.onnx_models import native_bundle
from tests.toy import ITEMS, toy_index

USERS = {f"u{n}": [f"i{(n + step) % ITEMS}" for step in range(n % 5)] for n in range(23)} | {"x": ["nowhere"]}
WISHES = Wishes(k=3, beam=4, where="year >= 1990")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = native_bundle(tmp_path_factory.mktemp("batch") / "bundle", toy_index())
    export_bundle(path)
    return path


@pytest.fixture
def users(tmp_path) -> UsersFile:
    return open_users(write_users(tmp_path / "users.txt"), 5)


def write_users(path: Path) -> Path:
    path.write_text("\n".join(" ".join([user, *items]) for user, items in USERS.items()))
    return path


class Killed(Exception):
    """What a test's engine dies of."""


_OPENED: dict[str, ShardAnswerer] = {}


def opened(name: str, plan: AnswerPlan) -> ShardAnswerer:
    if name not in _OPENED:
        _OPENED[name] = ShardAnswerer(plan)
    return _OPENED[name]


@dataclass
class Engine:
    """Answers shards here, in an order of its own, some twice, and dies when told to."""

    order: list[int] | None = None
    dies_after: int = 10**9
    answered: list[int] = field(default_factory=list)

    def run(self, plan: AnswerPlan, users: UsersFile, shards: list[int]) -> Iterator[ShardAnswer]:
        answerer = opened(repr(plan), plan)
        for shard in self.order if self.order is not None else shards:
            if len(self.answered) == self.dies_after:
                raise Killed
            self.answered.append(shard)
            yield ShardAnswer(shard, answerer.answer(users.read(shard)))


def test_the_output_is_what_recommend_says(bundle, users, tmp_path):
    result = run_batch(bundle, users, tmp_path / "recs.parquet", WISHES, Engine(), batch_users=3)
    table = pl.read_parquet(tmp_path / "recs.parquet")
    assert table.schema == SCHEMA
    assert (result.users, result.resumed) == (len(USERS), 0)
    assert table["user_id"].to_list() == list(USERS)
    recommender = Recommender.load(bundle)
    for row, history in zip(table.iter_rows(named=True), USERS.values(), strict=True):
        answer = recommender.recommend_batch([history], WISHES)[0]
        assert row["item_ids"] == [item.item_id for item in answer.items]
        assert row["scores"] == pytest.approx([item.score for item in answer.items], abs=1e-5)
        assert row["certified"] == answer.certified
        assert row["unknown"] == len(answer.unknown_ids)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["recs.parquet", "users.txt"]


def test_matrices_are_multiplied_by_one_thread(bundle, users, tmp_path, monkeypatch):
    """By several they add up in another order, and engines that start their workers differently would differ."""
    used = []
    searched = Recommender.search_rows

    def search_rows(self, rows, wishes):
        used.append({one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"})
        return searched(self, rows, wishes)

    monkeypatch.setattr(Recommender, "search_rows", search_rows)
    with threadpool_limits(2):
        run_batch(bundle, users, tmp_path / "recs.parquet", WISHES, Engine(), batch_users=3)
    assert len(used) > 2
    assert used[1:] == [{1}] * (len(used) - 1)  # the first looks whether the wishes make sense


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_killed_and_resumed_is_the_same_to_the_bit(bundle, tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("killed")
    users = open_users(write_users(tmp_path / "users.txt"), data.draw(st.integers(1, 9), "shard size"))
    run_batch(bundle, users, tmp_path / "whole.parquet", WISHES, Engine(), batch_users=4)
    out, seen = tmp_path / "recs.parquet", []
    while not out.exists():
        engine = Engine(dies_after=data.draw(st.integers(1, users.shards), "shards before the kill"))
        resume = bool(seen)
        try:
            run_batch(bundle, users, out, WISHES, engine, batch_users=4, resume=resume)
        except Killed:
            assert not out.exists()
        seen.append(engine)
    answered = [shard for engine in seen for shard in engine.answered]
    assert sorted(answered) == list(range(users.shards))  # none twice, though it began again and again
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_shard_answered_twice_counts_once(bundle, users, tmp_path):
    twice = Engine(order=[4, 4, 2, 0, 1, 2, 3])
    run_batch(bundle, users, tmp_path / "twice.parquet", WISHES, twice, batch_users=4)
    run_batch(bundle, users, tmp_path / "once.parquet", WISHES, Engine(), batch_users=4)
    assert (tmp_path / "twice.parquet").read_bytes() == (tmp_path / "once.parquet").read_bytes()


def test_a_shard_that_never_comes_is_an_error_not_a_short_file(bundle, users, tmp_path):
    with pytest.raises(BatchError, match=r"answers for 24 users, got 10 from 2 of 5 shards"):
        run_batch(bundle, users, tmp_path / "recs.parquet", WISHES, Engine(order=[0, 3]))
    assert not (tmp_path / "recs.parquet").exists()


def test_unfinished_work_is_neither_lost_nor_mixed(bundle, users, tmp_path):
    out = tmp_path / "recs.parquet"
    with pytest.raises(Killed):
        run_batch(bundle, users, out, WISHES, Engine(dies_after=2))
    with pytest.raises(BatchError, match="--resume goes on with it"):
        run_batch(bundle, users, out, WISHES, Engine())
    with pytest.raises(BatchError, match="got another wishes"):
        run_batch(bundle, users, out, Wishes(k=4), Engine(), resume=True)
    other = open_users(tmp_path / "users.txt", 7)
    with pytest.raises(BatchError, match="got another reading, shards"):
        run_batch(bundle, other, out, WISHES, Engine(), resume=True)
    again = Engine()
    run_batch(bundle, users, out, Wishes(k=4), again, restart=True)
    assert again.answered == [0, 1, 2, 3, 4]


def test_what_cannot_be_is_refused_before_any_work(bundle, users, tmp_path):
    out = tmp_path / "recs.parquet"
    engine = Engine()
    with pytest.raises(FilterError):
        run_batch(bundle, users, out, Wishes(where="colour == 'red'"), engine)
    prior = Prior.of_rows(Recommender.load(bundle).index.trie, np.ones(ITEMS), 0.5)
    with pytest.raises(BatchError, match="without a prior"):
        run_batch(bundle, users, out, Wishes(prior=prior), engine)
    out.write_text("mine")
    with pytest.raises(BatchError, match="pass --overwrite"):
        run_batch(bundle, users, out, WISHES, engine)
    assert not engine.answered
    assert out.read_text() == "mine"


def test_a_foreign_directory_is_left_alone(bundle, users, tmp_path):
    parts = tmp_path / "recs.parquet.parts"
    parts.mkdir()
    (parts / "thesis.txt").write_text("mine")
    with pytest.raises(BatchError, match="found other files in it"):
        run_batch(bundle, users, tmp_path / "recs.parquet", WISHES, Engine())
    assert (parts / "thesis.txt").read_text() == "mine"


def test_processes_write_what_one_process_writes_and_a_kill_costs_nothing(bundle, users, tmp_path):
    """The command itself, killed with -9 once its first shard is there; its workers must end with it."""
    whole = tmp_path / "whole.parquet"
    run_batch(bundle, users, whole, WISHES, Engine(), batch_users=4)
    out = tmp_path / "recs.parquet"
    command = [
        sys.executable, "-c", "from genrec.cli.main import main; main()", "batch", str(bundle),
        "--input", str(tmp_path / "users.txt"), "--out", str(out), "--workers", "1", "-k", "3", "--beam", "4",
        "--where", "year >= 1990", "--shard-users", "5", "--batch-users", "4",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = tmp_path / "recs.parquet.parts"
    deadline = time.monotonic() + 120
    while not list(parts.glob("part-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert parts.is_dir()
    run_batch(bundle, users, out, WISHES, LocalEngine(2), batch_users=4, resume=True)
    assert out.read_bytes() == whole.read_bytes()
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, workers))


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return status != "Z"  # nobody may be there to reap it
