"""What the reliability benchmark does its work with: a server as a process, its processor time, and users."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.bench.http_client import ConnectionFailed, HttpClient
from genrec.bench.server_process import cpu_seconds

COMMAND = "from genrec.cli.main import main; main()"
KEY = "the-key-of-the-admin"
TIMEOUT_MS = 1000
TOP = 10


@dataclass(frozen=True)
class Outcome:
    """One request."""

    user: int
    sent: float
    seconds: float
    status: int  # 0 where the connection broke
    body: bytes


class Service:
    """A running server, by its log."""

    def __init__(self, bundle: Path, log: Path, workers: int) -> None:
        variables = {
            "GENREC_ADMIN_KEYS": KEY,
            "OMP_NUM_THREADS": "1",
            "GENREC_DEFAULT_TIMEOUT_MS": str(TIMEOUT_MS),
        }
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "serve", str(bundle), "--port", "0", "--workers", str(workers)],
                env={**os.environ, **variables}, stderr=out,
            )  # fmt: skip
        self.wait_for("serving" if workers == 1 else "worker_ready", workers)
        self.url = f"http://127.0.0.1:{self.events('serving')[0]['port']}"

    def events(self, name: str) -> list[dict[str, Any]]:
        with self._log.open() as lines:
            return [json.loads(line) for line in lines if f'"event": "{name}"' in line]

    def wait_for(self, event: str, times: int) -> None:
        end = time.monotonic() + 120
        while len(self.events(event)) < times:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"expected {times} times {event!r}: {self._log.read_text()[-2000:]}")
            time.sleep(0.1)

    def memory(self) -> float:
        """MiB that are the processes' own, files in memory left out."""
        pids = [self.process.pid, *(event["worker"] for event in self.events("worker_ready"))]
        found = 0
        for pid in pids:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            found += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
        return found / 1024


@contextmanager
def serving(bundle: Path, folder: Path, workers: int) -> Iterator[Service]:
    service = Service(bundle, folder / f"log-{workers}-{time.monotonic_ns()}", workers)
    try:
        yield service
    finally:
        service.process.terminate()
        service.process.wait(60)


class Cores:
    """Processor time since it was made: of the server, and of this process, which is the client."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._since = (time.monotonic(), cpu_seconds(server), time.process_time())

    def used(self) -> dict[str, float]:
        wall, server, client = self._since
        seconds = time.monotonic() - wall
        return {
            "server": round((cpu_seconds(self._server) - server) / seconds, 3),
            "client": round((time.process_time() - client) / seconds, 3),
        }


class Load:
    """Users who ask again and again."""

    def __init__(self, url: str, histories: Sequence[Sequence[str]]) -> None:
        self._client = HttpClient(f"{url}/v1/recommendations")
        self._bodies = [
            json.dumps({"history": one, "num_results": TOP, "timeout_ms": TIMEOUT_MS}).encode()
            for one in histories
        ]

    async def ask(self, user: int) -> Outcome:
        sent = time.monotonic()
        try:
            reply = await self._client.post(self._bodies[user])
        except ConnectionFailed:
            return Outcome(user, sent, time.monotonic() - sent, 0, b"")
        return Outcome(user, sent, time.monotonic() - sent, reply.status, reply.body)

    async def closed(self, seconds: float, in_flight: int) -> list[Outcome]:
        end, found = time.monotonic() + seconds, []

        async def one(user: int) -> None:
            while time.monotonic() < end:
                found.append(await self.ask(user % len(self._bodies)))
                user += in_flight

        await asyncio.gather(*(one(user) for user in range(in_flight)))
        return found

    async def open(self, rate: float, until: asyncio.Event) -> list[Outcome]:
        """Poisson arrivals, whatever the server does."""
        generator = np.random.default_rng(0)
        tasks: list[asyncio.Task[Outcome]] = []
        due = time.monotonic()
        while not until.is_set():
            due += float(generator.exponential(1 / rate))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.ensure_future(self.ask(len(tasks) % len(self._bodies))))
        return await asyncio.gather(*tasks)

    async def open_for(self, rate: float, seconds: float) -> list[Outcome]:
        until = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, until.set)
        return await self.open(rate, until)

    async def close(self) -> None:
        await self._client.close()
