"""Does tuning do what the papers of TALLRec, 360Brew and PALR say it does? (T1, in prose)

A small language model in prose is tuned on instructions (``genrec train --base BASE --tasks yes_no``) and measured
on held-out test events of a leave-one-out split, against ``recipe_thresholds.toml``. Histories here hold no
ratings: "no" is an item that was drawn. The base is made by::

    genrec train --base config.json --form prose --tasks title --loss-on all --text-size 2048 --batch-size 16 …

Run::

    python -m benchmarks.recipe_tuning BASE --interactions FILE --out DIR [--steps 60] [--users 100] [--only tallrec]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.recipe_ground import THRESHOLDS, Case, Ground, Measured, gain, ground_of, low_end, ndcg, show
from genrec.bundle import load_bundle
from genrec.recipes import palr, tall_rec
from genrec.recipes.brew360 import TASKS
from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.instructions import BREW, SHOTS, brew_lesson
from genrec.recipes.lessons import Lessons, Moment
from genrec.recommender import Recommender
from genrec.training.adapters import LoraSettings
from genrec.training.finetune import finetune_bundle
from genrec.training.finetune_settings import FinetuneSettings
from index.histories import Histories
from index.history_readers import read_interactions

NEW_WORDING = "Would this person enjoy it, yes or no?"
"""A question that no training prompt asks."""


@dataclass(frozen=True)
class Bench:
    base: Path
    histories: Histories
    out: Path
    steps: int
    ground: Ground

    def tuned(self, name: str, tasks: Mapping[str, float], base: str = "", **changes: object) -> Recommender:
        """A model tuned on instructions, from the base or an earlier one; one that lies there is taken as it is."""
        path = self.out / name
        if not (path / "manifest.json").is_file():
            began = time.process_time()
            settings = FinetuneSettings(
                str(self.out / base if base else self.base),
                tasks=tasks,
                batch_size=16,
                max_items=12,
                **{"learning_rate": 1e-3, **changes},
            )  # type: ignore[arg-type]
            result = finetune_bundle(load_bundle(self.base).index, self.histories, path, settings=settings)
            share = result.trained / result.parameters
            seconds = time.process_time() - began
            print(f"{name}: {result.steps} steps, {share:.1%} of the weights, {seconds:.0f} s of CPU")
        return Recommender.load(path)


def auc(positive: list[float], negative: list[float]) -> float:
    """The probability that one of the first is above one of the second."""
    first, second = np.array(positive)[:, None], np.array(negative)[None]
    return float(np.mean((first > second) + 0.5 * (first == second)))


def check_tallrec(bench: Bench) -> list[Measured]:
    rng = np.random.default_rng(3)
    catalog = bench.ground.recommender.index.catalog.item_ids
    drawn = [catalog[int(place)] for place in rng.integers(0, len(catalog), len(bench.ground.cases))]

    def measured(recommender: Recommender) -> float:
        positive, negative = [], []
        for case, other in zip(bench.ground.cases, drawn, strict=True):
            answer = tall_rec(recommender, case.history[-12:], [case.target, other])
            share = {one.item_id: one.score or 0.0 for one in answer.items}
            positive.append(share[case.target])
            negative.append(share[other])
        return auc(positive, negative)

    # The first round teaches to answer at all: a base of titles has never written a Yes or a No.
    first = {"brew_kind": 1.0, "brew_known": 1.0}
    untuned = measured(bench.tuned("tallrec_first", first, steps=2 * bench.steps))
    found: dict[int, list[float]] = {16: [], 64: [], 256: []}
    for few, values in found.items():
        for seed in range(bench.ground.seeds):
            values.append(
                measured(
                    bench.tuned(
                        f"tallrec_{few}_{seed}", {"yes_no": 1.0}, "tallrec_first", examples=few, seed=seed,
                        steps=bench.steps, lora=LoraSettings(8, 16.0), learning_rate=3e-3,
                    )
                )
            )  # fmt: skip
            print(f"tallrec K={few} seed {seed}: AUC {values[-1]:.4f} (untuned {untuned:.4f})", flush=True)
    mean = [float(np.mean(values)) for values in found.values()]
    falls = sum(after <= before for before, after in pairwise(mean))
    note = "; ".join(f"K={few}: {np.mean(v):.4f} ± {np.std(v):.4f}" for few, v in found.items())
    own = THRESHOLDS["tallrec"]
    return [
        Measured("tallrec", "AUC(256) less AUC(untuned)", mean[-1] - untuned, own["tuned_gain"], ">=", note),
        Measured("tallrec", "falls of the mean AUC from K to the next", falls, own["falls"], "=="),
    ]


def asked_auc(bench: Bench, recommender: Recommender, name: str, shots: int, wording: str = "") -> float:
    """The AUC of a task's first label over test events, with so many past items, in another wording where given."""
    lessons, talk = Lessons(recommender.index, bench.ground.train.items), CatalogTalk(recommender)
    shares: dict[bool, list[float]] = {True: [], False: []}
    rng = np.random.default_rng([5, list(BREW).index(name)])
    labels = TASKS[name].labels
    for case in bench.ground.cases:
        lesson = brew_lesson(name, lessons, moment_of(case, recommender), rng, shots)
        usual = lesson.prompt[: lesson.prompt.index("\n")]
        session = talk.open(lesson.prompt.replace(usual, wording or usual, 1))
        shares[lesson.answers[0] == labels[0]].append(float(session.score(labels).share[0]))
    return auc(shares[True], shares[False])


