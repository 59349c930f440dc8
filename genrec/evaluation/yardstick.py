"""Every figure of a system's lists: what each list is held against, gathered once for all systems of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

import numpy as np

from genrec.evaluation.calibration import ListCalibration, list_calibration
from genrec.evaluation.exposure import distance, gini, novelty, users_by_item
from genrec.evaluation.interests import diversity, interest_coverage
from genrec.evaluation.metrics import measure, ndcg, recall
from genrec.evaluation.ranking import Ranked
from genrec.evaluation.segments import Segments
from index.histories import Cases, Histories
from index.item_index import ItemIndex
from index.labels import Labels
from index.types import Float32Array, Int64Array, IntArray

DEPTH = 40
"""Items ranked per case: what the metrics of whole lists look at; the others look at the first ten of them."""


def figures(ranked: IntArray, targets: IntArray, items: int) -> dict[str, float]:
    """The metrics of one system at ten and below, name to value."""
    return {**cast("dict[str, float]", measure(ranked, targets, items))}


@dataclass(frozen=True, eq=False)
class Yardstick:
    """C cases, and what the catalog and training say of them."""

    cases: Cases
    items: int  # N
    labels: Labels | None
    vectors: Float32Array  # [N, D] of item texts, rows of length 1 or 0
    users_of_item: Int64Array  # [N] distinct training users
    users: int  # with a training event
    segments: Segments

    @classmethod
    def of(
        cls,
        index: ItemIndex,
        cases: Cases,
        training: Histories,
        label_fields: Sequence[str] | None = None,
    ) -> Self:
        """Of cases and the training part they were split from.

        Raises:
            RequestError: a field the catalog does not have.
        """
        items = len(index.catalog)
        return cls(
            cases=cases,
            items=items,
            labels=Labels.of(index.catalog, label_fields),
            vectors=np.asarray(index.vectors.text),
            users_of_item=users_by_item(training, items),
            users=int((training.lengths > 0).sum()),
            segments=Segments.of(cases, training, items),
        )

    @property
    def label_fields(self) -> tuple[str, ...]:
        """What labels come from."""
        return () if self.labels is None else self.labels.fields

    def figures(self, ranked: Ranked) -> dict[str, float]:
        """Name to value. What cannot be said of these lists (no labels, no cold target) is not there.

        Raises:
            RequestError: fewer than ten places, or lists of other cases.
        """
        rows, target = ranked.rows, self.cases.target
        values = {
            **cast("dict[str, float]", measure(rows, target, self.items, ranked.validity)),
            "gini@10": gini(rows, self.items),
            "distance@10": float(distance(rows, self.vectors).mean()),
        }
        surprise = novelty(rows, self.users_of_item, self.users)
        if len(surprise):
            values["novelty@10"] = float(surprise.mean())
        for name, inside in self.segments.named().items():
            if inside.any():
                values[f"{name}_recall@10"] = float(recall(rows[inside], target[inside], 10).mean())
                values[f"{name}_ndcg@10"] = float(ndcg(rows[inside], target[inside], 10).mean())
        if rows.shape[1] >= DEPTH:
            values |= self._of_whole_lists(rows)
        said = self.calibration(ranked)
        if said is not None:
            values |= {"ece@10": said.items.error, "list_ece@10": said.lists.error}
        return values

    def calibration(self, ranked: Ranked) -> ListCalibration | None:
        """None for a system that gives no probabilities."""
        if ranked.shares is None:
            return None
        return list_calibration(ranked.rows, ranked.shares, self.cases.target)

    def _of_whole_lists(self, rows: IntArray) -> dict[str, float]:
        values = {f"recall@{DEPTH}": float(recall(rows, self.cases.target, DEPTH).mean())}
        if self.labels is not None:
            values[f"diversity@{DEPTH}"] = float(diversity(rows, self.labels).mean())
            covered = interest_coverage(rows, self.cases, self.labels)
            if len(covered):
                values[f"coverage@{DEPTH}"] = float(covered.mean())
        return values
