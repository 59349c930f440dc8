"""What the benchmarks stand on: percentiles, the timed decoder, histories, reports. No speed is asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import Spread, no_collector, peak_above, run, start_of_peak, threads
from genrec.bench.percentiles import Summary, percentile, samples_for
from genrec.bench.race import Ratio, Timing, race
from genrec.bench.report import last_line, markdown_table
from genrec.bench.request_histories import RANDOM_LENGTH, random_items, resampled
from genrec.bench.stands import stands
from genrec.bench.step_peers import DictTrie
from genrec.bench.timed_decoder import TimedDecoder
from genrec.search import SearchRequest, search
from index.errors import HistoryError
from index.histories import Histories
from index.item_filter import Allowed
from index.trie import build_trie
from tests.fake_decoder import FakeDecoder, item_prompt
from tests.toy import ITEMS, toy_histories

PATHS = np.array([[a, 4 + b, 8 + c] for a in range(4) for b in range(3) for c in range(2)])


def test_a_tail_percentile_needs_ten_samples_beyond_it():
    assert [samples_for(share) for share in (0.5, 0.9, 0.95, 0.99, 0.999)] == [1, 100, 200, 1000, 10_000]
    assert percentile(np.arange(199), 0.95) is None
    assert percentile(np.arange(200), 0.95) is not None
    assert Summary.of([3.0]).as_json() == {
        "count": 1, "mean": 3.0, "median": 3.0, "median_95": [None, None], "p95": None, "p95_95": None,
    }  # fmt: skip


def test_percentile_intervals_can_be_counted_by_eye():
    """Of 1 .. 100 the median's interval is the 40th to the 61st number: 50 ∓ 1.96 · 5 = 40.2 and 59.8."""
    median = percentile(np.arange(100, 0, -1), 0.5)
    assert (median.value, median.low, median.high) == (50.5, 40, 61)


def test_percentile_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    for share in (0.5, 0.95):
        truth = -np.log(1 - share)  # of the exponential distribution
        held = [
            one.low <= truth <= one.high
            for one in (percentile(rng.exponential(size=400), share) for _ in range(500))
        ]
        assert 0.92 <= np.mean(held) <= 0.99  # 0.95 and some, for order statistics are whole numbers


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_a_summary_lies_within_its_sample(values):
    summary = Summary.of(values)
    assert min(values) <= summary.median.value <= max(values)
    assert (summary.p95 is None) == (len(values) < 200)
    if summary.p95 is not None:
        assert summary.median.value <= summary.p95.value
    if summary.median.low is not None and summary.median.high is not None:
        assert summary.median.low <= summary.median.value <= summary.median.high


@pytest.mark.parametrize("normalize", ["catalog", "vocabulary"])
def test_a_timed_decoder_changes_no_answer_and_counts_every_call(normalize):
    trie = build_trie(PATHS)
    requests = [SearchRequest(prompt=item_prompt(row), k=5, beam=3) for row in range(3)]
    timed = TimedDecoder(FakeDecoder(10))
    ours = search(timed, trie, requests, normalize=normalize)
    plain = search(FakeDecoder(10), trie, requests, normalize=normalize)
    for one, other in zip(ours, plain, strict=True):
        assert one.ranks.tolist() == other.ranks.tolist()
        assert one.scores.tolist() == other.scores.tolist()
    spent = timed.spent
    assert spent["prefill"].calls == 1
    assert spent["prefill"].calls + spent["model"].calls == ours[0].model_calls
    assert spent["head"].calls >= ours[0].model_calls
    assert all(one.wall > 0 for one in spent.values())
    assert timed.state_bytes > 0
    timed.restart()
    assert timed.state_bytes == 0
    assert all(one.calls == 0 and one.wall == 0 for one in timed.spent.values())


def test_resampled_histories_are_users_of_the_file():
    histories = toy_histories()
    asked = resampled(histories, 50, np.random.default_rng(0))
    known = {tuple(histories.events(user).tolist()) for user in range(len(histories))}
    assert all(tuple(rows.tolist()) in known for rows in asked.rows)
    assert "50 users of 120" in asked.source
    again = resampled(histories, 500, np.random.default_rng(0))
    assert len(again.rows) == 500
    assert "repetition" in again.source
    nobody = Histories(["u"], np.zeros(2, np.int64), np.zeros(0, np.int32))
    with pytest.raises(HistoryError, match="expected histories with events"):
        resampled(nobody, 3, np.random.default_rng(0))


