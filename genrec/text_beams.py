"""Beam search over texts: Hugging Face's rule, in groups where unlike texts are wanted.

The rule (transformers 5.23, ``GenerationMixin._beam_search`` with ``early_stopping=False``): of the best 2K ways to
go on the complete ones count only among the first K; the best K others run on; a search stops when K texts are
complete and its best running one, at its present length, is not above the worst of them. For free text the results
are the same as of ``generate(num_beams=K, length_penalty=…, early_stopping=False)``. Under a grammar a step is a
choice and not a token, so texts of one step may differ in length.

In groups (Vijayakumar et al., "Diverse beam search for improved description of complex scenes", AAAI 2018) each
group searches with its share of the beam, one after the other at every step, and pays ``diversity`` for a token
that as many earlier groups' beams took at this step. Scores that are reported stay pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.grammars.base import FREELY
from genrec.prefixes import best_per_request
from genrec.text_batch import Options, Steps, Taken, TextBatch, Texts, Written
from genrec.token_scores import largest
from index.errors import RequestError
from index.types import BoolArray, Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class Beams:
    """Search for the most probable texts; one beam is greedy search.

    Args:
        width: texts kept at every step, of all groups together.
        answers: texts wanted, at most ``width``; None is all that were found.
        length_penalty: scores are divided by the number of tokens to this power: 0 ranks by probability,
            1 by its mean per token (the default of Hugging Face's ``generate``).
        groups: the beam is split among so many groups.
        diversity: what a group pays, in nats, for a token that an earlier group's beam took at this step.
    """

    width: int = 1
    answers: int | None = None
    length_penalty: float = 0.0
    groups: int = 1
    diversity: float = 1.0

    def __post_init__(self) -> None:
        if self.width < 1 or not 1 <= self.groups <= self.width or self.width % self.groups:
            raise RequestError(
                f"expected a width of at least 1 and groups that divide it, got width={self.width}, "
                f"groups={self.groups}"
            )
        if self.answers is not None and not 1 <= self.answers <= self.width:
            raise RequestError(f"expected answers in 1 .. width ({self.width}), got {self.answers}")
        if not np.isfinite([self.length_penalty, self.diversity]).all() or self.diversity < 0:
            raise RequestError(
                f"expected a finite length_penalty and diversity >= 0, got {self.length_penalty}, {self.diversity}"
            )

    def run(self, batch: TextBatch) -> list[list[Written]]:
        """The texts of each request, best first, none twice."""
        return _BeamSearch(self, batch).run()


@dataclass(frozen=True, slots=True)
class _Complete:
    """A complete text."""

    value: float  # its score after the length penalty
    trail: int  # where it is found in the batch


class _BeamSearch:
    """One batch's search. A *unit* is one group of one request."""

    def __init__(self, wish: Beams, batch: TextBatch) -> None:
        self.wish = wish
        self.batch = batch
        self.requests = len(batch.states)
        self.share = wish.width // wish.groups  # K of one group
        self.complete: list[list[_Complete]] = [[] for _ in range(self.requests * wish.groups)]

    def run(self) -> list[list[Written]]:
        """Step until every unit has stopped."""
        groups = self.wish.groups
        texts = self.batch.begin(groups)
        while len(texts):
            options = self.batch.options(texts)
            # As many tokens as the other groups have beams may cost a group more than they are worth.
            steps = _steps_of(options, texts, 2 * self.share + self.wish.width - self.share)
            group = texts.unit[steps.row] % groups
            chosen = [np.zeros((self.requests, self.batch.size), np.int64)] if groups > 1 else []
            running = [
                self._choose(texts, options, steps.take(np.flatnonzero(group == one)), chosen)
                for one in range(groups)
            ]
            texts = self.batch.feed(_together(running))
        return [self._answers(request) for request in range(self.requests)]

    def _choose(self, texts: Texts, options: Options, steps: Steps, chosen: list[Int64Array]) -> Taken:
        """One group's next texts in every request; what is complete is put aside.

        ``chosen`` holds int[B, V], the beams of earlier groups that took each token at this step; none where there is
        one group.
        """
        value = texts.score[steps.row] + steps.score
        for times in chosen:
            value -= self.wish.diversity * times[texts.request[steps.row], steps.token]
        units = len(self.complete)
        wide = best_per_request(texts.unit[steps.row], value, np.full(units, 2 * self.share))
        steps, value = steps.take(wide), value[wide]
        taken = self.batch.take(texts, options, steps)
        unit = taken.texts.unit
        narrow = best_per_request(unit, value, np.full(units, self.share))
        self._put_aside(taken.take(narrow[taken.done[narrow]]))
        rest = np.flatnonzero(~taken.done)
        rest = rest[best_per_request(unit[rest], value[rest], np.full(units, self.share))]
        rest = rest[self._goes_on(taken.texts.take(rest))]
        for times in chosen:
            np.add.at(times, (taken.texts.request[rest], steps.token[rest]), 1)
        return taken.take(rest)

    def _put_aside(self, done: Taken) -> None:
        """Keep each unit's best K complete texts."""
        texts = done.texts
        for unit, value, trail in zip(
            texts.unit.tolist(), self._values(texts).tolist(), texts.trail.tolist(), strict=True
        ):
            kept = [*self.complete[unit], _Complete(value, trail)]
            kept.sort(key=lambda one: (-one.value, one.trail))
            self.complete[unit] = kept[: self.share]

    def _goes_on(self, running: Texts) -> BoolArray:
        """bool[R]: whether the search of each text's unit goes on."""
        best = np.full(len(self.complete), -np.inf)
        np.maximum.at(best, running.unit, self._values(running))
        worst = np.array([kept[-1].value if len(kept) == self.share else -np.inf for kept in self.complete])
        going: BoolArray = (best > worst)[running.unit]
        return going

    def _values(self, texts: Texts) -> Float64Array:
        """float64[R]: scores after the length penalty."""
        return texts.score / texts.length.astype(np.float64) ** self.wish.length_penalty

    def _answers(self, request: int) -> list[Written]:
        """The best texts of all groups."""
        first = request * self.wish.groups
        found = [one for unit in self.complete[first : first + self.wish.groups] for one in unit]
        found.sort(key=lambda one: (-one.value, one.trail))
        paths = [self.batch.path(one.trail) for one in found]
        distinct = [one for place, one in enumerate(found) if paths[place] not in paths[:place]]
        return [self.batch.written(request, one.trail, one.value) for one in distinct[: self.wish.answers]]


def _together(parts: list[Taken]) -> Taken:
    """The next texts of all groups, requests in order."""
    if len(parts) == 1:
        return parts[0]
    texts = [part.texts for part in parts]
    unit = np.concatenate([one.unit for one in texts])
    order = np.argsort(unit, kind="stable")
    return Taken(
        Texts(*(np.concatenate([getattr(one, name) for one in texts])[order] for name in Texts.__slots__)),
        np.concatenate([part.first for part in parts])[order],
        np.concatenate([part.done for part in parts])[order],
    )


def _steps_of(options: Options, texts: Texts, most: int) -> Steps:
    """All edges that may be taken, and the ``most`` best free tokens of each text; in the order of the texts."""
    edge = np.flatnonzero(options.score > -np.inf)
    token = np.concatenate([one.token for one in options.edges])
    row, number = options.row[edge], options.number[edge]
    parts = [Steps(row, number, token[edge], options.score[edge])]
    if len(options.free):
        column = largest(options.free_score, most)
        place = np.repeat(np.arange(len(column)), column.shape[1])
        column = column.ravel()
        score = options.free_score[place, column]
        keep = score > -np.inf
        place, column, score = place[keep], column[keep], score[keep]
        parts.append(
            Steps(options.free[place], np.full(len(place), FREELY), column, score.astype(np.float64))
        )
    order = np.argsort(np.concatenate([part.row for part in parts]), kind="stable")
    return Steps(
        *(np.concatenate([getattr(part, name) for part in parts])[order] for name in Steps.__slots__)
    )
