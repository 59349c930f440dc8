"""How well does genrec recommend beside strong baselines, from raw files, with the defaults, in the same time?

One command a data set: builds the index, trains genrec, SASRec with full-softmax cross-entropy and TIGER (token-level
T5, codes of text alone) for the same minutes of optimisation with the same threads, fits the training-free baselines,
and ranks every held-out event over the whole catalog by the code of ``genrec evaluate``. Validation while training
counts as time; choosing on validation how a bundle is asked (normalisation, history prior) comes after, and its
seconds are in the table of costs. Means and deviations over seeds, costs, paired bootstrap against genrec (all cases,
users of at most five training events, targets never seen in training), published figures with their source. Every
(system, seed) is a process of its own and a kept part: a killed run goes on. Parts of another question (code, data)
are moved aside as ``NAME.stale``, never deleted, and never reported beside these.

    python -m benchmarks.quality beauty --minutes 27 --seeds 3
    python -m benchmarks.quality games --minutes 55 --seeds 3 --peer-seeds 1
    python -m benchmarks.quality movielens-small --minutes 1 --seeds 1 --part validation

Selection looks at validation events only. ``--part validation`` measures on them, too: for whoever is still choosing.
Writes ``report.json``, ``report.md`` and ``quality.svg`` to benchmarks/results/quality/DATASET; the last line printed
is one JSON object: ``dataset``, ``minutes``, ``systems.<name>.<metric>`` as mean, spread and seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.quality_data import DATA_SETS, open_data_set
from benchmarks.quality_parts import FREE, GENREC, INDEX, SASREC, TIGER, TRAINED, Asked, files_of, is_done
from benchmarks.quality_report import markdown, other_questions, plot, read_parts, report_of
from genrec.bench.machine import machine
from genrec.bench.report import last_line
from genrec.bench.report_files import MARKDOWN, REPORT, check_report_place, write_report

RESULTS = Path(__file__).parent / "results" / "quality"
SYSTEMS = (GENREC, *FREE, SASREC, TIGER)
STALE = ".stale"
LAST_LINE = (
    *("dataset", "minutes", "steps", "part", "cases", "sparse_users", "cold_targets"),
    *("systems", "costs", "against"),
)


def jobs(systems: list[str], seeds: int, peer_seeds: int) -> list[tuple[str, int]]:
    """What is run, in order: every seed's index first, what needs no training next. Free systems have no seed."""
    count = {GENREC: seeds, SASREC: peer_seeds, TIGER: peer_seeds}
    order: list[tuple[str, int]] = [(INDEX, seed) for seed in range(seeds)]
    order += [(system, 0) for system in systems if system in FREE]
    return order + [
        (system, seed) for system in systems if system in TRAINED for seed in range(count[system])
    ]


def run(asked: Asked, systems: list[str], seeds: int, peer_seeds: int, *, quiet: bool) -> None:
    """Run what is not there yet, one process after another; ends the program where one fails."""
    fingerprint = open_data_set(DATA_SETS[asked.dataset], asked.data).fingerprint
    every = jobs(systems, seeds, peer_seeds)
    began = time.monotonic()
    for number, (system, seed) in enumerate(every, 1):
        head = f"[{time.monotonic() - began:7.0f} s] {number} of {len(every)}: {system}, seed {seed}"
        if is_done(asked, system, seed, fingerprint):
            print(f"{head}: kept", file=sys.stderr, flush=True)
            continue
        print(head, file=sys.stderr, flush=True)
        move_stale(asked, system, seed, fingerprint)
        request = {
            **asdict(asked),
            "data": str(asked.data),
            "work": str(asked.work),
            "system": system,
            "seed": seed,
        }
        environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.quality_parts", json.dumps(request)],
            check=False,
            env=environment,
            stderr=subprocess.PIPE if quiet else None,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        if done.returncode:
            sys.exit(
                f"{done.stderr or ''}{system}, seed {seed} failed (exit code {done.returncode}); what is done is "
                "kept: the same command goes on from there"
            )


