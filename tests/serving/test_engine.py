"""The engine: bounded, fair to batch mates, and one version per batch."""

from __future__ import annotations

import asyncio
import time
import weakref
from dataclasses import replace
from typing import Any

import pytest

from genrec.bench.measurement import no_collector
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes
from index.errors import FilterError, IndexFormatError, RequestError
from serving.engine import Engine
from serving.errors import DeadlineExceeded, NotReady, QueueFull, ReloadInProgress
from serving.live_bundle import LiveBundle
from serving.waiting import Answer
from tests.fake_decoder import FakeDecoder
from tests.serving.toy_server import GatedDecoder, index_of_toys, toy_live

VOCABULARY = sum(index_of_toys().level_sizes)
PLAIN = Wishes(k=3)


def run(engine: Engine, story: Any) -> None:
    try:
        asyncio.run(story)
    finally:
        engine.close()


def gated(**settings: Any) -> tuple[Engine, GatedDecoder]:
    decoder = GatedDecoder(VOCABULARY)
    return Engine(toy_live(decoder), **settings), decoder


async def entered(decoder: GatedDecoder) -> None:
    assert await asyncio.to_thread(decoder.entered.acquire, timeout=10)


def sample(engine: Engine, name: str, **labels: str) -> float | None:
    return engine.metrics.registry.get_sample_value(name, labels)


def test_an_answer_is_that_of_the_recommender():
    engine = Engine(toy_live())

    async def story() -> None:
        wishes = Wishes(k=4, where="year > 2000", exact=True)
        answer = await engine.recommend(["i3", "nobody"], wishes)
        expected = engine.live.recommender.recommend_batch([["i3", "nobody"]], wishes)[0]
        assert answer.recommendation == expected
        assert answer.live is engine.live
        assert answer.batch == 1

    run(engine, story())


def test_requests_that_wait_are_searched_together_and_each_gets_its_own_answer():
    engine, decoder = gated(max_batch=3)

    async def story() -> None:
        decoder.gate.clear()
        first = asyncio.ensure_future(engine.recommend(["i1"], PLAIN))
        await entered(decoder)
        others = [
            asyncio.ensure_future(engine.recommend([f"i{n}"], Wishes(k=1 + n, where=f"year > {1980 + n}")))
            for n in range(4)
        ]
        await asyncio.sleep(0.05)
        decoder.gate.set()
        answers = await asyncio.gather(first, *others)
        assert [one.batch for one in answers][:4] == [1, 3, 3, 3]  # the fifth joins when there is room
        for n, one in enumerate(answers[1:]):
            wishes = Wishes(k=1 + n, where=f"year > {1980 + n}")
            expected = engine.live.recommender.recommend_batch([[f"i{n}"]], wishes)[0]
            assert [item.item_id for item in one.recommendation.items] == [
                item.item_id for item in expected.items
            ]

    run(engine, story())


def test_a_bad_request_fails_alone():
    engine, decoder = gated()

    async def story() -> None:
        decoder.gate.clear()
        first = asyncio.ensure_future(engine.recommend([], PLAIN))
        await entered(decoder)
        good = asyncio.ensure_future(engine.recommend(["i1"], PLAIN))
        bad = asyncio.ensure_future(engine.recommend(["i1"], Wishes(where="colour == 1")))
        worse = asyncio.ensure_future(engine.recommend(["i1"], Wishes(max_per={"colour": 1})))
        deep = asyncio.ensure_future(engine.recommend(["i1"], Wishes(where="+".join(["1"] * 2000))))
        decoder.gate.set()
        assert len((await first).recommendation.items) == len((await good).recommendation.items) == 3
        with pytest.raises(FilterError, match="got 'colour'"):
            await bad
        with pytest.raises(RequestError, match="got 'colour'"):
            await worse
        with pytest.raises(FilterError):
            await deep

    run(engine, story())


def test_a_search_that_fails_takes_no_batch_mate_with_it(caplog):
    class Picky(GatedDecoder):
        def prompt_seed(self, prompt: Any) -> int:
            if any(2 in part.rows for part in prompt):
                raise ZeroDivisionError("two is too much")
            return super().prompt_seed(prompt)

    decoder = Picky(VOCABULARY)
    engine = Engine(toy_live(decoder))

    async def story() -> None:
        decoder.gate.clear()
        first = asyncio.ensure_future(engine.recommend([], PLAIN))
        await entered(decoder)
        others = [asyncio.ensure_future(engine.recommend([f"i{n}"], PLAIN)) for n in (1, 2, 3)]
        await asyncio.sleep(0.05)
        decoder.gate.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(one) for one in results] == [Answer, Answer, ZeroDivisionError, Answer]
        assert (await engine.recommend(["i1"], PLAIN)).recommendation.items  # the thread lives

    run(engine, story())
    assert "search_failed" in caplog.text


