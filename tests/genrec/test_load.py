"""The load generator: planned moments, what became of every request, percentiles and goodput."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.bench.arrivals import arrivals
from genrec.bench.goodput import Trial, most_late, search_goodput
from genrec.bench.http_client import ConnectionFailed, HttpClient
from genrec.bench.load import LoadRun, Outcome, closed_loop, open_loop
from genrec.bench.load_report import LoadReport, latency_percentiles, share_interval
from genrec.bench.percentiles import percentile
from index.errors import RequestError
from tests.genrec.slow_server import ask, slow_server

Result = TypeVar("Result")
OUT_OF_PATIENCE = 30.0  # seconds; tests that reach it have failed


def done(work: Coroutine[Any, Any, Result]) -> Result:
    async def in_time() -> Result:
        async with asyncio.timeout(OUT_OF_PATIENCE):
            return await work

    return asyncio.run(in_time())


# Arrivals


@given(st.floats(0.01, 1000), st.integers(1, 300), st.integers(0, 9))
def test_plans_start_at_once_and_rise(rate: float, count: int, seed: int) -> None:
    for kind in ("poisson", "constant", "gamma"):
        plan = arrivals(kind, rate, count, seed)
        assert len(plan) == count
        assert plan.at[0] == 0
        assert (np.diff(plan.at) >= 0).all()
        assert plan.at[-1] == pytest.approx((count - 1) / rate)


def test_poisson_gaps_are_exponential_and_constant_gaps_are_equal() -> None:
    gaps = np.diff(arrivals("poisson", 50, 20_001, seed=1).at)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.03)  # of an exponential the mean is the deviation
    assert (gaps > 1 / 50).mean() == pytest.approx(math.exp(-1), rel=0.03)
    assert np.diff(arrivals("constant", 50, 100).at) == pytest.approx(1 / 50)


def test_the_same_seed_plans_the_same() -> None:
    assert (arrivals("poisson", 3, 50, seed=4).at == arrivals("poisson", 3, 50, seed=4).at).all()
    assert (arrivals("poisson", 3, 50, seed=4).at != arrivals("poisson", 3, 50, seed=5).at).any()


@pytest.mark.parametrize(("rate", "count"), [(0, 5), (-1, 5), (math.nan, 5), (math.inf, 5), (1, 0)])
def test_no_rate_and_no_requests_are_refused(rate: float, count: int) -> None:
    with pytest.raises(RequestError, match="expected a rate above 0 and at least one request"):
        arrivals("poisson", rate, count)


def test_an_unknown_kind_of_arrivals_is_refused() -> None:
    with pytest.raises(RequestError, match="'poisson', 'constant' or 'gamma', got 'weibull'"):
        arrivals("weibull", 1, 5)  # type: ignore[arg-type]


def test_gamma_gaps_are_as_bursty_as_asked() -> None:
    for shape in (0.25, 1.0, 4.0):
        gaps = np.diff(arrivals("gamma", 50, 20_001, seed=1, shape=shape).at)
        assert gaps.mean() == pytest.approx(1 / 50)
        assert gaps.std() == pytest.approx(1 / 50 / math.sqrt(shape), rel=0.05)
    with pytest.raises(RequestError, match="a shape of arrivals above 0, got 0"):
        arrivals("gamma", 1, 5, shape=0)


# The client


def test_a_connection_is_used_again() -> None:
    async def scene() -> None:
        async with slow_server() as server:
            client = HttpClient(server.url, {"authorization": "Bearer secret"})
            for _ in range(3):
                reply = await client.post(ask())
                assert (reply.status, reply.body) == (200, b"ok")
            await client.close()
            assert server.connections == 1
            assert server.received[0]["first_line"] == "POST /v1/things?x=1 HTTP/1.1"
            assert server.received[0]["authorization"] == "Bearer secret"
            assert server.received[0]["content-type"] == "application/json"

    done(scene())


def test_an_answer_that_comes_byte_by_byte_is_read() -> None:
    async def scene() -> None:
        async with slow_server() as server:
            client = HttpClient(server.url)
            assert (await client.post(ask(status=404, drip=True))).status == 404
            assert (await client.post(ask())).status == 200
            await client.close()
            assert server.connections == 1

    done(scene())


def test_a_server_that_closes_after_its_answer_gets_a_new_connection() -> None:
    async def scene() -> None:
        async with slow_server() as server:
            client = HttpClient(server.url)
            assert (await client.post(ask(way="last"))).body == b"ok"
            assert client.connections == 0
            assert (await client.post(ask())).body == b"ok"
            await client.close()
            assert server.connections == 2

    done(scene())


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("close", "got a closed connection"),
        ("torn", "in the middle of one"),
        ("chunked", "expected an answer with a content-length"),
        ("garbage", "expected an HTTP/1.1 answer, got b'SSH-2.0"),
    ],
)
def test_what_is_no_answer_is_an_error_and_the_next_request_works(way: str, says: str) -> None:
    async def scene() -> None:
        async with slow_server() as server:
            client = HttpClient(server.url)
            with pytest.raises(ConnectionFailed, match=says):
                await client.post(ask(way=way))
            assert client.connections == 0
            assert (await client.post(ask())).status == 200
            await client.close()

    done(scene())


def test_nobody_listening_is_an_error() -> None:
    async def scene() -> None:
        async with slow_server() as server:
            url = server.url
        with pytest.raises(ConnectionFailed, match="start it first"):
            await HttpClient(url).post(b"{}")

    done(scene())


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "127.0.0.1:80", "http:///path"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(RequestError, match="expected an address like http"):
        HttpClient(url)


# Open loop


def run_open(bodies: list[bytes], rate: float = 200.0, *, queue: bool = False, **options: Any) -> LoadRun:
    async def scene() -> LoadRun:
        async with slow_server(queue=queue) as server:
            client = HttpClient(server.url)
            plan = arrivals("constant", rate, len(bodies))
            run = await open_loop(client, bodies, plan, **{"timeout": 20.0, **options})
            await client.close()
            return run

    return done(scene())


def test_every_request_ends_in_the_outcome_it_had() -> None:
    bodies = [
        ask(),
        ask(status=429),
        ask(status=503),
        ask(status=504),
        ask(status=500),
        ask(way="close"),
        ask(delay=25),
        ask(),
    ]
    run = run_open(bodies, timeout=2.0)  # what the fast ones have time for on a busy machine
    expected = [
        Outcome.ANSWERED,
        Outcome.SHED,
        Outcome.SHED,
        Outcome.TIMED_OUT,
        Outcome.FAILED,
        Outcome.FAILED,
        Outcome.TIMED_OUT,
        Outcome.ANSWERED,
    ]
    assert run.outcome.tolist() == expected
    assert np.isfinite(run.latency).tolist() == [True, *[False] * 6, True]
    report = LoadReport.of(run, slo_ms=20_000)
    assert (report.answered, report.shed, report.timed_out, report.failed) == (2, 2, 2, 2)
    assert report.within == 2 / 8


def test_nothing_is_sent_before_its_moment_and_slow_answers_hold_nobody_up() -> None:
    run = run_open([ask(delay=2.0)] * 30)
    assert (run.sent >= run.planned).all()
    assert (run.latency >= 2.0).all()
    assert np.nanmax(run.sent) < run.ended.min()  # 30 requests within 0.15 s, no answer for 2
    assert run.connections == 30


def test_a_queue_shows_in_the_latencies_because_time_counts_from_the_planned_moment() -> None:
    """A server that serves one at a time and takes 20 ms, asked every 5 ms: the i-th it serves has waited for i.

    On a busy machine requests may overtake each other on their way, so it need not be the i-th that was planned.
    """
    run = run_open([ask(delay=0.02)] * 20, queue=True)
    ends = 0.02 * (np.arange(20) + 1)
    assert (np.sort(run.ended) >= ends - 1e-3).all()
    waits = ends - run.planned
    assert run.latency.sum() >= waits.sum() - 0.02
    assert run.latency.max() >= waits.max() - 1e-3


def test_a_client_that_is_late_itself_does_not_hide_it() -> None:
    """All are due at once; the event loop is held for 0.3 s before it sends the last."""

    async def scene() -> LoadRun:
        async with slow_server() as server:
            client = HttpClient(server.url)
            plan = arrivals("constant", 1e6, 3)
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: __import__("time").sleep(0.3))
            run = await open_loop(client, [ask()] * 3, plan, timeout=20)
            await client.close()
            return run

    run = done(scene())
    assert run.latency[-1] >= 0.3
    assert LoadReport.of(run).send_lag_ms >= 250


def test_a_run_stops_sending_once_too_many_are_late() -> None:
    run = run_open([ask(status=429)] * 400, late_after=10.0, most_late=3)
    assert run.stopped_early
    sent = int((run.outcome == Outcome.SHED).sum())
    assert 4 <= sent < 400
    assert (run.outcome[sent:] == Outcome.UNSENT).all()
    assert np.isnan(run.latency[sent:]).all()
    assert LoadReport.of(run, slo_ms=1.0).within == 0


def test_as_many_late_ones_as_allowed_stop_nothing() -> None:
    run = run_open([ask(status=429)] * 3 + [ask()] * 20, late_after=10.0, most_late=3)
    assert not run.stopped_early
    assert run.count(Outcome.ANSWERED) == 20


def test_bodies_and_moments_must_be_as_many() -> None:
    async def scene() -> None:
        await open_loop(HttpClient("http://h/"), [b""], arrivals("constant", 1, 2), timeout=1)

    with pytest.raises(RequestError, match="a body for each of 2 planned requests, got 1"):
        done(scene())


# Closed loop


def test_a_closed_loop_keeps_so_many_under_way_and_says_that_it_is_closed() -> None:
    async def scene() -> tuple[LoadRun, int]:
        async with slow_server() as server:
            client = HttpClient(server.url)
            run = await closed_loop(client, [ask(delay=0.01, number=i) for i in range(20)], 4, timeout=20)
            await client.close()
            assert [one["number"] for one in server.received] == sorted(range(20))
            return run, server.connections

    run, connections = done(scene())
    assert connections == 4
    under_way = [(run.sent <= moment).sum() - (run.ended < moment).sum() for moment in run.sent]
    assert max(under_way) <= 4
    report = LoadReport.of(run)
    assert report.loop == "closed, 4 in flight"
    assert report.planned_rate is None
    assert report.answered == 20


def test_a_closed_loop_of_nobody_is_refused() -> None:
    with pytest.raises(RequestError, match="at least one at a time"):
        done(closed_loop(HttpClient("http://h/"), [b""], 0, timeout=1))


# Percentiles


def test_percentiles_the_sample_cannot_support_are_refused() -> None:
    values = np.arange(999, dtype=np.float64)
    found = latency_percentiles(values)
    assert found["p95"] is not None
    assert found["p99"] is None
    assert found["p99.9"] is None
    enough = latency_percentiles(np.arange(1000, dtype=np.float64))["p99"]
    assert enough is not None
    assert enough.value == pytest.approx(989.01)
    assert all(one is None for one in latency_percentiles(np.zeros(0)).values())


def test_intervals_cover_the_true_percentile_of_independent_times() -> None:
    truth, hits = -math.log(0.1), 0  # p90 of an exponential
    for seed in range(40):
        one = latency_percentiles(np.random.default_rng(seed).exponential(size=300), [0.9])["p90"]
        assert one is not None
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
        hits += one.low <= truth <= one.high
    assert hits >= 28  # measured over 200 seeds: 87 %; fewer than 28 of 40 come up once in a thousand


def test_neighbours_that_wait_together_widen_the_interval() -> None:
    """Thirty queues of thirty like waits say less than nine hundred waits: the plain interval does not see it."""
    rng = np.random.default_rng(0)
    together = np.repeat(rng.exponential(size=30), 30)
    blocks = latency_percentiles(together, [0.5])["p50"]
    plain = percentile(together, 0.5)
    shuffled = latency_percentiles(rng.permutation(together), [0.5])["p50"]
    assert blocks is not None and plain is not None and shuffled is not None  # noqa: PT018
    widths = [
        one.high - one.low
        for one in (blocks, plain, shuffled)
        if one.high is not None and one.low is not None
    ]
    assert widths[0] > 1.5 * widths[1]
    assert widths[0] > 1.5 * widths[2]


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_interval_of_a_share_holds_it(hits: int, others: int) -> None:
    low, high = share_interval(hits, hits + others)
    assert 0 <= low <= high <= 1
    if hits + others:
        assert low <= hits / (hits + others) + 1e-12
        assert high >= hits / (hits + others) - 1e-12


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = share_interval(8, 10)  # Agresti and Coull 1998 give 0.49 to 0.94
    assert (round(low, 2), round(high, 2)) == (0.49, 0.94)


def test_a_report_is_json() -> None:
    run = run_open([ask()] * 25)
    report = LoadReport.of(run, slo_ms=20_000).as_json()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["loop"] == "constant"
    assert report["goodput"] == report["achieved_rate"] > 0
    assert report["latency_ms"]["p99"] is None
    assert set(report["latency_ms"]["p50"]) == {"value", "low", "high"}


# Goodput


def test_late_ones_allowed() -> None:
    assert most_late(1000) == 10
    assert most_late(999) == 9
    assert most_late(30) == 0
    # Of 30 requests, each late in one of a hundred: P(2 or more) = 3.6 %, P(1 or more) = 26 %.
    assert most_late(30, doubtful=True) == 1
    assert most_late(5, doubtful=True) == 0
    assert most_late(1000, doubtful=True) == 15  # P(16 or more) = 4.7 %, P(15 or more) = 8.2 %


@given(st.integers(1, 2000))
def test_doubt_only_ever_helps(requests: int) -> None:
    assert most_late(requests, doubtful=True) >= most_late(requests)


def search_with(limit: float, start: float) -> tuple[Any, list[float]]:
    """The search against a service that sustains every rate up to a limit."""
    tried: list[float] = []
    report = LoadReport.of(run_open([ask()]))

    async def attempt(rate: float) -> Trial:
        tried.append(rate)
        return Trial(rate, rate <= limit, report)

    return done(search_goodput(attempt, start)), tried


@pytest.mark.parametrize("start", [1.0, 30.0, 100.0, 900.0])
def test_the_search_ends_close_below_the_limit(start: float) -> None:
    found, tried = search_with(100.0, start)
    assert 100 / 1.1 <= found.best.rate <= 100 < found.refused <= 1.1 * found.best.rate
    assert [one.rate for one in found.trials] == sorted(tried)


def test_a_service_that_sustains_nothing_has_no_goodput() -> None:
    found, _ = search_with(0.0, 10.0)
    assert found.best is None
    assert found.refused == min(one.rate for one in found.trials)


def test_a_search_goes_on_from_what_was_tried_already() -> None:
    tried: list[float] = []
    report = LoadReport.of(run_open([ask()]))

    async def attempt(rate: float) -> Trial:
        tried.append(rate)
        return Trial(rate, rate <= 100, report)

    known = [Trial(rate, rate <= 100, report) for rate in (50.0, 90.0, 200.0)]
    found = done(search_goodput(attempt, 50.0, most_trials=2, known=known))
    assert tried == [pytest.approx(math.sqrt(90 * 200)), pytest.approx(math.sqrt(90 * math.sqrt(90 * 200)))]
    assert found.best is not None
    assert found.best.rate == 90
    assert len(found.trials) == 5


def test_every_answer_is_told_with_its_place() -> None:
    told: dict[int, bytes] = {}
    run_open(
        [ask(), ask(status=429), ask(way="close"), ask()],
        on_reply=lambda place, reply: told.update({place: b"%d" % reply.status}),
    )
    assert told == {0: b"200", 1: b"429", 3: b"200"}


def test_a_search_that_leads_nowhere_is_refused() -> None:
    async def attempt(rate: float) -> Trial:
        raise AssertionError

    with pytest.raises(RequestError, match="step and closer above 1"):
        done(search_goodput(attempt, 1.0, step=1.0))
