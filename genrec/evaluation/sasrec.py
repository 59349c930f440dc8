"""SASRec with full-softmax cross-entropy: the strong sequential baseline that a table of generative models needs.

Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018) with the one change that makes it strong: at
every position the softmax runs over the whole catalog, where the paper draws one negative (Klenitskiy and Vasilev,
RecSys 2023). Tables that quote the weak form make whatever stands beside it look good.

A causal transformer over item vectors and learned positions; the same item vectors are the output layer. It learns
from whole sequences under the budget, the batches and the selection that the native model has
(:class:`genrec.training.pretrain.TrainSettings`), and ranks by the rules of :mod:`genrec.evaluation.baselines`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genrec.evaluation.baselines import rank_dense
from genrec.evaluation.yardstick import figures
from genrec.native_config import DENSE_EVENTS
from genrec.training.examples import check_histories, epoch_batches, pad
from genrec.training.optimization import schedule
from genrec.training.pretrain import SELECTION_METRIC, Progress, TrainProgress, TrainSettings
from index.errors import TrainingError
from index.histories import Cases, Histories
from index.types import Float32Array, Int32Array, Int64Array

FULL_SOFTMAX_ITEMS = 50_000
"""Catalogs up to this size get the full softmax: 1,536 targets then take 300 MB of logits a step."""
SAMPLED_ITEMS = 8_192  # negatives a step beyond that
SASREC_SETTINGS = {"learning_rate": 3e-3, "weight_decay": 0.0}
"""What differs from the native model's training. Best NDCG@10 on validation within 8,000 steps at width 64, by
learning rate 1e-3 and 3e-3: MovieLens-1M .1840, .1887."""


@dataclass(frozen=True, slots=True)
class SasrecShape:
    """The model. :meth:`of` sizes it by the data, as the paper does.

    Wider than its 50: best NDCG@10 on validation within 8,000 steps at a learning rate of 1e-3, by width 64 and 128,
    Games .0744, .0787; Beauty .0723, .0714, but .0734 in 2,500 steps of 128 at 3e-3. MovieLens-1M was run with 64.
    """

    hidden_size: int = 128
    layers: int = 2
    heads: int = 2
    dropout: float = 0.5
    max_items: int = 50  # longest history that is read

    @classmethod
    def of(cls, training: Histories) -> SasrecShape:
        """Dropout .5 and 50 items for sparse data, .2 and 200 for dense: the paper's for Amazon and MovieLens-1M."""
        users = int((training.lengths > 0).sum())
        is_dense = training.num_events >= DENSE_EVENTS * max(users, 1)
        return cls(dropout=0.2, max_items=200) if is_dense else cls()