def test_an_answer_that_cannot_be_put_into_words_fails_alone(caplog):
    """An exception behind the search once ended the engine's thread: nobody was answered any more."""

    class Tongue(Recommender):
        def recommendation(self, history, wishes, result):  # type: ignore[no-untyped-def]
            if "i2" in history:
                raise ZeroDivisionError("two is too much")
            return super().recommendation(history, wishes, result)

    live = toy_live()
    recommender = Tongue(live.recommender.index, live.recommender.decoder, TaskDefaults(beam=5))
    engine = Engine(replace(live, recommender=recommender))

    async def story() -> None:
        asked = (engine.recommend([f"i{n}"], PLAIN) for n in (1, 2, 3))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in results] == [Answer, ZeroDivisionError, Answer]
        assert engine.ready

    run(engine, story())
    assert "search_failed" in caplog.text


def test_a_full_queue_takes_nothing_and_says_when_to_come_again():
    engine, decoder = gated(queue_size=2)

    async def story() -> None:
        decoder.gate.clear()
        running = asyncio.ensure_future(engine.recommend([], PLAIN))
        await entered(decoder)
        with pytest.raises(QueueFull, match="one of 2 places"):
            await engine.recommend_many([[], [], []], [PLAIN] * 3)
        waiting = [asyncio.ensure_future(engine.recommend([], PLAIN)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as full:
            await engine.recommend([], PLAIN)
        assert full.value.retry_after >= 1
        assert sample(engine, "genrec_queue_depth") == 2
        decoder.gate.set()
        await asyncio.gather(running, *waiting)
        assert sample(engine, "genrec_shed_total", reason="queue_full") == 4

    run(engine, story())


def test_a_deadline_is_kept_while_waiting_and_while_searching():
    engine, decoder = gated()

    async def story() -> None:
        decoder.gate.clear()
        running = asyncio.ensure_future(engine.recommend([], PLAIN, time.monotonic() + 0.2))
        await entered(decoder)
        calls = decoder.calls
        waiting = asyncio.ensure_future(engine.recommend([], PLAIN, time.monotonic() + 0.1))
        for one in (waiting, running):
            with pytest.raises(DeadlineExceeded, match="within timeout_ms"):
                await one
        decoder.gate.set()
        await engine.recommend([], PLAIN)
        assert decoder.calls > calls
        assert sample(engine, "genrec_shed_total", reason="deadline") == 2
        # The one that waited was never searched: two prefills were.
        assert sample(engine, "genrec_batch_requests_count") == 2

    run(engine, story())


def test_who_has_gone_is_not_searched_for():
    engine, decoder = gated()

    async def story() -> None:
        decoder.gate.clear()
        running = asyncio.ensure_future(engine.recommend([], PLAIN))
        await entered(decoder)
        waiting = asyncio.ensure_future(engine.recommend([], PLAIN))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        decoder.gate.set()
        await running
        await engine.recommend([], PLAIN)
        assert sample(engine, "genrec_batch_requests_sum") == 2
        assert sample(engine, "genrec_shed_total", reason="client_gone") == 1

    run(engine, story())


def test_closing_refuses_what_waits_and_what_comes():
    engine, decoder = gated()

    async def story() -> None:
        decoder.gate.clear()
        running = asyncio.ensure_future(engine.recommend([], PLAIN))
        await entered(decoder)
        waiting = asyncio.ensure_future(engine.recommend([], PLAIN))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(engine.close))
        with pytest.raises(NotReady):
            await waiting
        assert not engine.ready
        decoder.gate.set()
        assert (await running).recommendation.items
        await closing
        with pytest.raises(NotReady):
            await engine.recommend([], PLAIN)

    run(engine, story())


def other_live(seed: int = 1) -> LiveBundle:
    index = index_of_toys()
    recommender = Recommender(index, FakeDecoder(VOCABULARY, seed=seed), TaskDefaults(beam=5))
    return LiveBundle(recommender, toy_live().lexicon, "toy@other", "other")


def test_a_reload_swaps_and_a_failed_one_changes_nothing():
    versions: list[Any] = [other_live(), IndexFormatError("a damaged bundle")]

    def load(verify: bool) -> LiveBundle:
        assert verify
        version = versions.pop(0)
        if isinstance(version, Exception):
            raise version
        assert isinstance(version, LiveBundle)
        return version

    engine = Engine(toy_live(), load)

    async def story() -> None:
        before = await engine.recommend(["i1"], PLAIN)
        await engine.reload()
        after = await engine.recommend(["i1"], PLAIN)
        assert after.live.model == "toy@other"
        assert after.recommendation != before.recommendation
        with pytest.raises(IndexFormatError):
            await engine.reload()
        again = await engine.recommend(["i1"], PLAIN)
        assert again.recommendation == after.recommendation
        assert sample(engine, "genrec_model_info", model="toy@0123456789ab", catalog="fedcba987654") == 0
        assert sample(engine, "genrec_model_info", model="toy@other", catalog="other") == 1
        assert sample(engine, "genrec_reloads_total", outcome="done") == 1
        assert sample(engine, "genrec_reloads_total", outcome="refused") == 1

    run(engine, story())


def test_a_bundle_that_was_replaced_is_freed_without_the_garbage_collector():
    """The server exempts what it has loaded from collection (serving.process), so it must hold no cycle."""
    engine = Engine(toy_live(), lambda verify: toy_live())
    before = weakref.ref(engine.live)

    async def story() -> None:
        await engine.recommend(["i1"], PLAIN)
        await engine.reload()
        await engine.recommend(["i1"], PLAIN)

    with no_collector():
        run(engine, story())
        assert before() is None


def test_one_reload_at_a_time():
    decoder = GatedDecoder(VOCABULARY)

    def load(_: bool) -> LiveBundle:
        decoder.entered.release()
        assert decoder.gate.wait(10)
        return other_live()

    engine = Engine(toy_live(), load)

    async def story() -> None:
        decoder.gate.clear()
        first = asyncio.ensure_future(engine.reload())
        await entered(decoder)
        with pytest.raises(ReloadInProgress):
            await engine.reload()
        decoder.gate.set()
        await first

    run(engine, story())


def test_a_server_without_a_bundle_on_disk_cannot_reload():
    engine = Engine(toy_live())

    async def story() -> None:
        with pytest.raises(NotReady, match="bundle on disk"):
            await engine.reload()

    run(engine, story())


def test_who_would_wait_too_long_for_their_time_is_refused_at_once():
    engine, decoder = gated(max_batch=1)

    async def story() -> None:
        for _ in range(30):  # learn what a request takes: some milliseconds
            decoder.gate.clear()
            one = asyncio.ensure_future(engine.recommend([], PLAIN))
            await entered(decoder)
            await asyncio.sleep(0.01)
            decoder.gate.set()
            await one
        decoder.gate.clear()
        running = asyncio.ensure_future(engine.recommend([], PLAIN))
        await entered(decoder)
        waiting = [
            asyncio.ensure_future(engine.recommend([], PLAIN, time.monotonic() + 30)) for _ in range(20)
        ]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="in time"):  # 20 before it, 10 ms each
            await engine.recommend([], PLAIN, time.monotonic() + 0.1)
        patient = asyncio.ensure_future(engine.recommend([], PLAIN, time.monotonic() + 30))
        decoder.gate.set()
        assert all(one.recommendation.items for one in await asyncio.gather(running, *waiting, patient))

    run(engine, story())


