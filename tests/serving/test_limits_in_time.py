"""What takes too long, comes too often, or is given up: slow bodies, deadlines, full queues, gone clients."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.serving.toy_server import Connection, GatedDecoder, Server, index_of_toys, toy_live

ASK, BATCH = "/v1/recommendations", "/v1/recommendations:batch"
BODY = json.dumps({"history": ["i1"]}).encode()


def gated(**settings: Any) -> tuple[Server, GatedDecoder]:
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    return Server(toy_live(decoder), **settings), decoder


def run(server: Server, story: Any) -> None:
    try:
        asyncio.run(story)
    finally:
        server.engine.close()


async def entered(decoder: GatedDecoder) -> None:
    assert await asyncio.to_thread(decoder.entered.acquire, timeout=10)


def test_a_body_that_trickles_is_given_up():
    server = Server(body_timeout_s=0.1)

    async def story() -> None:
        connection = Connection(server)
        connection.send(BODY[:5], more=True)
        status, body = await connection.answer()
        assert (status, body["error"]["code"]) == (408, "body_timeout")

    run(server, story())


def test_a_body_in_parts_is_put_together():
    server = Server()

    async def story() -> None:
        connection = Connection(server)
        for byte in BODY:
            connection.send(bytes([byte]), more=True)
        connection.send(b"")
        assert (await connection.answer())[0] == 200

    run(server, story())


def test_hanging_up_in_the_middle_of_a_body():
    server = Server()

    async def story() -> None:
        connection = Connection(server)
        connection.send(BODY[:5], more=True)
        connection.hang_up()
        await asyncio.wait_for(connection.task, 10)
        assert server.metric("genrec_http_in_flight") == 0

    run(server, story())
    assert server.metric("genrec_http_requests_total", method="POST", route=ASK, status="499") == 1


@pytest.mark.parametrize("path", [ASK, BATCH])
def test_hanging_up_gives_the_place_up(path):
    server, decoder = gated()

    async def story() -> None:
        decoder.gate.clear()
        first = Connection(server)
        first.send(BODY)
        await entered(decoder)
        gone = Connection(server, path)
        gone.send(BODY if path == ASK else b'{"requests": [%s]}' % BODY)
        await asyncio.sleep(0.05)
        assert server.metric("genrec_queue_depth") == 1
        gone.hang_up()
        await asyncio.wait_for(gone.task, 10)  # although the gate is closed
        decoder.gate.set()
        assert (await first.answer())[0] == 200
        last = Connection(server)
        last.send(BODY)
        assert (await last.answer())[0] == 200
        assert server.metric("genrec_shed_total", reason="client_gone") == 1
        assert server.metric("genrec_items_recommended_total") == 20

    run(server, story())
    assert server.metric("genrec_http_requests_total", method="POST", route=path, status="499") == 1


@pytest.mark.parametrize("asked_ms", [50, None])
def test_a_deadline_is_answered_in_time(asked_ms):
    server, decoder = gated(default_timeout_ms=100)

    async def story() -> None:
        decoder.gate.clear()
        connection = Connection(server)
        connection.send(json.dumps({"history": ["i1"], "timeout_ms": asked_ms}).encode())
        status, body = await connection.answer()
        assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
        assert body["error"]["param"] == "timeout_ms"
        decoder.gate.set()
        assert server.metric("genrec_shed_total", reason="deadline") == 1

    run(server, story())


def test_a_batch_that_is_late_says_so_in_every_place():
    server, decoder = gated()

    async def story() -> None:
        decoder.gate.clear()
        connection = Connection(server, BATCH)
        one = {"history": ["i1"], "timeout_ms": 60}
        connection.send(json.dumps({"requests": [one, {**one, "mode": "title"}, one]}).encode())
        status, body = await connection.answer()
        assert status == 200
        assert [result["status"] for result in body["results"]] == [504, 422, 504]
        decoder.gate.set()

    run(server, story())


def test_a_full_queue_is_said_at_once_with_a_time_to_come_again():
    server, decoder = gated(queue_size=1, max_requests=1)

    async def story() -> None:
        decoder.gate.clear()
        connections = [Connection(server)]
        connections[0].send(BODY)
        await entered(decoder)
        for path, body in ((ASK, BODY), (ASK, BODY), (BATCH, b'{"requests": [%s]}' % BODY)):
            connections.append(Connection(server, path))
            connections[-1].send(body)
            await asyncio.sleep(0.02)
        for refused in connections[2:]:
            status, body = await refused.answer()
            assert (status, body["error"]["code"]) == (429, "queue_full")
            assert int(refused.header(b"retry-after")) >= 1
        decoder.gate.set()
        for served in connections[:2]:
            assert (await served.answer())[0] == 200

    run(server, story())


def test_no_place_is_said_before_the_body_is_read():
    server, decoder = gated(queue_size=1, max_requests=1)

    async def story() -> None:
        decoder.gate.clear()
        running = Connection(server)
        running.send(BODY)
        await entered(decoder)
        waiting = Connection(server)  # not before: while the first one waits, the queue of one is full
        waiting.send(BODY)
        while server.metric("genrec_queue_depth") < 1:
            await asyncio.sleep(0.01)
        for path in (ASK, BATCH):
            refused = Connection(server, path)  # nothing was sent yet
            status, body = await refused.answer()
            assert (status, body["error"]["code"]) == (429, "queue_full")
            assert int(refused.header(b"retry-after")) >= 1
            counted = {"method": "POST", "route": path, "status": "429"}
            assert server.metric("genrec_http_requests_total", **counted) == 1
        decoder.gate.set()
        assert [(await one.answer())[0] for one in (running, waiting)] == [200, 200]

    run(server, story())
