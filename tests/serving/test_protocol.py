"""Refusals at the parser, over real sockets: the documented answer, and a connection that stays in step."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.engine import Engine
from serving.logs import logger
from serving.metrics import Metrics
from serving.protocol import REST, Door, RefusingProtocol
from tests.serving.test_real_server import wait_until
from tests.serving.toy_server import GatedDecoder, Server, index_of_toys, listening, toy_live

ASK, BATCH = "/v1/recommendations", "/v1/recommendations:batch"
BODY = b'{"history": ["i1"], "num_results": 2}'


def request(body: bytes = BODY, path: str = ASK, *lines: str, method: str = "POST") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "host: x", "content-type: application/json"]
    head += [*lines, f"content-length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Peer:
    """One connection, read answer by answer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of the next answer."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        while len(self._received) < length:
            self._more()
        body, self._received = self._received[:length], self._received[length:]
        return int(first.split()[1]), headers, json.loads(body)

    def rest(self) -> bytes:
        """All that comes until the server hangs up."""
        while part := self.socket.recv(65536):
            self._received += part
        return self._received

    def is_closed(self) -> bool:
        return not self._received and self.socket.recv(1) == b""

    def _more(self) -> None:
        part = self.socket.recv(65536)
        assert part, self._received
        self._received += part


class Closed:
    """A server whose one place is taken, and whose engine stands still until ``decoder.gate`` is opened."""

    def __init__(self, port: int, server: Server, decoder: GatedDecoder) -> None:
        self.port, self.server, self.decoder = port, server, decoder
        decoder.gate.clear()
        self.peers: list[Peer] = []
        self.running, self.waiting = self.connect(), self.connect()
        self.running.send(request())
        assert decoder.entered.acquire(timeout=10)
        self.waiting.send(request())
        wait_until(lambda: server.metric("genrec_queue_depth") == 1)

    def connect(self) -> Peer:
        self.peers.append(Peer(self.port))
        return self.peers[-1]

    def refused(self, path: str = ASK) -> float:
        return self.server.metric("genrec_http_requests_total", method="POST", route=path, status="429")

    def open(self) -> None:
        """Both who were let in get their answers."""
        self.decoder.gate.set()
        assert self.running.answer()[0] == self.waiting.answer()[0] == 200


@pytest.fixture
def closed() -> Iterator[Closed]:
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    server = Server(toy_live(decoder), queue_size=1, max_requests=1)
    with listening(server) as port:
        state = Closed(port, server, decoder)
        yield state
        decoder.gate.set()
        for peer in state.peers:
            peer.socket.close()


def in_application(closed: Closed) -> tuple[int, dict[str, str], Any]:
    """The same refusal by the long way: ``Expect`` takes it."""
    peer = closed.connect()
    peer.send(request(BODY, ASK, "expect: 100-continue"))
    return peer.answer()


def test_the_answer_is_that_of_the_long_way(closed):
    peer = closed.connect()
    peer.send(request())
    status, headers, body = peer.answer()
    long_status, long_headers, long_body = in_application(closed)
    assert (status, body) == (long_status, long_body)
    assert (status, body["error"]["code"]) == (429, "queue_full")
    assert int(headers["retry-after"]) >= 1
    assert re.fullmatch("req_[0-9a-f]{24}", headers["x-request-id"])
    for both in (headers, long_headers):
        del both["x-request-id"], both["date"]
    assert headers == long_headers
    assert closed.refused() == 2
    assert closed.server.metric("genrec_shed_total", reason="queue_full") == 2
    assert closed.server.metric("genrec_http_request_seconds_count", route=ASK) == 2
    assert closed.server.metric("genrec_http_in_flight") == 2  # the two who were let in
    closed.open()


@pytest.mark.parametrize(("given", "kept"), [("mine-7", True), ("two words", False), ("x" * 200, False)])
def test_a_plain_request_id_comes_back(closed, given, kept):
    peer = closed.connect()
    peer.send(request(BODY, ASK, f"X-Request-ID: {given}"))
    assert (peer.answer()[1]["x-request-id"] == given) is kept