def test_requests_that_are_answered_in_one_go_count_in_the_pace():
    """Searches without steps that others could join, as by queries: what they take is learned as of any other."""
    engine, decoder = gated(max_batch=1)
    wishes = Wishes(k=3, synchronize="token")

    async def story() -> None:
        for _ in range(12):
            decoder.gate.clear()
            one = asyncio.ensure_future(engine.recommend([], wishes))
            await entered(decoder)
            await asyncio.sleep(0.05)
            decoder.gate.set()
            await one
        decoder.gate.clear()
        running = asyncio.ensure_future(engine.recommend([], wishes))
        await entered(decoder)
        waiting = [asyncio.ensure_future(engine.recommend([], wishes)) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="in time"):  # 8 before it, some 50 ms each
            await engine.recommend([], wishes, time.monotonic() + 0.4)
        decoder.gate.set()
        await asyncio.gather(running, *waiting)

    run(engine, story())


def test_a_search_that_does_not_come_back_is_noticed():
    engine, decoder = gated(hang_timeout=0.05)

    async def story() -> None:
        assert not engine.hangs
        decoder.gate.clear()
        running = asyncio.ensure_future(engine.recommend([], PLAIN))
        await entered(decoder)
        await asyncio.sleep(0.1)
        assert engine.hangs
        decoder.gate.set()
        await running
        await asyncio.sleep(0.05)  # the answer is there a moment before the turn ends
        assert not engine.hangs

    run(engine, story())
