"""Sampling texts: independent draws, each from its own stream of random numbers.

A draw depends on its seed and its number alone, up to float rounding of the decoder: not on how many are drawn
with it, nor on batch mates. Temperature, top-k and top-p shape what is drawn from, after the grammar has masked what
may not follow; the scores reported are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.grammars.base import FREELY
from genrec.text_batch import Options, Steps, TextBatch, Texts, Written
from index.errors import RequestError
from index.types import Float32Array, Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class Samples:
    """Draw texts at random.

    Args:
        count: texts drawn; the same text may come twice.
        seed: the same seed draws the same texts.
        seeds: of each prompt of a call one, in ``seed``'s place.
        temperature: below 1 prefers what is probable, above 1 evens out; 0 takes the most probable.
        top_k: draw among so many of the most probable tokens; None among all.
        top_p: draw among the most probable tokens that hold this share of the probability together; None among all.
    """

    count: int = 1
    seed: int = 0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        least = min((self.seed, *self.seeds))
        if self.count < 1 or least < 0:
            raise RequestError(f"expected count >= 1 and seeds >= 0, got {self.count} and {least}")
        if not 0 <= self.temperature < np.inf:
            raise RequestError(f"expected a finite temperature >= 0, got {self.temperature}")
        if (self.top_k is not None and self.top_k < 1) or (
            self.top_p is not None and not 0 < self.top_p <= 1
        ):
            raise RequestError(
                f"expected top_k >= 1 and top_p in (0, 1], or None, got top_k={self.top_k}, top_p={self.top_p}"
            )

    def run(self, batch: TextBatch) -> list[list[Written]]:
        """The texts of each request, in the order of their numbers."""
        if self.seeds and len(self.seeds) != len(batch.states):
            raise RequestError(
                f"expected a seed for each of {len(batch.states)} prompts, got {len(self.seeds)}"
            )
        texts = batch.begin(self.count)
        # By the number of a text, and by its prompt where each has a seed.
        streams = [
            np.random.default_rng([seed, number])
            for seed in self.seeds or (self.seed,)
            for number in range(self.count)
        ]
        uniform = [np.array([])] * len(streams)
        ended: dict[int, Written] = {}
        step = 0
        while len(texts):
            if step % _DRAWN_AT_ONCE == 0:
                uniform = [stream.random(_DRAWN_AT_ONCE) for stream in streams]
            draw = np.array(
                [uniform[one][step % _DRAWN_AT_ONCE] for one in (texts.unit % len(streams)).tolist()]
            )
            options = batch.options(texts)
            taken = batch.take(texts, options, self._steps(options, texts, draw))
            for place in np.flatnonzero(taken.done).tolist():
                one = taken.texts
                ended[int(one.unit[place])] = batch.written(
                    int(one.request[place]), int(one.trail[place]), float(one.score[place])
                )
            texts = batch.feed(taken.take(~taken.done))
            step += 1
        units = range(len(batch.states) * self.count)
        return [[ended[unit] for unit in units[first : first + self.count]] for first in units[:: self.count]]

    def _steps(self, options: Options, texts: Texts, draw: Float64Array) -> Steps:
        """One step of every text; ``draw`` is float64[R] in [0, 1)."""
        is_free = np.zeros(len(texts), bool)
        is_free[options.free] = True
        token_of = np.concatenate([*(one.token for one in options.edges), np.zeros(1, np.int64)])
        first = np.searchsorted(options.row, np.arange(len(texts)))
        number, token = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
        score = np.zeros(len(texts))
        for rows, table in (
            (options.free, options.free_score),
            (np.flatnonzero(~is_free), np.zeros((int((~is_free).sum()), 0), np.float32)),
        ):
            if not len(rows):
                continue
            wide = np.concatenate([table, _edge_table(options, rows)], axis=1)
            column = _drawn(wide, draw[rows], self)
            free = column < table.shape[1]
            edge = column - table.shape[1]
            number[rows] = np.where(free, FREELY, edge)
            token[rows] = np.where(free, column, token_of[np.where(free, 0, first[rows] + edge)])
            score[rows] = wide[np.arange(len(rows)), column]
        return Steps(np.arange(len(texts)), number, token, score)


_DRAWN_AT_ONCE = 16  # random numbers of a stream


def _edge_table(options: Options, rows: Int64Array) -> Float32Array:
    """float32[C, most edges]: the scores of the rows' edges, -inf behind the last."""
    begin, end = np.searchsorted(options.row, rows), np.searchsorted(options.row, rows, side="right")
    table = np.full((len(rows), int((end - begin).max(initial=0))), -np.inf, np.float32)
    for place, (low, high) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        table[place, : high - low] = options.score[low:high]
    return table


def _drawn(score: Float32Array, draw: Float64Array, wish: Samples) -> Int64Array:
    """int64[C]: a column of each row, drawn by its share of the probability."""
    if wish.temperature == 0:
        return np.asarray(score.argmax(1), np.int64)
    weight = np.exp((score - score.max(1, keepdims=True)).astype(np.float64) / wish.temperature)
    if wish.top_k is not None and wish.top_k < weight.shape[1]:
        least = -np.partition(-weight, wish.top_k - 1, axis=1)[:, wish.top_k - 1 : wish.top_k]
        weight[weight < least] = 0.0
    if wish.top_p is not None and wish.top_p < 1:
        order = np.argsort(-weight, axis=1, kind="stable")
        falling = np.take_along_axis(weight, order, 1)
        before = np.cumsum(falling, axis=1) - falling
        falling[before >= wish.top_p * weight.sum(1, keepdims=True)] = 0.0
        np.put_along_axis(weight, order, falling, 1)
    total = np.cumsum(weight, axis=1)
    column: Int64Array = (total <= draw[:, None] * total[:, -1:]).sum(1)
    return column
