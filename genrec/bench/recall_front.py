"""How much a wider beam finds: recall of held-out items at several beam widths, over the same users.

Beside the latency of each width (:mod:`genrec.bench.decode`) this is the choice a user makes. Ranking is done in
batches here, since recall does not depend on who waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genrec.bench.decode import Progress
from genrec.bench.load_report import share_interval
from genrec.evaluation.metrics import ndcg, recall
from genrec.evaluation.ranking import BATCH
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.histories import Cases
from index.types import Float64Array, Int32Array


@dataclass(frozen=True, slots=True)
class RecallAt:
    """One beam width over all cases."""

    beam: int
    cases: int
    recall: float
    recall_95: tuple[float, float]  # Wilson's interval
    gain_95: tuple[float, float]
    """95 % interval of what the widest beam finds more, user by user: narrower than the two apart, for the users
    are the same."""
    ndcg: float

    def as_json(self, k: int) -> dict[str, Any]:
        """Rounded."""
        return {
            "beam": self.beam,
            "cases": self.cases,
            f"recall@{k}": round(self.recall, 5),
            f"recall@{k}_95": [round(one, 5) for one in self.recall_95],
            "widest_finds_more_95": [round(one, 5) for one in self.gain_95],
            f"ndcg@{k}": round(self.ndcg, 5),
        }


def measure_recall(
    recommender: Recommender,
    cases: Cases,
    beams: Sequence[int],
    k: int = 10,
    progress: Progress = lambda _stage, _done, _total: None,
) -> list[RecallAt]:
    """Rank every case with every beam width, narrowest first; widths below k are raised to it."""
    hits: dict[int, Float64Array] = {}
    gains: dict[int, float] = {}
    for beam in sorted({max(one, k) for one in beams}):
        ranked = _ranked(recommender, cases, beam, k, progress)
        hits[beam] = recall(ranked, cases.target, k)
        gains[beam] = float(ndcg(ranked, cases.target, k).mean())
    widest = hits[max(hits)]
    return [
        RecallAt(
            beam=beam,
            cases=len(cases),
            recall=float(found.mean()),
            recall_95=share_interval(int(found.sum()), len(cases)),
            gain_95=_mean_interval(widest - found),
            ndcg=gains[beam],
        )
        for beam, found in hits.items()
    ]


def _mean_interval(values: Float64Array) -> tuple[float, float]:
    """95 % interval of a mean of many independent values (normal approximation)."""
    reach = 1.96 * float(values.std()) / np.sqrt(len(values))
    return float(values.mean() - reach), float(values.mean() + reach)


def _ranked(recommender: Recommender, cases: Cases, beam: int, k: int, progress: Progress) -> Int32Array:
    """int32[C, k], padded with -1."""
    ranked = np.full((len(cases), k), -1, np.int32)
    for begin in range(0, len(cases), BATCH):
        progress(f"recall at beam {beam}", begin, len(cases))
        batch = range(begin, min(begin + BATCH, len(cases)))
        found = recommender.search_rows([cases.history_of(case) for case in batch], Wishes(k=k, beam=beam))
        for case, one in zip(batch, found, strict=True):
            rows = recommender.rows_of(one)
            ranked[case, : len(rows)] = rows
    progress(f"recall at beam {beam}", len(cases), len(cases))
    return ranked
