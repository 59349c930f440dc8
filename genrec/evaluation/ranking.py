"""What a recommender returns for many cases, as rows of a table: one array for every metric to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from genrec.modes import TrieMode
from genrec.recommender import Recommender
from genrec.tasks import Mode
from genrec.wishes import Wishes, resolve, scores_are_shares
from index.histories import Cases
from index.types import Float64Array, Int32Array

BATCH = 256  # requests searched together

Told: TypeAlias = Callable[[int, int], None]
"""Called as ``told(done, total)``."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """What a system returned for C cases."""

    rows: Int32Array  # [C, K] catalog rows, -1 where fewer came back, or one that is no item
    validity: float | None = None  # share of what came back that names an item; None where nothing else can
    shares: Float64Array | None = None
    """[C, K] of the whole catalog's probability, 0 at padding; None where scores are no such shares."""


def rank_cases(
    recommender: Recommender,
    cases: Cases,
    k: int,
    mode: Mode | None = None,
    progress: Told | None = None,
    wishes: Wishes | None = None,
    batch: int = BATCH,
) -> Int32Array:
    """int32[C, k]: the rows alone of :func:`ranked_cases`, which see."""
    return ranked_cases(recommender, cases, k, mode, progress, wishes, batch).rows


def ranked_cases(
    recommender: Recommender,
    cases: Cases,
    k: int,
    mode: Mode | None = None,
    progress: Told | None = None,
    wishes: Wishes | None = None,
    batch: int = BATCH,
) -> Ranked:
    """What a recommender returns for each case, as catalog rows, -1 where it returned fewer.

    Args:
        recommender: asked with its own defaults.
        cases: C histories.
        k: items wanted.
        mode: its default one where not given.
        progress: told how far it is.
        wishes: what else is asked; ``k`` and ``mode`` are those above.
        batch: cases searched together.
    """
    asked = replace(wishes or Wishes(), k=k, mode=mode)
    asked_mode = recommender.mode_of(asked)
    gives_shares = isinstance(asked_mode, TrieMode) and scores_are_shares(resolve(asked, asked_mode.defaults))
    ranked = np.full((len(cases), k), -1, np.int32)
    shares = np.zeros((len(cases), k))
    for places in batches(len(cases), batch, progress):
        results = recommender.search_rows([cases.history_of(case) for case in places], asked)
        for case, result in zip(places, results, strict=True):
            rows = recommender.rows_of(result, asked)
            ranked[case, : len(rows)] = rows
            if gives_shares:
                shares[case, : len(rows)] = np.exp(result.scores)
    return Ranked(ranked, shares=shares if gives_shares else None)


def batches(cases: int, size: int, progress: Told | None) -> Iterator[range]:
    """Stretches of cases; each is told when the next is asked for."""
    for begin in range(0, cases, size):
        batch = range(begin, min(begin + size, cases))
        yield batch
        if progress is not None:
            progress(batch.stop, cases)
