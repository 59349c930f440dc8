"""How a bundle is measured: full ranking of held-out events, baselines in the same table, no leakage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, cast

import numpy as np

from genrec.evaluation.baselines import Baseline, Bm25Last, Popularity, TextLast
from genrec.evaluation.calibration import ListCalibration
from genrec.evaluation.cooccurrence import Cooccurrence, CooccurrenceText
from genrec.evaluation.ranking import BATCH, Ranked, Told, batches, rank_cases, ranked_cases
from genrec.evaluation.variants import Way, variants
from genrec.evaluation.yardstick import DEPTH, Yardstick, figures
from genrec.history_prior import HistoryPrior
from genrec.modes import TrieMode
from genrec.recommender import Recommender
from genrec.tasks import Mode
from genrec.wishes import Wishes
from index.build import training_part
from index.errors import HistoryError, LeakageError
from index.histories import Cases, Histories, leave_one_out, temporal_split
from index.item_index import ItemIndex
from index.leakage import leaked
from index.types import UInt64Array

Split: TypeAlias = Literal["leave-one-out", "temporal"]
Part: TypeAlias = Literal["test", "validation"]
RankProgress: TypeAlias = Callable[[str, int, int], None]
Fit: TypeAlias = Callable[[Histories], Baseline]
"""Fits a baseline to training events."""

__all__ = ["DEPTH", "Evaluation", "baseline_fits", "evaluate", "evaluate_baselines", "figures", "rank_cases"]

ROWS = {"semantic_id": "genrec", "title": "genrec-title", "query": "genrec-query"}
"""The row of each mode; what is asked otherwise has its own name behind ``genrec-``."""
PRIOR_ROW = "history-prior"
"""The row of the bundle's history prior without its model: what the model has to be worth more than."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of every system over the same cases."""

    split: str
    part: Part
    users: int
    systems: dict[str, dict[str, float]]
    seconds: dict[str, float]  # wall time to rank, per system
    label_fields: tuple[str, ...]  # that diversity and the coverage of interests look at
    sparse_users: int  # cases of users with few training events
    cold_targets: int  # cases whose target is in no training event
    calibration: dict[str, ListCalibration]  # of systems that give probabilities
    lists: dict[str, Ranked]  # what each system returned


def evaluate(
    recommender: Recommender,
    trained_events: UInt64Array,
    histories: Histories,
    *,
    split: Split = "leave-one-out",
    part: Part = "test",
    users: int | None = None,
    baselines: bool = True,
    modes: Sequence[str] | None = None,
    with_variants: bool = False,
    label_fields: Sequence[str] | None = None,
    seed: int = 0,
    progress: RankProgress | None = None,
) -> Evaluation:
    """Rank every held-out event and compare with the baselines.

    Args:
        recommender: the bundle under test, asked with its own defaults; a row for each mode (:data:`ROWS`). Where a
            history prior is mixed in there are two more: one with ``-model`` behind its name for the model alone, and
            :data:`PRIOR_ROW` for the prior alone.
        trained_events: uint64[T], hashes of the events the bundle was built and trained on.
        histories: whole histories, the same file the bundle was trained from.
        split: ``leave-one-out`` (each user's last event; the one before it for validation) or ``temporal``
            (events after a point in global time).
        part: ``test`` or ``validation``.
        users: sample so many cases (seeded); all where not given.
        baselines: also fit and rank the baselines, on training events only.
        modes: which of the recommender's; all where not given.
        with_variants: also ask the text modes in other ways (:mod:`genrec.evaluation.variants`).
        label_fields: catalog fields that say what kind of thing an item is, for ``diversity@40`` and
            ``coverage@40`` (:mod:`genrec.evaluation.interests`); as :meth:`index.labels.Labels.of` chooses them
            where not given.
        seed: of the sample.
        progress: told the system and how far it is.

    Raises:
        LeakageError: the bundle has been trained on events it is to be measured on.
        HistoryError: there is nothing to measure on.
        RequestError: a mode the recommender does not have, or a field the catalog does not have.
    """
    chosen = list(recommender.modes) if modes is None else list(modes)
    for name in chosen:
        recommender.mode_of(Wishes(mode=cast(Mode, name)))
    index = recommender.index
    cases, training = held_out(histories, split, part, users, seed)
    _refuse_leakage(cases, histories, index.catalog.item_ids, trained_events)
    yardstick = Yardstick.of(index, cases, training, label_fields)
    ways = _ways(recommender, chosen, with_variants, training if baselines else None)
    return _table(ways, yardstick, split, part, progress)


def evaluate_baselines(
    fits: Mapping[str, Fit],
    index: ItemIndex,
    histories: Histories,
    *,
    split: Split = "leave-one-out",
    part: Part = "test",
    users: int | None = None,
    label_fields: Sequence[str] | None = None,
    seed: int = 0,
    progress: RankProgress | None = None,
) -> Evaluation:
    """The same table for baselines alone: same cases, same figures as of :func:`evaluate` with these arguments.

    Args:
        fits: by row of the table, what fits a baseline to training events (:func:`baseline_fits` has the usual).
        index: whose catalog, labels and text vectors the figures look at.

    Raises:
        HistoryError: there is nothing to measure on.
        RequestError: a field the catalog does not have.
    """
    cases, training = held_out(histories, split, part, users, seed)
    yardstick = Yardstick.of(index, cases, training, label_fields)
    ways = ((name, partial(_by_baseline, fit(training))) for name, fit in fits.items())
    return _table(ways, yardstick, split, part, progress)