class SasrecModel(nn.Module):
    """Item rows in, hidden states out; ``items.weight`` float[N, H] is input and output layer at once."""

    def __init__(self, items: int, shape: SasrecShape) -> None:
        super().__init__()
        size = shape.hidden_size
        self.items = nn.Embedding(items, size)
        self.positions = nn.Embedding(shape.max_items, size)
        self.dropout = nn.Dropout(shape.dropout)
        layer = nn.TransformerEncoderLayer(
            size,
            shape.heads,
            dim_feedforward=4 * size,
            dropout=shape.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.body = nn.TransformerEncoder(
            layer, shape.layers, norm=nn.LayerNorm(size), enable_nested_tensor=False
        )
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, rows: Tensor) -> Tensor:
        """float[B, P, H] for histories int64[B, P], padded *on the right* with -1: nothing sees it."""
        places = rows.shape[1]
        vectors = self.items(rows.clamp(min=0)) * math.sqrt(self.items.embedding_dim)
        vectors = self.dropout(vectors + self.positions.weight[:places])
        mask = nn.Transformer.generate_square_subsequent_mask(places, device=rows.device)
        return self.body(vectors, mask=mask, is_causal=True)  # type: ignore[no-any-return]

    def loss(self, rows: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in nats of every event but the first of int64[B, P], given those before it.

        Args:
            rows: padded on the right with -1.
            negatives: int64[S], distinct items drawn uniformly, in place of the whole catalog: S of the N - 1 other
                terms of the softmax's sum then stand for all of them, without bias.
        """
        target = rows[:, 1:]
        is_event = target >= 0
        hidden, target = self(rows[:, :-1])[is_event], target[is_event]  # [T, H], [T]
        if negatives is None:
            return functional.cross_entropy(hidden @ self.items.weight.T, target)
        own = (hidden * self.items.weight[target]).sum(1, keepdim=True)  # [T, 1]
        others = hidden @ self.items.weight[negatives].T  # [T, S]
        is_target = negatives[None] == target[:, None]
        drawn = len(negatives) - is_target.sum(1, keepdim=True)
        # Each negative stands for (N - 1) / S items.
        others = others + torch.log((self.items.num_embeddings - 1) / drawn.clamp(min=1).to(others))
        others = others.masked_fill(is_target, -math.inf)
        logits = torch.cat([own, others], 1)
        return functional.cross_entropy(logits, torch.zeros_like(target))


class Sasrec:
    """A trained model as a row of the table."""

    name = "sasrec-ce"

    def __init__(self, model: SasrecModel, max_items: int) -> None:
        self._model, self._max_items = model, max_items

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(one.numel() for one in self._model.parameters())

    def rank(self, cases: Cases, k: int) -> Int32Array:
        """See ``Baseline.rank``."""
        return rank_dense(cases, k, self._model.items.num_embeddings, self._scores)

    def _scores(self, cases: Cases) -> Float32Array:
        """float32[C, N]; a case without a history is evidence of nothing."""
        end = cases.history_offsets[1:]
        length = np.minimum(np.diff(cases.history_offsets), self._max_items)
        rows = pad(cases.history.astype(np.int64), end - length, length)
        if not rows.shape[1]:
            return np.full((len(cases), self._model.items.num_embeddings), -np.inf, np.float32)
        with torch.inference_mode():
            hidden = self._model(torch.from_numpy(rows))
            last = hidden[torch.arange(len(rows)), torch.from_numpy(np.maximum(length - 1, 0))]
            scores: Float32Array = (last @ self._model.items.weight.T).numpy()
        scores[length == 0] = -np.inf
        return scores


@dataclass(frozen=True, slots=True)
class TrainedSasrec:
    """A baseline and how it came about."""

    baseline: Sasrec
    shape: SasrecShape
    steps: int
    seconds: float
    best: dict[
        str, float
    ]  # validation figures of the weights kept, and their ``step``; empty without validation


def train_sasrec(
    training: Histories,
    items: int,
    *,
    settings: TrainSettings,
    validation: Cases | None = None,
    shape: SasrecShape | None = None,
    progress: Progress | None = None,
) -> TrainedSasrec:
    """Train until the budget is spent; the best weights by validation NDCG@10 are kept (the last ones without cases).

    Args:
        training: training events only.
        items: N.
        settings: budget and optimisation; what it says of codes, texts and checkpoints means nothing here.
        validation: cases that select.
        shape: :meth:`SasrecShape.of` the data where not given.
        progress: called after every step.

    Raises:
        TrainingError: nothing to train on, or a loss that is not finite.
    """
    with torch.random.fork_rng(devices=[]):  # a caller's own draws stay as they were
        torch.manual_seed(settings.seed)
        return _Run(training, items, settings, validation, shape or SasrecShape.of(training)).train(progress)


class _Run:
    """One training run and where it stands."""

    def __init__(
        self,
        training: Histories,
        items: int,
        settings: TrainSettings,
        validation: Cases | None,
        shape: SasrecShape,
    ) -> None:
        self.started = time.monotonic()
        self.histories = check_histories(training.offsets, training.items, items)
        if not (training.lengths > 1).any():
            raise TrainingError(
                "expected a user with two training events or more, got none: nothing comes next"
            )
        self.items, self.settings, self.validation, self.shape = items, settings, validation, shape
        self.model = SasrecModel(items, shape)
        decayed = [one for one in self.model.parameters() if one.ndim > 1]
        others = [one for one in self.model.parameters() if one.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.98),  # the paper's
            fused=True,
        )
        self.step = 0
        self.validated: list[float] = []  # when, as parts of the budget
        self.validation_seconds = 0.0  # the slowest so far: kept free at the end of a budget in minutes
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, Any] = {}

    def train(self, progress: Progress | None) -> TrainedSasrec:
        epoch = 0
        while self._done() < 1.0:
            batches = epoch_batches(
                self.histories, self.shape.max_items, self.settings.batch_targets, self.settings.seed, epoch
            )
            epoch += 1
            for rows in (one for one in batches if one.shape[1] > 1):
                if self._done() >= 1.0:
                    break
                rate = self.settings.learning_rate * schedule(self._done(), self.settings.warmup)
                loss = self._step(rows, rate)
                found = self._validate() if self._validation_due() else None
                if progress:
                    done = min(self._done(), 1.0)
                    progress(TrainProgress(self.step, done, loss, rate, self._seconds(), found))
            if not self.step:
                raise TrainingError(
                    "expected a user with two training events or more, got none; there is no next item"
                )
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
        baseline = Sasrec(self.model.eval(), self.shape.max_items)
        return TrainedSasrec(baseline, self.shape, self.step, self._seconds(), self.best)

    def _step(self, rows: Int64Array, rate: float) -> float:
        """One optimizer step on a batch int64[B, P]; its mean loss per target."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        negatives = None
        if self.items > FULL_SOFTMAX_ITEMS:
            draw = np.random.default_rng([self.settings.seed, self.step])
            negatives = torch.from_numpy(draw.choice(self.items, SAMPLED_ITEMS, replace=False))
        loss = self.model.loss(torch.from_numpy(rows), negatives)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"expected a finite loss, got {value} at step {self.step}; lower the learning rate"
            )
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.step += 1
        return value

    def _validate(self) -> dict[str, float]:
        assert self.validation is not None
        began = time.monotonic()
        baseline = Sasrec(self.model.eval(), self.shape.max_items)
        ranked = baseline.rank(self.validation, 10)
        found = {**figures(ranked, self.validation.target, self.items), "step": float(self.step)}
        if not self.best or found[SELECTION_METRIC] > self.best[SELECTION_METRIC]:
            self.best = found
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.validation_seconds = max(self.validation_seconds, time.monotonic() - began)
        self.validated.append(self._done())
        return found

    def _validation_due(self) -> bool:
        if self.validation is None:
            return False
        done, last = self._done(), self.validated[-1] if self.validated else 0.0
        if done >= 1.0:
            return True
        if self.settings.minutes is not None:  # a tenth of the time at most
            usual = self.validation_seconds / (self.settings.minutes * 60)
            if done - last < 9 * usual:
                return False
        return done * self.settings.validations >= len(self.validated) + 1

    def _done(self) -> float:
        """The spent part of the budget; at 1 or above it is time to stop."""
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        assert self.settings.minutes is not None
        return self._seconds() / max(self.settings.minutes * 60 - self.validation_seconds, 1e-9)

    def _seconds(self) -> float:
        return time.monotonic() - self.started