def move_stale(asked: Asked, system: str, seed: int, fingerprint: str) -> None:
    """Leave nothing of another question in the way: it may have taken hours, so it is moved aside and not deleted.

    A checkpoint of this question stays, and is gone on from.
    """
    asked.work.mkdir(parents=True, exist_ok=True)
    stem = f"{system}-{seed}"
    note = asked.work / f"{stem}.asked"
    question = json.dumps(asked.question(fingerprint), sort_keys=True)
    if note.is_file() and note.read_text("utf-8") == question:
        return
    left = [*asked.work.glob(stem), *asked.work.glob(f"{stem}.*")]
    moved = []
    for path in sorted(one for one in left if one.suffix != STALE):
        aside = path.with_name(path.name + STALE)
        if aside.is_dir():
            shutil.rmtree(aside)
        path.replace(aside)
        moved.append(aside.name)
    if moved:
        print(
            f"    it was asked something else before (code, data or settings); moved aside in {asked.work}: "
            f"{', '.join(moved)}",
            file=sys.stderr,
            flush=True,
        )
    note.write_text(question, "utf-8")


def collect(asked: Asked, systems: list[str], seeds: int, peer_seeds: int) -> dict[str, Any]:
    """The report over what is there; it ends the program where parts were asked different things."""
    opened = open_data_set(DATA_SETS[asked.dataset], asked.data)
    indexes = [json.loads(files_of(asked, INDEX, seed)[0].read_text("utf-8")) for seed in range(seeds)]
    ordered = [name for name in SYSTEMS if name in systems]
    every = jobs(ordered, seeds, peer_seeds)
    parts = read_parts(asked, sorted(every[seeds:], key=lambda job: ordered.index(job[0])))
    others = other_questions([*indexes, *(part.record for part in parts)])
    if others:
        sys.exit(
            f"expected parts that were all asked the same as {indexes[0]['system']}, seed {indexes[0]['seed']}, got "
            f"{'; '.join(others)}: no table can hold them side by side; the same command again makes those anew that "
            "are not of the code and data as they are now"
        )
    return report_of(asked, opened.about, len(opened.catalog), parts, indexes, machine())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=list(DATA_SETS))
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="directory with a folder a data set"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--peer-seeds", type=int, help="of SASRec and TIGER; as --seeds where not given")
    parser.add_argument(
        "--minutes", type=float, default=27.0, help="of optimisation, of each trained system, a seed"
    )
    parser.add_argument("--steps", type=int, help="training steps instead: for a machine that others use")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--part", choices=("test", "validation"), default="test", help="what is measured on")
    parser.add_argument("--users", type=int, help="measure on a sample of cases; all where not given")
    parser.add_argument("--systems", help="rows to run, separated by commas: " + ",".join(SYSTEMS))
    parser.add_argument("--text-encoder", default="auto", help="of the index; its default")
    parser.add_argument(
        "--tiger-base", default="t5-tiger", help="a config instead of TIGER's shape, for tests"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="where parts are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where reports are written")
    parser.add_argument("--fresh", action="store_true", help="throw kept parts of this question away")
    parser.add_argument("--quiet", action="store_true", help="no progress of the parts")
    parser.add_argument("--json", action="store_true", help="print the JSON object alone")
    given = parser.parse_args()
    systems = given.systems.split(",") if given.systems else list(SYSTEMS)
    unknown = [name for name in systems if name not in SYSTEMS]
    peer_seeds = given.seeds if given.peer_seeds is None else given.peer_seeds
    if unknown or not 1 <= peer_seeds <= given.seeds:
        parser.error(
            f"expected systems of {', '.join(SYSTEMS)}, a seed or more and no more of peers, got "
            + (str(unknown) if unknown else f"--seeds {given.seeds} --peer-seeds {peer_seeds}")
        )
    budget = f"{given.steps}steps" if given.steps else f"{given.minutes:g}min"
    cases = f"-{given.users}users" if given.users else ""
    work = given.work / given.dataset / f"{budget}-{given.part}-{given.threads}threads{cases}"
    if given.fresh:
        shutil.rmtree(work, ignore_errors=True)
    asked = Asked(
        dataset=given.dataset,
        data=given.data,
        work=work,
        minutes=given.minutes,
        steps=given.steps,
        threads=given.threads,
        part=given.part,
        users=given.users,
        text_encoder=given.text_encoder,
        tiger_base=given.tiger_base,
    )
    place = given.out / given.dataset
    check_report_place(place)
    run(asked, systems, given.seeds, peer_seeds, quiet=given.quiet)
    report = collect(asked, systems, given.seeds, peer_seeds)
    text = markdown(report)
    write_report(place, {REPORT: last_line(report) + "\n", MARKDOWN: text, "quality.svg": plot(report)})
    if not given.json:
        print(text)
    print(last_line({name: report[name] for name in LAST_LINE}))


if __name__ == "__main__":
    main()