def held_out(
    histories: Histories, split: Split, part: Part, users: int | None = None, seed: int = 0
) -> tuple[Cases, Histories]:
    """What is to be predicted (a seeded sample of so many where asked), and what may be learned from.

    Raises:
        HistoryError: there is nothing to measure on.
    """
    cases, training = _cases_and_training(histories, split, part)
    if not len(cases):
        raise HistoryError(f"expected held-out events for split '{split}', got none; histories are too short")
    return (cases if users is None else cases.sample(users, seed)), training


def _table(
    ways: Iterable[tuple[str, Way]],
    yardstick: Yardstick,
    split: str,
    part: Part,
    progress: RankProgress | None,
) -> Evaluation:
    """Rank and measure row by row."""
    cases = yardstick.cases
    tell = progress or (lambda system, done, total: None)
    systems: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}
    lists: dict[str, Ranked] = {}
    calibration: dict[str, ListCalibration] = {}
    for row, way in ways:
        tell(row, 0, len(cases))
        started = time.monotonic()
        ranked = way(cases, DEPTH, lambda done, total, row=row: tell(row, done, total))  # type: ignore[misc]
        seconds[row] = round(time.monotonic() - started, 2)
        systems[row], lists[row] = yardstick.figures(ranked), ranked
        said = yardstick.calibration(ranked)
        if said is not None:
            calibration[row] = said
        tell(row, len(cases), len(cases))
    return Evaluation(
        split=split,
        part=part,
        users=len(cases),
        systems=systems,
        seconds=seconds,
        label_fields=yardstick.label_fields,
        sparse_users=int(yardstick.segments.sparse.sum()),
        cold_targets=int(yardstick.segments.cold.sum()),
        calibration=calibration,
        lists=lists,
    )


def _ways(
    recommender: Recommender, modes: Sequence[str], with_variants: bool, training: Histories | None
) -> Iterator[tuple[str, Way]]:
    """Every row of the table and how it ranks; ``training`` is what the baselines learn from, None for none."""
    mixed_in: HistoryPrior | None = None  # the same one for every mode
    for name in modes:
        mode = recommender.modes[name]
        yield ROWS[name], partial(_by_mode, recommender, cast(Mode, name))
        if isinstance(mode, TrieMode) and mode.defaults.prior_weight:
            yield f"{ROWS[name]}-model", partial(_by_model, recommender, cast(Mode, name))
            mixed_in = mode.history_prior
    if mixed_in is not None:
        yield PRIOR_ROW, partial(_by_prior, mixed_in)
    if with_variants:
        yield from ((f"genrec-{name}", way) for name, way in variants(recommender, modes).items())
    if training is not None:
        for name, fit in baseline_fits(recommender.index).items():
            yield name, partial(_by_baseline, fit(training))


def _by_mode(recommender: Recommender, mode: Mode, cases: Cases, k: int, progress: Told | None) -> Ranked:
    return ranked_cases(recommender, cases, k, mode, progress)


def _by_model(recommender: Recommender, mode: Mode, cases: Cases, k: int, progress: Told | None) -> Ranked:
    """The generative model alone, without the prior that its bundle mixes in."""
    return ranked_cases(recommender, cases, k, mode, progress, Wishes(prior="none"))


def _by_prior(prior: HistoryPrior, cases: Cases, k: int, progress: Told | None) -> Ranked:
    """The history prior alone, with the settings that were chosen for it; it ranks as the baselines do.

    Its boost of unseen items was chosen for what it costs the mixture: alone it costs more.
    """
    ranked = np.full((len(cases), k), -1, np.int32)
    for places in batches(len(cases), BATCH, progress):
        shares = prior.shares([cases.history_of(case) for case in places])
        for case, one in zip(places, shares, strict=True):
            best = np.lexsort((one.rows, -one.shares))[:k]  # ties by item row
            ranked[case, : len(best)] = one.rows[best]
    return Ranked(ranked)


def _by_baseline(baseline: Baseline, cases: Cases, k: int, progress: Told | None) -> Ranked:
    return Ranked(baseline.rank(cases, k))


def baseline_fits(index: ItemIndex) -> dict[str, Fit]:
    """Every training-free baseline over one index by its row; each is fitted on training events only."""
    items, titles, text = len(index.catalog), index.catalog.titles, np.asarray(index.vectors.text)
    return {
        "popularity": lambda training: Popularity(training, items),
        "bm25-last": lambda training: Bm25Last(index.bm25, titles),
        "bm25-last5": lambda training: Bm25Last(index.bm25, titles, last=5),
        "text-last": lambda training: TextLast(text),
        "cooccurrence": lambda training: Cooccurrence(training, items),
        "cooccurrence+text": lambda training: CooccurrenceText(training, text),
    }


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
