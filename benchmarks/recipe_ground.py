"""What the T1 checks of recipes stand on: test users, thresholds, paired intervals, and how a figure is told."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genrec.bench.bootstrap import draws
from genrec.bundle import load_bundle
from genrec.recipes import RecipeAnswer
from genrec.recommender import Recommender
from index.histories import Cases, Histories, hold_out_last, leave_one_out
from index.history_readers import read_interactions
from index.types import ItemId

THRESHOLDS = tomllib.loads((Path(__file__).parent / "recipe_thresholds.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Case:
    """A user: what was chosen before the test event, and the event."""

    history: list[ItemId]
    target: ItemId
    rows: np.ndarray


@dataclass(frozen=True)
class Ground:
    """What every check stands on."""

    recommender: Recommender
    train: Histories
    cases: list[Case]  # of all seeds, one after the other
    seeds: int
    rng: np.random.Generator

    def ids(self, rows: Sequence[int]) -> list[ItemId]:
        return [self.recommender.index.catalog.item_ids[row] for row in rows]


@dataclass(frozen=True)
class Measured:
    recipe: str
    what: str
    figure: float
    threshold: float
    sense: str
    note: str = ""

    @property
    def passed(self) -> bool:
        return {
            ">": self.figure > self.threshold,
            "<=": self.figure <= self.threshold,
            ">=": self.figure >= self.threshold,
            "==": self.figure == self.threshold,
        }[self.sense]


def hit(answer: RecipeAnswer, target: ItemId, k: int) -> float:
    return float(target in answer.ids[:k])


def gain(after: Sequence[float], before: Sequence[float]) -> str:
    """The 95 % interval of a mean difference, paired."""
    difference = np.array(after) - np.array(before)
    low, high = np.quantile(difference[draws(len(difference), 0)].mean(1), [0.025, 0.975])
    return f"{np.mean(after):.4f} against {np.mean(before):.4f}, 95 % {low:+.4f} .. {high:+.4f}"


def low_end(after: Sequence[float], before: Sequence[float]) -> float:
    difference = np.array(after) - np.array(before)
    return float(np.quantile(difference[draws(len(difference), 0)].mean(1), 0.025))


def ndcg(ids: Sequence[ItemId], target: ItemId, k: int = 10) -> float:
    return 1 / float(np.log2(2 + list(ids).index(target))) if target in ids[:k] else 0.0


def ground_of(bundle: Path, interactions: Path, users: int, seeds: int) -> Ground:
    opened = load_bundle(bundle)
    histories = read_interactions(interactions, opened.index.catalog).histories
    cases: Cases = leave_one_out(histories, "test")
    ids = opened.index.catalog.item_ids
    drawn = []
    for seed in range(seeds):
        for case in np.random.default_rng(seed).choice(len(cases), users, replace=False).tolist():
            rows = cases.history_of(case)
            drawn.append(Case([ids[row] for row in rows.tolist()], ids[int(cases.target[case])], rows))
    return Ground(
        Recommender.of_bundle(opened), hold_out_last(histories, 2), drawn, seeds, np.random.default_rng(7)
    )


def show(found: Sequence[Measured], seconds: float) -> None:
    """Print what was measured, and what it took."""
    for one in found:
        line = f"{one.recipe:<14} {one.what}: {one.figure:.4f} {one.sense} {one.threshold:g} "
        print(line + ("pass" if one.passed else "FAIL"), f"({one.note})" if one.note else "", flush=True)
    print(f"{'':<14} {seconds:.1f} s of CPU", flush=True)
