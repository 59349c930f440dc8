"""What a history prior had to do with an answer: how much of an item's probability is its, and which event spoke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.modes import TrieMode
from genrec.recommendation import Recommendation
from genrec.recommender import Recommender
from genrec.wishes import Wishes, resolve
from index.types import ItemId


@dataclass(frozen=True, slots=True)
class PriorReason:
    """Of one recommended item."""

    part: float
    """Of the item's probability, what comes from other people's histories and the texts; the rest is the model's."""
    because_of: ItemId | None
    """The item of the history that says most for it; None where none does."""


def prior_reasons(
    recommender: Recommender, history: Sequence[ItemId], wishes: Wishes, answer: Recommendation
) -> list[PriorReason] | None:
    """A reason per item of an answer; None where no history prior was mixed in.

    Args:
        recommender: what answered.
        history: item ids, oldest first.
        wishes: what was asked for.
        answer: what came back.
    """
    mode = recommender.mode_of(wishes)
    weight = resolve(wishes, mode.defaults).prior
    if not isinstance(weight, float) or not isinstance(mode, TrieMode) or mode.history_prior is None:
        return None
    rows = recommender.history_rows(history)
    shares = mode.history_prior.shares([rows])[0]
    share_of = dict(zip(shares.rows.tolist(), shares.shares.tolist(), strict=True))
    ids = recommender.index.catalog.item_ids
    reasons = []
    for item in answer.items:
        row = recommender.index.catalog.row_of(item.item_id)
        assert row is not None  # the search returns items of this catalog
        share = share_of.get(row, 0.0)
        spoke = mode.history_prior.reason(rows, row) if share else None
        part = min(1.0, weight * share / float(np.exp(item.score)))
        reasons.append(PriorReason(part, None if spoke is None else ids[spoke]))
    return reasons