def test_histories_of_a_length_keep_what_a_user_did_last():
    asked = resampled(toy_histories(), 30, np.random.default_rng(1))
    for items in (1, 3, 20, 61):
        for own, rows in zip(asked.rows, asked.of_length(items, np.random.default_rng(2)), strict=True):
            assert len(rows) == items
            shared = min(items, len(own))
            assert rows[-shared:].tolist() == own[-shared:].tolist()


def test_random_histories_say_that_they_are_random():
    asked = random_items(ITEMS, 9, np.random.default_rng(0))
    assert {len(rows) for rows in asked.rows} == {RANDOM_LENGTH}
    assert 0 <= min(map(min, asked.rows)) <= max(map(max, asked.rows)) < ITEMS
    assert "random items" in asked.source


def test_stands_are_the_prefixes_of_a_search():
    trie = build_trie(PATHS)
    walk = stands(trie, 6, np.random.default_rng(0))
    assert [one.prefix.shape for one in walk] == [(4, 1), (6, 2)]
    assert [one.edges for one in walk] == [12, 12]
    known = DictTrie(PATHS.tolist())
    for one in walk:
        assert sum(len(known.get(prefix)) for prefix in one.prefix.tolist()) == one.edges
        np.testing.assert_allclose(np.exp(one.log_prob).sum(axis=1), 1, rtol=1e-5)
    only_last = np.arange(len(PATHS)) == len(PATHS) - 1
    filtered = stands(trie, 6, np.random.default_rng(0), Allowed.build(only_last))
    assert [one.prefix.tolist() for one in filtered] == [[[3]], [[3, 6]]]


def test_stands_end_where_nothing_is_left_to_decide():
    assert stands(build_trie([[0], [1], [2]]), 5, np.random.default_rng(0)) == []


def test_a_race_times_every_call_in_every_round():
    calls: list[str] = []
    times = race({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)
    assert [len(one.wall) for one in times.values()] == [3, 3]
    assert calls.count("a") >= 5
    assert calls.count("b") >= 5


def test_ratios_are_made_round_by_round():
    peer = Timing(np.array([2.0, 6.0, 8.0]), np.array([3.0, 6.0, 9.0]))
    ours = Timing(np.array([1.0, 2.0, 2.0]), np.array([1.0, 3.0, 1.0]))
    assert Ratio.of(peer, ours) == Ratio(3.0, 2.0, 9.0, 3.0)
    assert (peer + ours).cpu.tolist() == [4.0, 9.0, 10.0]
    assert peer.us == 6e6


def test_a_run_gives_the_result_and_its_cost():
    done = run(lambda: np.ones(4_000_000).sum())
    assert done.result == 4_000_000
    assert done.wall > 0
    assert done.peak_mb is None or done.peak_mb > 20  # 32 MB were made


def test_peak_memory_is_that_since_the_start():
    if start_of_peak() is None:
        pytest.skip("this system does not say")
    np.ones(8_000_000)
    held = start_of_peak()
    assert peak_above(held) < 60  # the 64 MB before count no more


def test_what_measuring_sets_is_set_back():
    import gc

    import torch

    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(3), no_collector():
        assert torch.get_num_threads() == 3
        assert not gc.isenabled()
        raise KeyError
    assert torch.get_num_threads() == before
    assert gc.isenabled()


def test_reports_are_plain_and_finite():
    report = {"numpy": np.float64(0.5), "count": np.int32(3), "ü": None}
    assert json.loads(last_line(report)) == {"numpy": 0.5, "count": 3, "ü": None}
    with pytest.raises(ValueError, match="Out of range"):
        last_line({"x": float("nan")})
    with pytest.raises(TypeError, match="expected plain numbers, texts and lists in a report, got set"):
        last_line({"x": {1}})
    assert markdown_table(["a", "b"], [["x", 1]]) == "| a | b |\n|---|---:|\n| x | 1 |"


def test_the_machine_says_when_it_was_busy():
    described = machine()
    assert {"cpu", "cores", "load_average", "python", "numpy"} <= set(described)
    assert "busy" in machine_line(described | {"load_average": described["cores"] + 1})
    assert "busy" not in machine_line(described | {"load_average": 0.0})


def test_spreads_are_quartiles():
    assert Spread.of([1, 2, 3, 4, 5]).text(10, 0) == "30 (20–40)"
