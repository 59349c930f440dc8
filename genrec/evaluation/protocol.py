"""How a bundle is measured: full ranking of held-out events, baselines in the same table, no leakage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import numpy as np

from genrec.evaluation.baselines import Baseline, Bm25Last, Popularity, TextLast
from genrec.evaluation.cooccurrence import Cooccurrence, CooccurrenceText
from genrec.evaluation.metrics import measure
from genrec.recommender import Recommender
from genrec.tasks import Mode
from genrec.wishes import Wishes
from index.build import training_part
from index.errors import HistoryError, LeakageError
from index.histories import Cases, Histories, leave_one_out, temporal_split
from index.item_index import ItemIndex
from index.leakage import leaked
from index.types import Int32Array, IntArray, UInt64Array

Split: TypeAlias = Literal["leave-one-out", "temporal"]
Part: TypeAlias = Literal["test", "validation"]
RankProgress: TypeAlias = Callable[[str, int, int], None]

BATCH = 256  # requests searched together
DEPTH = 10  # items ranked per case


@dataclass(frozen=True)
class Evaluation:
    """Figures of every system over the same cases."""

    split: str
    part: Part
    users: int
    systems: dict[str, dict[str, float]]
    seconds: dict[str, float]  # wall time to rank, per system


def rank_cases(
    recommender: Recommender,
    cases: Cases,
    k: int = DEPTH,
    mode: Mode | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Int32Array:
    """int32[C, k]: what a recommender returns for each case, as catalog rows, -1 where it returned fewer."""
    ranked = np.full((len(cases), k), -1, np.int32)
    wishes = Wishes(k=k, mode=mode)
    for begin in range(0, len(cases), BATCH):
        batch = range(begin, min(begin + BATCH, len(cases)))
        results = recommender.search_rows([cases.history_of(case) for case in batch], wishes)
        for case, result in zip(batch, results, strict=True):
            rows = recommender.rows_of(result, wishes)
            ranked[case, : len(rows)] = rows
        if progress is not None:
            progress(batch.stop, len(cases))
    return ranked


def figures(ranked: IntArray, targets: IntArray, items: int) -> dict[str, float]:
    """The metrics of one system, name to value."""
    return {**cast("dict[str, float]", measure(ranked, targets, items))}


def evaluate(
    recommender: Recommender,
    trained_events: UInt64Array,
    histories: Histories,
    *,
    split: Split = "leave-one-out",
    part: Part = "test",
    users: int | None = None,
    baselines: bool = True,
    seed: int = 0,
    progress: RankProgress | None = None,
) -> Evaluation:
    """Rank every held-out event and compare with the baselines.

    Args:
        recommender: the bundle under test, asked with its own defaults.
        trained_events: uint64[T], hashes of the events the bundle was built and trained on.
        histories: whole histories, the same file the bundle was trained from.
        split: ``leave-one-out`` (each user's last event; the one before it for validation) or ``temporal``
            (events after a point in global time).
        part: ``test`` or ``validation``.
        users: sample so many cases (seeded); all where not given.
        baselines: also fit and rank the baselines, on training events only.
        seed: of the sample.
        progress: told the system and how far it is.

    Raises:
        LeakageError: the bundle has been trained on events it is to be measured on.
        HistoryError: there is nothing to measure on.
    """
    cases, training = _cases_and_training(histories, split, part)
    if not len(cases):
        raise HistoryError(f"expected held-out events for split '{split}', got none; histories are too short")
    _refuse_leakage(cases, histories, recommender.index.catalog.item_ids, trained_events)
    if users is not None and users < len(cases):
        cases = cases.take(np.sort(np.random.default_rng(seed).choice(len(cases), users, replace=False)))
    items = len(recommender.index.catalog)
    tell = progress or (lambda system, done, total: None)
    systems: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    started = time.monotonic()
    ranked = rank_cases(recommender, cases, DEPTH, progress=lambda done, total: tell("genrec", done, total))
    systems["genrec"] = figures(ranked, cases.target, items)
    seconds["genrec"] = round(time.monotonic() - started, 2)
    fitted: list[Baseline] = fit_baselines(recommender.index, training) if baselines else []
    for baseline in fitted:
        tell(baseline.name, 0, len(cases))
        started = time.monotonic()
        systems[baseline.name] = figures(baseline.rank(cases, DEPTH), cases.target, items)
        seconds[baseline.name] = round(time.monotonic() - started, 2)
        tell(baseline.name, len(cases), len(cases))
    return Evaluation(split, part, len(cases), systems, seconds)


def fit_baselines(index: ItemIndex, training: Histories) -> list[Baseline]:
    """Every baseline over one index, fitted on training events only."""
    items, titles, text = len(index.catalog), index.catalog.titles, np.asarray(index.vectors.text)
    baselines: list[Baseline] = [
        Popularity(training, items),
        Bm25Last(index.bm25, titles),
        Bm25Last(index.bm25, titles, last=5),
        TextLast(text),
        Cooccurrence(training, items),
        CooccurrenceText(training, text),
    ]
    return baselines


def _cases_and_training(histories: Histories, split: Split, part: Part) -> tuple[Cases, Histories]:
    """What is to be predicted, and what the baselines may learn from (never either held-out part)."""
    if split == "temporal":
        parts = temporal_split(histories)
        return (parts.test if part == "test" else parts.validation), parts.train
    return leave_one_out(histories, part), training_part(histories, "last-two")


def _refuse_leakage(cases: Cases, histories: Histories, item_ids: list[str], trained: UInt64Array) -> None:
    guilty = int(leaked(cases, histories.user_ids, item_ids, trained).sum())
    if guilty:
        raise LeakageError(
            f"expected a bundle that has not seen the events it is measured on, got one trained on {guilty:,} "
            f"of {len(cases):,}; build the index and train with the hold-out that matches --split "
            f"(last-two for leave-one-out, temporal for temporal), or evaluate on other users"
        )
