"""Batches and recall: what is counted is what the recommender does. No speed is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genrec.bench.machine import Company, CompanyWatch
from genrec.bench.offline import BatchTimes, OfflineSettings, measure_offline
from genrec.bench.recall_front import measure_recall
from genrec.bench.request_histories import held_out, random_items
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes
from index.errors import HistoryError, RequestError
from index.histories import Histories, leave_one_out
from tests.fake_decoder import FakeDecoder
from tests.toy import ITEMS, toy_histories, toy_index

INDEX = toy_index()
VOCABULARY = sum(INDEX.level_sizes)


def test_every_batch_size_answers_every_user():
    settings = OfflineSettings(k=3, beam=4, batches=(1, 2, 4), groups=3)
    decoder = FakeDecoder(VOCABULARY)
    histories = random_items(ITEMS, settings.users, np.random.default_rng(0))
    report = measure_offline(INDEX, decoder, TaskDefaults(beam=9), histories, settings)
    assert (report.users, report.beam) == (12, 4)
    assert [one.batch for one in report.results] == [1, 2, 4]
    for one in report.results:
        assert one.wall.shape == one.cpu.shape == (3,)
        told = json.loads(json.dumps(one.as_json(), allow_nan=False))
        low, high = told["users_per_second_95"]
        assert low <= told["users_per_second"] <= high
        assert sum(told["phases_cpu_ms"].values()) == pytest.approx(told["cpu_ms"], abs=2e-2)
        assert set(told["phases_cpu_ms"]) == {"prefill", "model", "head", "search"}
    # Searched together a batch takes about as many model calls as one request alone.
    warm_up, whole = 3, decoder.calls
    assert whole < 4 * 3 * 3 * 4 + warm_up * 4


def test_users_a_second_are_users_over_time():
    times = BatchTimes(4, np.array([0.01, 0.03]), np.array([0.01, 0.01]), {}, None)
    rate = times.users_per_second()
    assert rate.value == pytest.approx(50)  # of 0.04 s for two users, whatever the groups' own rates are
    assert rate.low == pytest.approx(1 / 0.03)
    assert rate.high == pytest.approx(1 / 0.01)


def test_batches_that_make_no_sense_are_refused():
    with pytest.raises(RequestError, match="above 0"):
        OfflineSettings(batches=())
    with pytest.raises(RequestError, match="above 0"):
        OfflineSettings(batches=(0, 2))
    settings = OfflineSettings(batches=(2,), groups=3)
    few = random_items(ITEMS, 5, np.random.default_rng(0))
    with pytest.raises(RequestError, match="expected 6 histories for 3 groups of 2, got 5"):
        measure_offline(INDEX, FakeDecoder(VOCABULARY), TaskDefaults(), few, settings)


def test_recall_is_that_of_the_recommender_at_every_width():
    cases = leave_one_out(toy_histories(), "test")
    recommender = Recommender(INDEX, FakeDecoder(VOCABULARY), TaskDefaults())
    found = measure_recall(recommender, cases, (2, 5, 40, 5), k=5)
    assert [one.beam for one in found] == [5, 40]  # 2 is below k
    for one in found:
        hits = 0
        for case in range(len(cases)):
            (result,) = recommender.search_rows([cases.history_of(case)], Wishes(k=5, beam=one.beam))
            hits += int(cases.target[case]) in recommender.rows_of(result).tolist()
        assert one.recall == pytest.approx(hits / len(cases))
        assert one.recall_95[0] <= one.recall <= one.recall_95[1]
        assert one.gain_95[0] <= found[-1].recall - one.recall <= one.gain_95[1]
    assert found[-1].gain_95 == (0.0, 0.0)


def test_held_out_users_come_with_what_came_next():
    cases = leave_one_out(toy_histories(), "test")
    asked = held_out(cases, 30, np.random.default_rng(0))
    assert asked.targets is not None
    known = {tuple(cases.history_of(case).tolist()): int(cases.target[case]) for case in range(len(cases))}
    for rows, target in zip(asked.rows, asked.targets.tolist(), strict=True):
        assert known[tuple(rows.tolist())] == target
    assert "repetition" not in asked.source
    assert "repetition" in held_out(cases, 500, np.random.default_rng(0)).source
    nobody = Histories(["u"], np.array([0, 1]), np.zeros(1, np.int32))
    with pytest.raises(HistoryError, match="an event to hold out"):
        held_out(leave_one_out(nobody, "test"), 3, np.random.default_rng(0))


def test_company_is_what_the_system_counted_beside_this_process(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    used = [0.0]
    monkeypatch.setattr("genrec.bench.machine._own_seconds", lambda: used[0])
    now = [100.0]
    monkeypatch.setattr("genrec.bench.machine.time.monotonic", lambda: now[0])
    hertz = __import__("os").sysconf("SC_CLK_TCK")

    def write(user: float, idle: float, steal: float) -> None:
        ticks = [int(one * hertz) for one in (user, 0, 0, idle, 0, 0, 0, steal, 0, 0)]
        stat.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")

    write(50, 500, 1)
    watch = CompanyWatch(stat)
    write(50 + 12, 500 + 6, 1 + 2)  # of two cores for ten seconds: twelve at work, six idle, two stolen
    used[0], now[0] = 7.0, 110.0
    company = watch.company()
    assert (company.seconds, company.own_cores) == (10.0, 0.7)
    assert company.other_cores == pytest.approx(0.5)
    assert company.steal == pytest.approx(0.1)
    assert company.is_crowded
    assert company.as_json()["crowded"] is True
    assert not Company(10, 1.0, 0.02, 0.0, 1.0).is_crowded


def test_a_system_that_does_not_count_says_so():
    company = CompanyWatch(Path("/nowhere/stat")).company()
    assert company.other_cores is None
    assert company.steal is None
    assert not company.is_crowded
