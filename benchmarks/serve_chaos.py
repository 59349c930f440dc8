"""Does `genrec serve` stay upright: overloaded, reloaded under load, with a worker killed?

    overload   requests at three times the measured capacity (Poisson), each giving up after a second. How much
               of the capacity is still answered within that second, is the rest refused in the documented way
               (429, 504), and does memory stay what it was? The client is the same throughout; three times the
               requests are three times its work, which is taken from the server's cores.
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
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve_bundle import write_serve_bundle
from benchmarks.serve_chaos_load import KEY, TIMEOUT_MS, TOP, Cores, Load, Outcome, Service, serving
from genrec.bench.http_client import HttpClient
from genrec.bench.machine import machine, machine_line
from genrec.bench.report import last_line
from genrec.bundle import load_bundle, save_changed_index
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.maintenance import remove_items

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


def per_second(outcomes: Sequence[Outcome], seconds: float) -> float:
    """Answers that the client had before it would have given up."""
    return sum(one.status == 200 and one.seconds <= TIMEOUT_MS / 1000 for one in outcomes) / seconds


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
    clock = Cores(service.process.pid)
    calm = await load.closed(effort.capacity_s, IN_FLIGHT)
    capacity = per_second(calm, effort.capacity_s)
    calm_cores = clock.used()
    memory = [service.memory()]

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            memory.append(service.memory())

    watcher = asyncio.ensure_future(watch())
    clock = Cores(service.process.pid)
    begin = time.monotonic()
    stormy = await load.open_for(3 * capacity, effort.overload_s)
    seconds = time.monotonic() - begin
    stormy_cores = clock.used()
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
        "answered_late": sum(one.status == 200 and one.seconds > TIMEOUT_MS / 1000 for one in stormy),
        "p99_ms_answered": p99_ms([one for one in stormy if one.status == 200]),
        "p99_ms_refused": p99_ms([one for one in stormy if one.status == 429]),
        "cores_calm": calm_cores,
        "cores_overloaded": stormy_cores,
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
