"""Measuring a server: a sweep, closed loops, validity and recall, against a toy that behaves as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from genrec.bench.http_client import Reply
from genrec.bench.serve import Asked, ServeReport, ServeSettings, measure_serve
from genrec.bench.served_answers import AnswerBook
from index.errors import RequestError
from tests.genrec.slow_server import slow_server

CATALOG = frozenset(f"i{n}" for n in range(30))
USERS = Asked("toys", [[f"i{n}"] for n in range(20)], [f"i{n + 1}" for n in range(20)])
QUICK = {"requests": 40, "warm_up": 2, "slo_ms": 20_000.0}


def answer(asked: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The next items after the history's last."""
    first = int(asked["history"][-1][1:]) + 1
    items = [{"item_id": f"i{n}"} for n in range(first, first + asked["num_results"])]
    body = {
        "items": items,
        "model": "toy@1234",
        "degraded": None,
        "usage": {"batch": 2},
        "timings_ms": {"queue": 1.0, "search": 2.0, "total": 4.0},
    }
    return {"delay": 0.0, "status": 200, "body": json.dumps({**body, **more}).encode()}


def measure(
    settings: ServeSettings, say: Callable[[dict[str, Any]], dict[str, Any]], asked: Asked = USERS
) -> ServeReport:
    async def scene() -> ServeReport:
        async with asyncio.timeout(30), slow_server(say=say) as server:
            return await measure_serve(server.url, asked, CATALOG, settings, server_cpu=lambda: 0.0)

    return asyncio.run(scene())


def test_a_sweep_keeps_what_was_asked_and_looks_at_every_answer():
    report = measure(ServeSettings(k=3, rates=(400.0, 200.0), **QUICK), answer)
    assert [one.load.planned_rate for one in report.trials] == [200.0, 400.0]
    assert report.capacity is None
    assert (report.goodput, report.not_sustained) == (400.0, None)
    for one in report.trials:
        assert (one.load.answered, one.load.shed, one.load.timed_out, one.load.failed) == (40, 0, 0, 0)
        assert one.answers.validity == 1.0
        assert one.answers.recall == 1.0  # the next item is always first
        assert one.answers.items_returned == 120
        assert one.answers.items_of_the_history == 0
        assert one.answers.phases_ms == {"queue": 1.0, "search": 2.0, "rest": 1.0}
        assert one.answers.models == ("toy@1234",)
        told = json.loads(json.dumps(one.as_json(), allow_nan=False))
        assert len(told["samples"]["wall_ms"]) == 40
        assert told["latency_ms"]["p99"] is None  # 40 requests say nothing of it


def test_rates_are_found_from_what_the_server_can_do():
    report = measure(ServeSettings(k=1, **QUICK), lambda asked: {**answer(asked), "delay": 0.005})
    assert report.capacity is not None
    rates = [one.load.planned_rate for one in report.trials]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(0.2 * report.capacity)
    assert rates[-1] == pytest.approx(1.5 * report.capacity)


def test_a_limit_between_two_rates_is_closed_in_on():
    """The server answers in time as long as it is asked at most at the rate of its memory: 100 requests so far."""
    seen = 0

    def turns_bad(asked: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        seen += 1
        return (
            answer(asked)
            if seen <= 3 + 40
            else {"delay": 0.0, "status": 429, "body": b'{"error": {"code": "queue_full"}}'}
        )

    report = measure(ServeSettings(k=1, rates=(300.0, 600.0), refine=2, **QUICK), turns_bad)
    tried = [one.load.planned_rate for one in report.trials]
    assert tried[0] == 300
    assert tried[-1] == 600
    assert len(tried) == 4  # two more in between
    assert report.goodput == 300
    assert report.not_sustained == tried[1] < 450
    last = report.trials[-1]
    assert last.sustained is False
    assert last.load.shed == 40
    assert last.answers.errors == {"429 queue_full": 40}
    assert last.answers.validity is None


def test_a_closed_loop_is_labelled_and_makes_no_goodput():
    report = measure(ServeSettings(k=1, concurrency=(1, 4), **QUICK), answer)
    assert [one.name for one in report.trials] == ["closed, 1 in flight", "closed, 4 in flight"]
    assert report.goodput is None
    assert all(one.sustained is None for one in report.trials)


def test_an_item_of_another_catalog_and_one_the_user_has_are_found_out():
    def wrong(asked: dict[str, Any]) -> dict[str, Any]:
        return answer(asked, items=[{"item_id": "nobody"}, {"item_id": asked["history"][-1]}])

    (one,) = measure(ServeSettings(k=2, rates=(200.0,), **QUICK), wrong).trials
    assert one.answers.validity == 0.5
    assert set(one.answers.foreign_ids) == {"nobody"}
    assert one.answers.items_of_the_history == 40
    assert one.answers.recall == 0.0


def test_recall_is_not_known_without_what_came_next():
    asked = Asked("toys", USERS.histories)
    (one,) = measure(ServeSettings(k=2, rates=(200.0,), **QUICK), answer, asked).trials
    assert one.answers.recall is None
    assert one.as_json()["answers"]["recall_95"] is None


def test_answers_that_are_none_are_counted():
    book = AnswerBook()
    for place, reply in enumerate(
        (
            Reply(200, b"not json"),
            Reply(200, b"[]"),
            Reply(500, b"oops"),
            Reply(400, b'{"error": {"code": "bad"}}'),
        )
    ):
        book(place, reply)
    report = book.read(CATALOG, 1, USERS.histories)
    assert report.errors == {"200 not readable": 2, "500 not readable": 1, "400 bad": 1}
    assert report.answered == 0
    assert report.validity is None


def test_a_server_that_refuses_the_first_request_is_not_measured():
    with pytest.raises(RequestError, match=r"got 401: b'no key'"):
        measure(ServeSettings(rates=(9.0,)), lambda _asked: {"delay": 0.0, "status": 401, "body": b"no key"})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"k": 0}, "k of at least 1"),
        ({"requests": 0}, "requests of at least 1"),
        ({"rates": (5.0, 0.0)}, "rates above 0"),
        ({"slo_ms": float("nan")}, "a limit above 0"),
        ({"timeout_s": 0.0}, "a timeout above 0"),
        ({"concurrency": (0,)}, "--concurrency of at least 1"),
        ({"rates": (5.0,), "concurrency": (2,)}, "got both"),
    ],
)
def test_loads_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(RequestError, match=says):
        ServeSettings(**wrong)
