"""``genrec serve`` as a process of its own on a free port, and uvicorn over real sockets."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from typing import Any

import pytest

from tests.serving.toy_server import GatedDecoder, Server, index_of_toys, listening, toy_live

ASK = "/v1/recommendations"
JSON = {"content-type": "application/json"}


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection.request(
        method, path, None if body is None else json.dumps(body), JSON if body is not None else {}
    )
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.fixture(scope="module")
def port():
    with listening(Server(max_body_bytes=5000)) as port:
        yield port


def test_answers_over_a_socket_and_keeps_the_connection(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(3):
        status, answer = ask(connection, "POST", ASK, {"history": ["i1"], "num_results": 2})
        assert status == 200
        assert len(answer["items"]) == 2
    assert ask(connection, "GET", "/v1/items/i%31")[1]["item_id"] == "i1"
    assert ask(connection, "GET", "/v1/items/i%2531")[0] == 404  # decoded once, not twice
    assert ask(connection, "GET", "/v1/items/..%2F..%2Fetc%2Fpasswd")[0] == 404
    assert ask(connection, "GET", "/v1/items/../../../etc/passwd")[0] == 404
    connection.close()


def raw(port: int, text: bytes) -> bytes:
    """Whatever comes back for these bytes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(text)
        received = b""
        while part := connection.recv(65536):
            received += part
            if b"\r\n\r\n" in received and b"connection: close" not in received.lower():
                break
        return received


HEAD = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (HEAD + b"content-length: 99999999999999999999999\r\n\r\n", rb"4\d\d"),
        (HEAD + b"content-length: 6000\r\n\r\n" + b" " * 10, b"413"),  # refused before it came
        (HEAD + b"content-length: -5\r\n\r\n", b"400"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n" + (b"400\r\n" + b" " * 1024 + b"\r\n") * 6, b"413"),
        (b"GET /v1/items/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", rb"4\d\d"),
        (b"BREW /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", rb"4\d\d"),
        (b"\0\0\0\0\r\n\r\n", b"400"),
    ],
)
def test_broken_http_is_refused_and_the_server_goes_on(port, text, status):
    received = raw(port, text)
    assert re.match(rb"HTTP/1\.1 " + status, received), received[:200]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    assert ask(connection, "POST", ASK, {"history": []})[0] == 200
    connection.close()


def test_a_client_that_hangs_up_frees_its_place():
    decoder = GatedDecoder(sum(index_of_toys().level_sizes))
    server = Server(toy_live(decoder))
    body = b'{"history": ["i1"]}'
    request = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    with listening(server) as port:
        decoder.gate.clear()
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        connections[0].sendall(request)
        assert decoder.entered.acquire(timeout=10)
        for one in connections[1:]:
            one.sendall(request)
        wait_until(lambda: server.metric("genrec_queue_depth") == 3)
        for one in connections[1:3]:
            one.close()
        gone = {"method": "POST", "route": ASK, "status": "499"}
        wait_until(lambda: server.metric("genrec_http_requests_total", **gone) == 2)
        decoder.gate.set()
        for one in (connections[0], connections[3]):
            assert one.recv(65536).startswith(b"HTTP/1.1 200")
            one.close()
        assert server.metric("genrec_shed_total", reason="client_gone") == 2


def wait_until(holds: Any) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
