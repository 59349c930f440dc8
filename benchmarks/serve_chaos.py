"""Does `genrec serve` stay upright: overloaded, reloaded under load, with a worker killed?

    overload   requests at three times the measured capacity (Poisson), each giving up after a second. How much
               of the capacity is still answered, is the rest refused in the documented way (429, 504), and does
               memory stay what it was?
    reloads    hot reloads while requests come at half the capacity. The bundle on disk changes back and forth
               between two catalogs that must be answered differently; every answer must hold exactly the items
               that the version it names gives. What is p99 while a version is loaded and swapped?
    kill       `kill -9` of one of two workers under light load: which requests fail, and when are both back?

Server and client share this machine. Without ``--bundle`` a random-weight model over 10,000 items is made.

Run: ``python -m benchmarks.serve_chaos [--quick] [--json] [--bundle DIR]``. The bundle is copied, never changed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve_bundle import write_serve_bundle
from genrec.bench.http_client import ConnectionFailed, HttpClient
from genrec.bench.machine import machine, machine_line
from genrec.bench.report import last_line
from genrec.bundle import load_bundle, save_changed_index
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.maintenance import remove_items

COMMAND = "from genrec.cli.main import main; main()"
KEY = "the-key-of-the-admin"
TIMEOUT_MS = 1000
TOP = 10
USERS = 40
IN_FLIGHT = 32  # of the closed loop that measures capacity


@dataclass(frozen=True)
class Effort:
    """How long."""

    capacity_s: float
    overload_s: float
    reloads: int
    kill_s: float


QUICK, FULL = Effort(5, 15, 5, 10), Effort(20, 60, 20, 30)


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


def per_second(outcomes: Sequence[Outcome], seconds: float) -> float:
    return sum(one.status == 200 for one in outcomes) / seconds


def statuses(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {
        str(status or "broken"): count
        for status, count in sorted(Counter(o.status for o in outcomes).items())
    }


def p99_ms(outcomes: Sequence[Outcome]) -> float:
    return 1000 * float(np.quantile([one.seconds for one in outcomes], 0.99)) if outcomes else float("nan")


async def overload(service: Service, histories: Sequence[Sequence[str]], effort: Effort) -> dict[str, Any]:
    load = Load(service.url, histories)
    await load.closed(2, IN_FLIGHT)
    calm = await load.closed(effort.capacity_s, IN_FLIGHT)
    capacity = per_second(calm, effort.capacity_s)
    memory = [service.memory()]

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            memory.append(service.memory())

    watcher = asyncio.ensure_future(watch())
    begin = time.monotonic()
    stormy = await load.open_for(3 * capacity, effort.overload_s)
    seconds = time.monotonic() - begin
    watcher.cancel()
    after = per_second(await load.closed(effort.capacity_s, IN_FLIGHT), effort.capacity_s)
    await load.close()
    third = len(memory) // 3
    return {
        "capacity": capacity,
        "offered": len(stormy) / effort.overload_s,
        "goodput": per_second(stormy, seconds),
        "goodput_share": per_second(stormy, seconds) / capacity,
        "after": after,
        "statuses": statuses(stormy),
        "p99_ms_answered": p99_ms([one for one in stormy if one.status == 200]),
        "memory_mib_before": memory[0],
        "memory_mib_first_third": float(np.mean(memory[:third])),
        "memory_mib_last_third": float(np.mean(memory[-third:])),
        "alive": service.process.poll() is None,
    }


async def reloads(
    service: Service,
    live: Path,
    variants: Sequence[Path],
    histories: Sequence[Sequence[str]],
    effort: Effort,
    rate: float,
) -> dict[str, Any]:
    expected = []  # by variant and user
    for variant in variants:
        answers = Recommender.load(variant).recommend_batch(histories, Wishes(k=TOP))
        expected.append([[item.item_id for item in answer.items] for answer in answers])
    assert all(one != other for one, other in zip(*expected, strict=True))
    load, admin = (
        Load(service.url, histories),
        HttpClient(f"{service.url}/v1/admin/reload", {"authorization": f"Bearer {KEY}"}),
    )
    until = asyncio.Event()
    copy_index(variants[0], live)
    variant_of = {json.loads((await admin.post(b"{}")).body)["model"]: 0}
    asking = asyncio.ensure_future(load.open(rate, until))
    await asyncio.sleep(2)
    windows, refused = [], 0
    for number in range(effort.reloads):
        which = (number + 1) % len(variants)
        await asyncio.to_thread(copy_index, variants[which], live)
        begin = time.monotonic()
        reply = await admin.post(b"{}")
        windows.append((begin, time.monotonic()))
        answer = json.loads(reply.body)
        if reply.status == 200:
            variant_of[answer["model"]] = which
        else:
            refused += 1
        await asyncio.sleep(1)
    until.set()
    outcomes = await asking
    await asyncio.gather(load.close(), admin.close())
    mixed = 0
    for one in outcomes:
        if one.status == 200:
            answer = json.loads(one.body)
            mixed += [item["item_id"] for item in answer["items"]] != expected[variant_of[answer["model"]]][
                one.user
            ]
    during = [o for o in outcomes if any(begin <= o.sent <= end for begin, end in windows)]
    calm = [o for o in outcomes if all(o.sent + o.seconds < begin or o.sent > end for begin, end in windows)]
    return {
        "reloads": effort.reloads,
        "refused_reloads": refused,
        "rate": rate,
        "requests": len(outcomes),
        "failed": sum(one.status != 200 for one in outcomes),
        "statuses": statuses(outcomes),
        "mixed": mixed,
        "versions_answered": len({json.loads(o.body)["model"] for o in outcomes if o.status == 200}),
        "seconds_a_reload": float(np.median([end - begin for begin, end in windows])),
        "p99_ms_during": p99_ms(during),
        "p99_ms_otherwise": p99_ms(calm),
    }


def copy_index(source: Path, target: Path) -> None:
    """Save one bundle over another, in one moment."""
    opened = load_bundle(source)
    save_changed_index(opened.artifact, opened.index, target)


async def kill(
    service: Service, histories: Sequence[Sequence[str]], effort: Effort, rate: float
) -> dict[str, Any]:
    load = Load(service.url, histories)
    asking = asyncio.ensure_future(load.open_for(rate, effort.kill_s))
    await asyncio.sleep(effort.kill_s / 4)
    os.kill(service.events("worker_ready")[0]["worker"], signal.SIGKILL)
    killed = time.monotonic()
    await asyncio.to_thread(service.wait_for, "worker_ready", 3)
    back = time.monotonic() - killed
    outcomes = await asking
    await load.close()
    later = [one for one in outcomes if one.sent > killed + 1]
    return {
        "rate": rate,
        "requests": len(outcomes),
        "statuses": statuses(outcomes),
        "failed_a_second_after_the_kill": sum(one.status != 200 for one in later),
        "both_back_after_s": back,
    }


def two_variants(bundle: Path, folder: Path, histories: Sequence[Sequence[str]]) -> list[Path]:
    """The bundle, and the same without every item that any of these users gets first."""
    first = folder / "one"
    shutil.copytree(bundle, first)
    opened = load_bundle(first)
    best = {
        answer.items[0].item_id for answer in Recommender.load(first).recommend_batch(histories, Wishes(k=1))
    }
    save_changed_index(opened.artifact, remove_items(opened.index, sorted(best)), folder / "other")
    return [first, folder / "other"]


def histories_of(bundle: Path) -> list[list[str]]:
    ids = load_bundle(bundle).index.catalog.item_ids
    rows = np.random.default_rng(0).integers(0, len(ids), (USERS, 12))
    return [[ids[row] for row in user] for user in rows.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    parser.add_argument("--only-overload", action="store_true", help="and nothing else")
    parser.add_argument("--bundle", type=Path, help="an exported bundle; copied first")
    chosen = parser.parse_args()
    effort = QUICK if chosen.quick else FULL
    report: dict[str, Any] = {"machine": machine()}
    print(machine_line(machine()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = chosen.bundle or write_serve_bundle(folder / "made", 10_000)
        histories = histories_of(bundle)
        variants = two_variants(bundle, folder, histories)
        live = folder / "live"
        shutil.copytree(variants[0], live)
        with serving(live, folder, 1) as service:
            report["overload"] = asyncio.run(overload(service, histories, effort))
            show("overload", report["overload"])
            if chosen.only_overload:
                return
            rate = report["overload"]["capacity"] / 2
            report["reloads"] = asyncio.run(reloads(service, live, variants, histories, effort, rate))
            show("reloads", report["reloads"])
        with serving(live, folder, 2) as service:
            report["kill"] = asyncio.run(kill(service, histories, effort, rate / 2))
            show("kill", report["kill"])
            report["reloads_of_two"] = asyncio.run(reloads(service, live, variants, histories, effort, rate))
            show("reloads, two workers", report["reloads_of_two"])
    if chosen.json:
        print(last_line(report))


def show(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}")
    for key, value in figures.items():
        print(f"  {key:32} {value:.3f}" if isinstance(value, float) else f"  {key:32} {value}", flush=True)


if __name__ == "__main__":
    main()
