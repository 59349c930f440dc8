"""Train the native model from scratch on whole user sequences, resumably.

The budget is a number of steps or of minutes; either way progress runs from 0 to 1, the learning rate warms
up and follows a cosine down to zero along it, and validation (which counts as time) comes at even distances.
The best weights by validation NDCG@10 are kept. A run by ``steps`` that is killed and resumed ends with the
same weights, bit for bit, as one that was not (same machine and thread count).

It knows no files of interactions and no search: histories are arrays, validation is a function passed in.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from genrec.native_model import NativeConfig, NativeModel
from genrec.own_paths import choose_paths
from genrec.search import Normalize
from genrec.training.checkpoint import (
    Checkpoint,
    differences,
    load_checkpoint,
    origin_of,
    save_checkpoint,
)
from genrec.training.examples import Histories, check_histories, epoch_batches
from genrec.training.loss import joint_loss
from genrec.training.optimization import parameter_groups, products, schedule
from genrec.training.siblings import Siblings
from genrec.training.teacher import Teacher
from genrec.training.text_answers import TextCorpus, check_corpus
from index.errors import TrainingError
from index.types import Int32Array, Int64Array, IntArray

Validate: TypeAlias = Callable[[NativeModel], dict[str, float]]
SELECTION_METRIC = "ndcg@10"
TEXT_METRIC = "token_probability"
"""Of a validation that also looks at texts: the geometric mean probability of a token of a true answer."""

# Fewer training events than this say less of a path than its codes do; not tuned.
OWN_MIN_EVENTS = 3

TAUGHT_LAST = 0.1  # what of the part that is taught is left at the end
TEACHING = 1  # sets a teacher's random draws apart from those of texts

# The head over a text vocabulary is most of what a step computes. Where a CPU multiplies bfloat16 (AMX, AVX512-BF16),
# matrix products of a run with text round their inputs to it; sums stay float32. Measured with AMX, one thread,
# [1536, 128] x [128, 4096]: 69 ms in float32, 10 so. A run of codes alone gains 7 % and keeps float32.
TEXT_PRECISION = "medium"


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How to train. Exactly one of ``steps`` and ``minutes`` is given."""

    steps: int | None = None
    minutes: float | None = None
    """Wall time from the call of :func:`train_native`, validation included."""
    normalize: Normalize = "catalog"
    """What a code's probability is normalised over in the loss. On Amazon Beauty, 1,000 steps, validation
    NDCG@10: catalog .0327, vocabulary .0241 (each searched with its better normalisation)."""
    seed: int = 0
    batch_targets: int = 1536
    """Events per step: about 256 users of Amazon Beauty."""
    learning_rate: float = 3e-3
    warmup: float = 0.02
    """Part of the budget over which the learning rate rises."""
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    validations: int = 20
    """Validations over the whole budget, the last at its end."""
    patience: int | None = None
    """Stop after this many validations without a better one."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    taught: float = 0.9
    """Part of the targets that a teacher draws at the beginning, where there is one. It falls in a straight line to a
    tenth of that: what others did first, what really happened last. Validation NDCG@10 of the model alone and with
    the prior, one run each (own paths not yet read), 3,700 steps on Amazon Beauty, 6,000 on Games, 7,000 on
    MovieLens-1M: half of the targets all the time .0747/.0818, .0695/.0843, .1992/.2017; so .0774/.0834, .0722/.0857,
    .1996/.2031."""
    text_branches: int = 128
    """Texts written per step, at random events of the batch; only where there is something to write."""
    text_weight: float = 2.0
    """Of the loss per text token beside the loss per event."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError(
                f"expected one of steps and minutes, got steps={self.steps}, minutes={self.minutes}; pass one"
            )
        if not 0.0 <= self.taught <= 1.0:
            raise TrainingError(
                f"expected taught in [0, 1], got {self.taught}; correct the training settings"
            )
        for name in (
            "steps",
            "minutes",
            "batch_targets",
            "validations",
            "patience",
            "checkpoint_every",
            "text_branches",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"expected {name} above 0, got {value}; correct the training settings")


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """What a progress callback sees after every step."""

    step: int
    done: float
    """Part of the budget that is spent, 0 to 1."""
    loss: float
    learning_rate: float
    seconds: float
    validation: dict[str, float] | None
    """The figures, where this step ended in a validation."""