def moment_of(case: Case, recommender: Recommender) -> Moment:
    catalog = recommender.index.catalog
    return Moment(case.rows[-12:].tolist(), catalog.rows_of([case.target]).tolist())


def check_brew360(bench: Bench) -> list[Measured]:
    together = bench.tuned("brew_all", {f"brew_{n}": 1.0 for n in BREW}, steps=len(BREW) * bench.steps)
    found = {}
    for name in BREW:
        twin = bench.tuned(f"brew_{name}", {f"brew_{name}": 1.0}, steps=bench.steps)
        found[name] = (asked_auc(bench, together, name, SHOTS), asked_auc(bench, twin, name, SHOTS))
        print(f"brew360 {name}: {found[name][0]:.4f} together, {found[name][1]:.4f} alone", flush=True)
    by_shots = [np.mean([asked_auc(bench, together, name, n) for name in BREW]) for n in (0, 4, SHOTS)]
    other = asked_auc(bench, together, "like", SHOTS, NEW_WORDING)
    half = len(bench.ground.cases) / 2
    error = np.sqrt((2 * half + 1) / (12 * half * half))  # of an AUC under chance (Mann and Whitney)
    own, note = THRESHOLDS["brew360"], "; ".join(f"{n} {a:.3f} / {b:.3f}" for n, (a, b) in found.items())
    shots = " ".join(f"{one:.4f}" for one in by_shots)
    # An AUC of 0, which a handful of users can have, is below nothing.
    share = min(one / alone if alone else float("inf") for one, alone in found.values())
    slope = float(np.polyfit([0, 4, SHOTS], by_shots, 1)[0])
    sigmas = (other - 0.5) / error
    return [
        Measured("brew360", "tasks of the one checkpoint", len(found), own["tasks"], ">="),
        Measured("brew360", "least AUC of a task over that of its twin", share, own["twin_share"], ">=", note),
        Measured("brew360", "slope of the mean AUC over 0, 4, 16 past items", slope, own["slope"], ">", shots),
        Measured("brew360", "AUC under a wording never trained, sigmas above chance", sigmas,
                 own["wording_sigmas"], ">", f"AUC {other:.4f}"),
    ]  # fmt: skip


def check_palr(bench: Bench) -> list[Measured]:
    alone = bench.tuned("palr_recommend", {"recommend": 1.0, "profile": 0.5}, steps=2 * bench.steps)
    both = bench.tuned(
        "palr_retrieval",
        {"recommend": 0.5, "recommend_retrieval": 0.5, "profile": 0.5},
        steps=2 * bench.steps,
    )
    rng, ids = np.random.default_rng(11), alone.index.catalog.item_ids
    after, before, outside = [], [], 0
    for case in bench.ground.cases:
        others = [one for one in rng.choice(ids, 25, replace=False).tolist() if one not in case.history]
        candidates = [case.target, *(one for one in others if one != case.target)][:20]
        candidates = [candidates[place] for place in rng.permutation(len(candidates))]
        for recommender, figures in ((both, after), (alone, before)):
            answer = palr(recommender, case.history[-12:], k=10, candidates=candidates)
            figures.append(ndcg(answer.ids, case.target))
            outside += len(set(answer.ids) - set(candidates))
    own = THRESHOLDS["palr"]
    return [
        Measured("palr", "NDCG@10 tuned on both instructions less on Recommend alone: low end",
                 low_end(after, before), own["retrieval_gain"], ">", gain(after, before)),
        Measured("palr", "items outside the candidates", outside, own["outside"], "=="),
    ]  # fmt: skip


CHECKS: dict[str, Callable[[Bench], list[Measured]]] = {
    "tallrec": check_tallrec,
    "brew360": check_brew360,
    "palr": check_palr,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60, help="of 16 lessons, for each task")
    parser.add_argument("--users", type=int, default=100, help="test users of each seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(CHECKS), default=list(CHECKS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    ground = ground_of(asked.base, asked.interactions, asked.users, asked.seeds)
    histories = read_interactions(asked.interactions, ground.recommender.index.catalog).histories
    bench = Bench(asked.base, histories, asked.out, asked.steps, ground)
    for name in asked.only:
        began = time.process_time()
        show(CHECKS[name](bench), time.process_time() - began)


if __name__ == "__main__":
    main()