def test_a_connection_goes_on_after_refusals(closed):
    peer = closed.connect()
    for path in (ASK, BATCH, ASK):
        peer.send(request(BODY, path))
        assert peer.answer()[0] == 429
    peer.send(request(b"", "/v2/health/ready", method="GET"))  # needs no place
    assert peer.answer()[0] == 200
    closed.open()
    peer.send(request())
    status, _, body = peer.answer()
    assert (status, len(body["items"])) == (200, 2)
    assert (closed.refused(ASK), closed.refused(BATCH)) == (2, 1)


def test_the_rest_of_a_refused_body_is_thrown_away(closed):
    """It looks like a request itself; taken for one, it would be answered."""
    body = request(BODY, "/v2/health/live", method="GET") * 200
    whole = request(body)
    peer = closed.connect()
    peer.send(whole[:150])
    assert peer.answer()[0] == 429  # before the body is there
    closed.open()
    for start in range(150, len(whole), 5000):
        peer.send(whole[start : start + 5000])
    peer.send(request())
    status, _, answer = peer.answer()
    assert (status, answer["object"]) == (200, "recommendation.list")


def test_a_chunked_body_is_thrown_away_too(closed):
    peer = closed.connect()
    peer.send(
        b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    )
    assert peer.answer()[0] == 429
    peer.send(b"3\r\nxyz\r\n0\r\n\r\n" + request(b"", "/v2/health/live", method="GET"))
    assert peer.answer()[0] == 200


def test_pipelined_requests_are_answered_in_order(closed):
    peer = closed.connect()
    live = request(b"", "/v2/health/live", method="GET")
    peer.send(request() + live + request() + request() + live)
    assert [peer.answer()[0] for _ in range(5)] == [429, 200, 429, 429, 200]
    closed.waiting.send(request() * 2)  # behind a request that is not answered yet: they wait for their turn
    wait_until(lambda: closed.refused() == 3)
    closed.decoder.gate.set()
    assert [closed.waiting.answer()[0] for _ in range(3)] == [200, 200, 200]


def test_the_loop_rests_once_after_refusals_that_came_together(closed, monkeypatch):
    rests: list[float] = []
    monkeypatch.setattr("serving.protocol.time", SimpleNamespace(sleep=rests.append))
    peer = closed.connect()
    peer.send(request() * 3)
    assert [peer.answer()[0] for _ in range(3)] == [429] * 3
    wait_until(lambda: rests == [REST])
    closed.open()
    peer.send(request())
    assert peer.answer()[0] == 200
    assert rests == [REST]


def test_who_wants_the_connection_closed_gets_it_closed(closed):
    for text in (request(BODY, ASK, "connection: close"), request().replace(b"HTTP/1.1", b"HTTP/1.0")):
        peer = closed.connect()
        peer.send(text)
        status, headers, _ = peer.answer()
        assert (status, headers["connection"]) == (429, "close")
        assert peer.is_closed()


def test_broken_http_behind_a_refusal_is_broken_http(closed):
    peer = closed.connect()
    peer.send(request() + b"\0\0\r\n\r\n")
    assert peer.answer()[0] == 429
    assert peer.rest().startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "line",
    [
        "content-length: 9", "Content-Length : 37", "content-length: +37", "transfer-encoding: chunked",
        "no colon", "na me: x", "name: \0", ": empty", " folded: x", "bare\nfeed: x",
    ],
)  # fmt: skip
def test_what_the_parser_would_not_take_is_not_refused_before_it(closed, line):
    """Two readings of where a request ends are how one client gets to speak in another's name."""
    refused = closed.server.metric("genrec_shed_total", reason="queue_full")
    peer = closed.connect()
    peer.send(request(BODY, ASK, line))
    assert peer.rest().startswith(b"HTTP/1.1 400")
    assert closed.server.metric("genrec_shed_total", reason="queue_full") == refused


