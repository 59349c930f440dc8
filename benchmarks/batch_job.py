"""Does a batch over many users, killed twice, answer each exactly once, in bounded memory, alike on every engine?

Histories are resampled from real ones: a random user's history, cut at a random place. ``genrec batch`` runs as a
user runs it; it is killed with -9 after a third and after two thirds of the shards and resumed; then the whole job
runs again on Ray (where it is installed) and both files are compared bit for bit. Memory is the proportional set size
of the command and all its workers together, sampled twice a second (shared pages count once), Ray's left out.

    python -m benchmarks.batch_job runs/beauty sequences.txt --users 200000
    python -m benchmarks.batch_job runs/beauty sequences.txt --quick --json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.bench.machine import machine

GENREC = [sys.executable, "-c", "from genrec.cli.main import main; main()"]


def write_users(sequences: Path, out: Path, users: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    real = [line.split()[1:] for line in sequences.read_text().splitlines()]
    chosen = rng.integers(len(real), size=users)
    share = rng.random(users)
    histories = [
        real[one][: max(1, round(part * len(real[one])))] for one, part in zip(chosen, share, strict=True)
    ]
    ids = [f"u{number}" for number in range(users)]
    schema = {"user_id": pl.String, "history": pl.List(pl.String)}
    pl.DataFrame({"user_id": ids, "history": histories}, schema=schema).write_parquet(out)


@dataclass
class Memory:
    """The largest proportional set size of a process and all below it, in MiB."""

    pid: int
    peak: float = 0.0

    def watch(self, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            self.peak = max(self.peak, sum(_pss(one) for one in _tree(self.pid)) / 1024)


def _tree(pid: int) -> list[int]:
    found, new = [], [pid]
    while new:
        one = new.pop()
        found.append(one)
        for tasks in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                new.extend(int(child) for child in tasks.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def run(command: list[str], parts: Path, kill_at: int | None, memory: list[float]) -> bool:
    """Run until the end, or until so many parts are there; whether it ended by itself."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watch, stop = Memory(process.pid), threading.Event()
    watching = threading.Thread(target=watch.watch, args=(stop,))
    watching.start()
    while process.poll() is None:
        if kill_at is not None and len(list(parts.glob("part-*"))) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.05)
    ended = process.wait() == 0
    stop.set()
    watching.join()
    memory.append(watch.peak)
    return ended


def measure(
    bundle: Path, sequences: Path, users: int, shard: int, seed: int, with_ray: bool
) -> dict[str, Any]:
    figures: dict[str, Any] = {"machine": machine(), "users": users, "shard_users": shard}
    with tempfile.TemporaryDirectory() as temporary:
        source, out = Path(temporary) / "users.parquet", Path(temporary) / "recs.parquet"
        write_users(sequences, source, users, seed)
        shards = -(-users // shard)
        common = [
            *GENREC,
            "batch",
            str(bundle),
            "--input",
            str(source),
            "--shard-users",
            str(shard),
            "--quiet",
        ]
        memory: list[float] = []
        started = time.monotonic()
        local = [*common, "--out", str(out)]
        parts = out.with_name("recs.parquet.parts")
        for kill_at in (shards // 3, 2 * shards // 3):
            assert not run([*local, "--resume"], parts, max(1, kill_at), memory)
            print(f"killed with {len(list(parts.glob('part-*')))} of {shards} shards done", file=sys.stderr)
        assert run([*local, "--resume"], parts, None, memory)
        figures["seconds"] = round(time.monotonic() - started, 1)
        figures["peak_mib"] = round(max(memory))
        table = pl.read_parquet(out)
        figures["rows"] = len(table)
        figures["each_once_in_order"] = table["user_id"].equals(pl.read_parquet(source)["user_id"])
        figures["ten_items_each"] = bool((table["item_ids"].list.n_unique() == 10).all())
        figures["sha256"] = hashlib.sha256(out.read_bytes()).hexdigest()
        figures["ray_is_the_same"] = None
        if with_ray:
            ray_out = Path(temporary) / "ray.parquet"
            started = time.monotonic()
            command = [*common, "--out", str(ray_out), "--engine", "ray"]
            assert run(command, Path(temporary) / "ray.parquet.parts", None, [])
            figures["ray_seconds"] = round(time.monotonic() - started, 1)
            figures["ray_is_the_same"] = ray_out.read_bytes() == out.read_bytes()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--shard", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-ray", action="store_true", help="leave the second run out")
    parser.add_argument("--quick", action="store_true", help="5,000 users in shards of 512, without Ray")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on the last line")
    asked = parser.parse_args()
    users, shard = (5000, 512) if asked.quick else (asked.users, asked.shard)
    with_ray = not asked.no_ray and not asked.quick and find_spec("ray") is not None
    figures = measure(asked.bundle, asked.sequences, users, shard, asked.seed, with_ray)
    if asked.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<20} {value}")


if __name__ == "__main__":
    main()