Progress: TypeAlias = Callable[[TrainProgress], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained model and how it came about."""

    model: NativeModel
    """In evaluation mode, with the best weights by validation (the last ones where nothing validates)."""
    steps: int
    seconds: float
    earlier: float = 0.0  # of these, before the checkpoint that it went on from
    best: dict[str, float] = field(default_factory=dict)
    """Validation figures of the weights returned, and ``step``."""
    validations: list[dict[str, float]] = field(default_factory=list)
    """All validation figures in order, each with its ``step``."""


def train_native(
    config: NativeConfig,
    codes: Int32Array,
    offsets: IntArray,
    items: IntArray,
    *,
    settings: TrainSettings,
    validate: Validate | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    corpus: TextCorpus | None = None,
    teacher: Teacher | None = None,
) -> TrainResult:
    """Train a native model.

    Args:
        config: the model's shape.
        codes: int32[N, L], the catalog's codes.
        offsets: int64[U + 1], where each user's *training* events begin in ``items``.
        items: int32[T], catalog rows, oldest first within a user.
        settings: budget and optimisation.
        validate: figures of a model in evaluation mode; ``ndcg@10`` among them selects, times the
            ``token_probability`` where there is one: a per cent lost of either counts the same.
        progress: called after every step.
        checkpoint: file that is replaced atomically every ``settings.checkpoint_every`` steps.
        resume: go on from ``checkpoint`` where that file exists.
        corpus: what to write beside codes; the config then has a text vocabulary.
        teacher: of these histories; draws ``settings.taught`` of the targets at first, a tenth of that at last.

    Raises:
        TrainingError: nothing to train on, a corpus that does not fit, a checkpoint of another run, or a loss that
            is not finite.
    """
    histories = check_histories(offsets, items, len(codes))
    check_corpus(corpus, len(codes), config)
    # Dropout draws from torch's global generator: a caller's own draws stay as they were.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        run = _Run(config, codes, histories, settings, checkpoint, corpus, teacher)
        if resume and checkpoint is not None and checkpoint.is_file():
            run.restore(load_checkpoint(checkpoint))
        return run.train(validate, progress)


class _Run:
    """One training run: the model, its optimizer, and where it stands."""

    def __init__(
        self,
        config: NativeConfig,
        codes: Int32Array,
        histories: Histories,
        settings: TrainSettings,
        checkpoint: Path | None,
        corpus: TextCorpus | None,
        teacher: Teacher | None,
    ) -> None:
        self.started = time.monotonic()
        self.corpus, self.teacher = corpus, teacher
        self.precision = "highest" if corpus is None else TEXT_PRECISION
        self.config, self.histories, self.settings, self.checkpoint = config, histories, settings, checkpoint
        self.model = NativeModel(config, codes, _own_paths(config, codes, histories))
        self.siblings = Siblings(codes) if settings.normalize == "catalog" else None
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, settings.weight_decay), lr=settings.learning_rate, fused=True
        )
        self.origin = origin_of(
            config,
            settings,
            codes=[codes],
            training_events=[histories.offsets, histories.items],
            texts=[] if corpus is None else corpus.arrays(),
            taught_targets=[] if teacher is None else teacher.arrays(),
        )
        self.step = self.epoch = self.batch = 0  # batch: those of this epoch already taken
        self.earlier = 0.0  # seconds before the checkpoint that was gone on from
        self.validations: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.validated_at = 0.0  # seconds into the run
        self.validation_seconds = 0.0  # the slowest so far: kept free at the end of a budget in minutes

    def train(self, validate: Validate | None, progress: Progress | None) -> TrainResult:
        """Step until the budget is spent or patience runs out."""
        batches = self._batches()
        done = self._done()
        while done < 1.0 and not self._impatient():
            if self.batch == len(batches):
                self.epoch, self.batch = self.epoch + 1, 0
                batches = self._batches()
            rate = self.settings.learning_rate * schedule(done, self.settings.warmup)
            taught = self.settings.taught * (1.0 - (1.0 - TAUGHT_LAST) * done)
            loss = self._step(batches[self.batch], rate, taught)
            self.step, self.batch = self.step + 1, self.batch + 1
            done = self._done()  # asked once: a step that is not the last must not become it unvalidated
            figures = self._validate(validate) if validate and self._validation_due(done) else None
            done = done if figures is None else self._done()
            if self.checkpoint is not None and self.step % self.settings.checkpoint_every == 0:
                save_checkpoint(self.checkpoint, self._snapshot())
            if progress:
                progress(TrainProgress(self.step, min(done, 1.0), loss, rate, self._seconds(), figures))
        if self.best_weights:
            self.model.load_state_dict(self.best_weights)
        seconds = self._seconds()
        return TrainResult(self.model.eval(), self.step, seconds, self.earlier, self.best, self.validations)

    def restore(self, saved: Checkpoint) -> None:
        """Stand where a checkpoint stood.

        Raises:
            TrainingError: it belongs to another model, other data or other settings.
        """
        if saved.origin != self.origin:
            differing = "; ".join(differences(saved.origin, self.origin))
            raise TrainingError(
                f"expected what the run in {self.checkpoint} began with, got {differing}; "
                "resume it with the first command unchanged, or train without resume"
            )
        self.model.load_state_dict(saved.weights)
        self.best_weights = saved.best_weights
        for name, parameter in self.model.named_parameters():
            if name in saved.optimizer:  # the stock body's unused token table has no gradient, hence no state
                self.optimizer.state[parameter] = dict(saved.optimizer[name])
        torch.set_rng_state(saved.rng)
        self.step, self.epoch, self.batch = saved.step, saved.epoch, saved.batch
        self.validations, self.best = saved.validations, saved.best
        self.validation_seconds = saved.validation_seconds
        self.started = time.monotonic() - saved.seconds
        self.validated_at = self.earlier = saved.seconds

    def _snapshot(self) -> Checkpoint:
        optimizer = {name: self.optimizer.state[p] for name, p in self.model.named_parameters()}
        return Checkpoint(
            origin=self.origin,
            weights=self.model.state_dict(),
            best_weights=self.best_weights,
            optimizer={name: state for name, state in optimizer.items() if state},
            rng=torch.get_rng_state(),
            step=self.step,
            epoch=self.epoch,
            batch=self.batch,
            seconds=self._seconds(),
            validation_seconds=self.validation_seconds,
            validations=self.validations,
            best=self.best,
        )

    def _step(self, events: Int64Array, rate: float, taught: float) -> float:
        """One optimizer step on a batch int64[B, P] of places in the histories; its mean loss per target in nats."""
        items = self.histories.items
        rows = np.where(events >= 0, items[events], -1)
        targets = None
        if self.teacher is not None and taught:
            draws = np.random.default_rng([self.settings.seed, self.epoch, self.batch, TEACHING])
            targets = torch.from_numpy(self.teacher.targets(events, items, taught, draws))
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        branches = named = None
        if self.corpus is not None:
            draws = np.random.default_rng([self.settings.seed, self.epoch, self.batch])
            branches = self.corpus.draw(rows, self.settings.text_branches, draws)
            named = self.corpus.named(rows, draws)
        self.optimizer.zero_grad(set_to_none=True)
        with products(self.precision):
            loss = joint_loss(
                self.model,
                torch.from_numpy(rows),
                self.siblings,
                branches,
                named,
                self.settings.text_weight,
                targets,
            )
            loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"expected a finite loss, got {value} at step {self.step}; lower the learning rate"
            )
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        return value

    def _validate(self, validate: Validate) -> dict[str, float]:
        began = time.monotonic()
        # A validation that draws random numbers must not change the training that follows.
        with torch.random.fork_rng(devices=[]):
            figures = {**validate(self.model.eval()), "step": float(self.step)}
        self.validation_seconds = max(self.validation_seconds, time.monotonic() - began)
        self.validated_at = self._seconds()
        if SELECTION_METRIC not in figures:
            raise TrainingError(
                f"expected validation figures with {SELECTION_METRIC}, got {sorted(figures)}; return it"
            )
        self.validations.append(figures)
        if not self.best or _selected_by(figures) > _selected_by(self.best):
            self.best = figures
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return figures

    def _validation_due(self, done: float) -> bool:
        if done >= 1.0:
            return True
        if self.settings.minutes is not None:
            # A budget of time is for training: validate a tenth of it at most.
            since = self._seconds() - self.validated_at
            if since < 9 * self.validation_seconds:
                return False
        return done * self.settings.validations >= len(self.validations) + 1

    def _impatient(self) -> bool:
        patience = self.settings.patience
        if patience is None or not self.best:
            return False
        steps = [figures["step"] for figures in self.validations]
        return len(steps) - 1 - steps.index(self.best["step"]) >= patience

    def _done(self) -> float:
        """The spent part of the budget; at 1 or above it is time to stop."""
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        assert self.settings.minutes is not None
        usable = max(self.settings.minutes * 60 - self.validation_seconds, 1e-9)
        return self._seconds() / usable

    def _seconds(self) -> float:
        return time.monotonic() - self.started

    def _batches(self) -> list[Int64Array]:
        settings, histories = self.settings, self.histories
        places = replace(histories, items=np.arange(len(histories.items)))
        return epoch_batches(places, self.config.max_items, settings.batch_targets, settings.seed, self.epoch)


def _selected_by(figures: Mapping[str, float]) -> float:
    return figures[SELECTION_METRIC] * figures.get(TEXT_METRIC, 1.0)


def _own_paths(config: NativeConfig, codes: Int32Array, histories: Histories) -> Int32Array:
    """The paths that get a vector of their own: those seen most often."""
    count = np.bincount(histories.items, minlength=len(codes))
    return choose_paths(codes, count, fewest=OWN_MIN_EVENTS, most=config.own_paths)
