"""What the history prior would have recommended at training events: targets beside those that really came.

A user shows one next item, and a model that is shown nothing else takes every other item for equally wrong. Other
people's histories and the items' texts know better, without training (:mod:`genrec.history_prior`). So a part of
the targets is drawn from the prior's shares instead: knowledge distillation (Hinton, Vinyals and Dean, 2015) from a
teacher that is not a network, by samples in place of soft labels, so that a step costs what it did.

The teacher must not have seen the answer: what a user's own history added to its rates is taken out before they are
asked about that user. Otherwise it would only repeat the target. It knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from genrec.evaluation.baselines import event_counts
from genrec.evaluation.cooccurrence import PRIOR_EVENTS, WINDOW
from genrec.evaluation.ranking import Told
from genrec.history_prior import LAST_EVENTS, Evidence, HistoryPrior, PriorSettings
from index.histories import Histories
from index.types import Float32Array, Float64Array, Int32Array, Int64Array, IntArray

TEACHER_SETTINGS = PriorSettings(recency=0.5, text_weight=0.0, power=8.0, word_weight=0.2, unseen_boost=1.0)
"""Words and no text vectors, as the mixture mostly chose on Amazon Beauty, Games and MovieLens-1M. On Beauty, 1,500
steps with half of the targets taught, validation NDCG@10 of the model alone: power 2 .0638, 4 .0682, 8 .0712."""
MOST_EVENTS = 200_000
"""Training events that are taught, drawn at random where there are more: two minutes of one thread."""
CHOICES = 32  # items kept of a teacher's shares
ROUNDING = 1e-5  # of a float32 rate; what is left of one below that is nothing
BATCH = 512  # histories asked at once


@dataclass(frozen=True, eq=False)
class Teacher:
    """Distributions over items at some training events."""

    place: Int32Array  # [T] of every training event its row below; -1: nothing to teach
    rows: Int32Array  # [M, S] catalog rows, the most likely first; -1 behind the last
    cumulative: Float32Array  # [M, S] Σ of shares up to there; 2 behind the last

    def targets(
        self, events: Int64Array, items: Int64Array, part: float, rng: np.random.Generator
    ) -> Int64Array:
        """Targets int64[B, P] of a batch: about ``part`` of those that have a teacher are drawn from it.

        Args:
            events: int64[B, P], places in the training events, -1 where there is none.
            items: int64[T], the catalog row of every training event.
            part: in [0, 1].
            rng: of the draws.
        """
        targets = np.where(events >= 0, items[events], -1)
        place = np.where(events >= 0, self.place[events], -1)
        taught = np.nonzero((place >= 0) & (rng.random(events.shape) < part))
        at = place[taught]
        drawn = (self.cumulative[at] < rng.random(len(at), dtype=np.float32)[:, None]).sum(1)
        targets[taught] = self.rows[at, drawn]
        return targets

    def arrays(self) -> list[IntArray | Float32Array]:
        """What decides what it teaches."""
        return [self.place, self.rows, self.cumulative]


def teach(
    prior: HistoryPrior,
    training: Histories,
    *,
    seed: int = 0,
    most: int = MOST_EVENTS,
    progress: Told | None = None,
) -> Teacher:
    """Ask a prior at training events.

    Args:
        prior: fitted on ``training``, with the settings to ask it with.
        training: training events only.
        seed: of which events are taught where there are more than ``most``.
        most: events that are taught.
        progress: told how many are done.
    """
    offsets, items = np.asarray(training.offsets, np.int64), np.asarray(training.items, np.int64)
    user = np.repeat(np.arange(len(training)), training.lengths)
    asked = np.flatnonzero(np.arange(len(items)) > offsets[user])  # a first event has nothing before it
    if len(asked) > most:
        asked = np.sort(np.random.default_rng(seed).choice(asked, most, replace=False))
    own = _OwnPairs(items, event_counts(training, len(prior.text)), prior.settings.recency)
    place = np.full(len(items), -1, np.int32)
    rows = np.full((len(asked), CHOICES), -1, np.int32)
    cumulative = np.full((len(asked), CHOICES), 2.0, np.float32)
    bounds = [*range(0, len(asked), BATCH), len(asked)]
    for begin, end in pairwise(bounds):
        if progress is not None:
            progress(begin, len(asked))
        events = asked[begin:end]
        found = prior.evidence([items[offsets[user[event]] : event] for event in events])
        for row, (event, evidence) in enumerate(zip(events.tolist(), found, strict=True), begin):
            first, last = offsets[user[event] : user[event] + 2].tolist()
            shares = prior.shares_of(own.without(evidence, first, event, last))
            best = np.argsort(-shares.shares, kind="stable")[:CHOICES]
            if len(best):
                total = np.cumsum(shares.shares[best])
                rows[row, : len(best)] = shares.rows[best]
                cumulative[row, : len(best)] = total / total[-1]
                place[event] = row
    if progress is not None:
        progress(len(asked), len(asked))
    return Teacher(place, rows, cumulative)


@dataclass(frozen=True, eq=False)
class _OwnPairs:
    """What a user's own events say of each other in the rates of all."""

    items: Int64Array  # [T]
    count: Int64Array  # [N] events of every item
    recency: float

    def without(self, evidence: Evidence, first: int, event: int, last: int) -> Evidence:
        """Evidence at ``event`` of the history [first, last), less what that history's later events put there.

        Exact where no item stands twice in a history. Where one does, each of its events keeps what the other put
        into their common rate.
        """
        before = self.items[max(first, event - LAST_EVENTS) : event]
        after = self.items[event : min(last, event + WINDOW)]
        age = np.arange(len(before) - 1, -1, -1)
        apart = age[:, None] + 1 + np.arange(len(after))  # [before, after] places
        said = np.where(apart <= WINDOW, apart**-0.5, 0.0)
        weight: Float64Array = self.recency**age / (self.count[before] + PRIOR_EVENTS)
        rates = evidence.rates.copy()
        at = np.minimum(np.searchsorted(evidence.rows, after), max(len(rates) - 1, 0))
        known = evidence.rows[at] == after if len(rates) else np.zeros(len(after), bool)
        np.subtract.at(rates, at[known], (weight @ said)[known])
        rates[rates < ROUNDING * evidence.rates] = 0.0
        return replace(evidence, rates=rates)