def test_who_hangs_up_in_a_refused_body_harms_nobody(closed):
    peer = closed.connect()
    peer.send(request(b" " * 1000)[:200])
    assert peer.answer()[0] == 429
    peer.socket.close()
    closed.open()


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Connections made from now on are closed where nothing comes for .2 s."""

    def made(self: RefusingProtocol, transport: Any) -> None:
        HttpToolsProtocol.connection_made(self, transport)
        self.timeout_keep_alive = 0.2

    monkeypatch.setattr(RefusingProtocol, "connection_made", made)


@pytest.mark.parametrize("rest", [slice(-20, -10), slice(-20, None)], ids=["in the body", "behind it"])
def test_who_falls_silent_after_a_refusal_is_hung_up_on(closed, impatient, rest):
    """All that comes stops the timer, the rest of the body too, which comes by itself from many clients."""
    peer = closed.connect()
    peer.send(request()[:-20])
    assert peer.answer()[0] == 429
    peer.send(request()[rest])
    assert peer.is_closed()


def test_a_request_that_came_with_a_refused_one_has_its_time(impatient, monkeypatch):
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    decoder.gate.clear()
    server = Server(toy_live(decoder))
    full = iter([True])
    monkeypatch.setattr(Engine, "is_full", lambda *_: next(full, False))
    with listening(server) as port:
        peer = Peer(port)
        peer.send(request() + request())
        assert peer.answer()[0] == 429
        time.sleep(0.4)
        decoder.gate.set()
        assert peer.answer()[0] == 200
        peer.socket.close()


def test_other_methods_and_paths_go_the_usual_way(closed):
    peer = closed.connect()
    for method, path, status in (
        ("GET", ASK, 405), ("POST", f"{ASK}/", 404),
        ("POST", f"{ASK}?a=1", 429), ("POST", "/v1/recommend%61tions", 429),
    ):  # fmt: skip
        peer.send(request(BODY, path, method=method))
        assert peer.answer()[0] == status


def test_refusals_are_in_the_log_of_who_asks_for_them(closed, caplog):
    caplog.set_level(logging.DEBUG, logger=logger.name)
    peer = closed.connect()
    peer.send(request())
    assert peer.answer()[0] == 429
    wait_until(lambda: any(getattr(one, "facts", {}).get("status") == 429 for one in caplog.records))


class Heard:
    """What httptools makes of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.url, self.ends = b"", 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_message_complete(self) -> None:
        self.ends += 1


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "host: x", "Connection: keep-alive", "connection: close", "connection: keep-alive, upgrade",
                "Content-Length: 3", "content-length:0", "content-length: 3, 3", "content-length: 3 3",
                "transfer-encoding: chunked", "upgrade: h2c", "Expect: 100-continue", "x-request-id:  a-1\t",
                "proxy-connection: close", "te: trailers", "connection : close", "x:", "", " ",
            ]
        ),
        st.tuples(st.text("aZ-_:. \t\0", max_size=4), st.text("a:\t\n\r\x7f\x80é, ", max_size=5)).map(": ".join),
    ),
    max_size=5,
)  # fmt: skip


class FullEngine:
    """Has no place for anybody."""

    metrics = Metrics()

    def is_full(self, coming: int) -> bool:
        return True


@given(LINES, st.binary(max_size=12))
@example(["content-length: 3", "x: y"], b"abc")
def test_the_door_reads_a_request_as_the_parser_does(lines, rest):
    """Or leaves it to the parser: a head that it misread would end in the middle of another request."""
    data = "\r\n".join([f"POST {ASK} HTTP/1.1", *lines]).encode("latin-1", "replace") + b"\r\n\r\n" + rest
    refused = Door(FullEngine(), [ASK]).refused(data)  # type: ignore[arg-type]
    if refused is None:
        assert lines != ["content-length: 3", "x: y"]
        return
    whole = data[: refused.length].ljust(refused.length, b" ")
    assert Heard(whole[:-1]).ends == 0
    heard = Heard(whole)
    assert (heard.url, heard.ends) == (ASK.encode(), 1)
    assert heard.parser.should_keep_alive()
    assert not heard.parser.should_upgrade()
