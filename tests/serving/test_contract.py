"""The server does what its OpenAPI description says: schemathesis attacks it over a real socket.

It makes requests that fit the description and requests that do not, and looks for undocumented statuses,
bodies of another shape, valid requests refused, invalid ones accepted, and keys that are not asked for.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.toy_server import Server, listening, toy_live

KEY = "the-key-of-an-admin"
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture
def server():
    # Short lists: what is tested is the shape, and long random lists take schemathesis most of its time.
    short = {"max_history": 6, "max_ids": 6, "max_requests": 2}
    return Server(loader=lambda _: toy_live(), api_keys=(KEY,), admin_keys=(KEY,), **short)


def attack(server: Server, cases: int, cwd: Path, *options: str) -> int:
    """Run schemathesis with so many cases per endpoint; the number of requests it made."""
    with listening(server) as port:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "--config-file", CONFIG,
                "run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {KEY}",
                "--max-examples", str(cases), "--seed", "1", "--no-color", "--request-timeout", "60", *options,
            ],
            cwd=cwd, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    crashes = {"method": "POST", "status": "500"}
    for route in ("/v1/recommendations", "/v1/recommendations:batch", "/v1/walk", "/v1/admin/reload"):
        assert server.metric("genrec_http_requests_total", route=route, **crashes) == 0
    made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert made is not None
    assert made[1] == made[2]
    return int(made[1])


ONE_BY_ONE = ("--phases", "examples,coverage,fuzzing")
OPERATIONS = ("recommend", "recommend_batch", "walk", "chat", "reload", "find_items", "get_item")
"""What takes a body or parameters. The others have three cases in all, which the short attack goes through."""


def test_a_short_attack_finds_nothing(server, tmp_path):
    # Without the walk: it takes the body of a recommendation, and its answers take schemathesis long to check.
    assert attack(server, 5, tmp_path, *ONE_BY_ONE, "--exclude-operation-id", "walk") > 200
    assert server.metric("genrec_items_recommended_total") > 0  # not all were refused at the door


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_two_thousand_cases_an_endpoint_find_nothing(server, tmp_path, operation):
    """Minutes each, so that several processes can share them (``-k walk``). What is found is not made smaller."""
    which = ("--include-operation-id", operation, "--no-shrink")
    made = attack(server, 2000, tmp_path, *ONE_BY_ONE, *which)
    print(f"{made} requests, no finding")
    assert made > 2000


@pytest.mark.slow
def test_requests_that_follow_from_answers_find_nothing(server, tmp_path):
    assert attack(server, 100, tmp_path, "--phases", "stateful") > 100
