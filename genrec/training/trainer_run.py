"""One fine-tuning run by the transformers Trainer: budget, schedule, validation, checkpoints, resume.

The Trainer trains, saves and takes up again; what is added is a budget in minutes, a schedule that follows it, a
validation of our own (ranked items, not a loss), and checkpoints that are whole or not there. Checkpoints are the
Trainer's own directories. It knows no catalog and no tasks: batches and validation are passed in.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from genrec.training.adapters import is_adapted
from genrec.training.checkpoint import differences
from genrec.training.optimization import schedule
from genrec.training.pretrain import SELECTION_METRIC, Progress, TrainProgress
from index.errors import TrainingError

Validate: TypeAlias = Callable[[Any], dict[str, float]]
"""Figures of a model as it stands; ``ndcg@10`` among them selects."""
ORIGIN = "origin.json"
BUDGET = "budget.json"
_NEVER = 10**9  # steps between what the Trainer would do by itself; the budget says when


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run goes. Exactly one of ``steps`` and ``minutes`` is given."""

    steps: int | None
    minutes: float | None
    learning_rate: float
    seed: int
    warmup: float
    weight_decay: float
    clip_norm: float
    accumulate: int
    """Batches added up into one step."""
    validations: int
    patience: int | None
    checkpoint_every: int
    on_cpu: bool | None
    """None: on a GPU where there is one."""

    @property
    def batches(self) -> int:
        """How many batches a run may take at most."""
        return (self.steps or _NEVER) * self.accumulate


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended; its model holds the weights of the best validation."""

    steps: int
    seconds: float
    earlier: float  # of these, before the checkpoint that it went on from
    best: dict[str, float]
    validations: list[dict[str, float]]


def run_trainer(
    model: Any,
    batches: Dataset[dict[str, Any]],
    settings: RunSettings,
    *,
    directory: Path,
    origin: Mapping[str, Any],
    validate: Validate | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    began: float | None = None,
) -> RunResult:
    """Train a model in place.

    Args:
        model: plain, or with adapters.
        batches: by number, as many as steps at most.
        settings: of the run.
        directory: where checkpoints lie; emptied first unless resumed.
        origin: what the run begins with: a checkpoint fits only its own.
        validate: called now and then with the model in evaluation mode.
        progress: called after every step.
        resume: go on from the last whole checkpoint in ``directory``, where there is one.
        began: time.monotonic() of what counts as the beginning; now where not given.

    Raises:
        TrainingError: the checkpoint is of another run, or the loss is no number.
    """
    last = last_checkpoint(directory) if resume else None
    if last is None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (directory / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", "utf-8")
    else:
        _check_origin(directory, origin)
    budget = Budget(settings, began or time.monotonic(), validate is not None, progress)
    if last is not None:
        budget.restore(json.loads((last / BUDGET).read_text("utf-8")))
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=settings.steps or _NEVER,
        per_device_train_batch_size=1,  # a batch is one entry of the dataset
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        seed=settings.seed,
        eval_strategy="steps" if validate else "no",
        eval_steps=_NEVER,
        save_strategy="steps",
        save_steps=_NEVER,
        save_total_limit=1,  # beside the best one
        load_best_model_at_end=validate is not None,
        metric_for_best_model=SELECTION_METRIC,
        greater_is_better=True,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=bool(settings.on_cpu),
        bf16=not settings.on_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    )
    trainer = _Trainer(
        budget,
        validate,
        model=model,
        args=arguments,
        train_dataset=batches,
        eval_dataset=batches if validate else None,  # it asks for one, though what validates is ours
        callbacks=[budget],
    )
    trainer.remove_callback(PrinterCallback)
    with warnings.catch_warnings(), own_randomness(settings.seed):
        # The scheduler follows a clock, so a step that torch thinks out of order is none.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    best = max(budget.validations, key=lambda figures: figures[SELECTION_METRIC], default={})
    model.eval()
    steps = int(trainer.state.global_step)
    return RunResult(steps, budget.seconds, budget.earlier, best, budget.validations)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seeds every generator the libraries draw from inside; a caller's own draws go on as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the libraries' own
    with torch.random.fork_rng():
        set_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def last_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a run was killed in the middle of is passed over."""
    whole = [one.parent for one in directory.glob(f"checkpoint-*/{BUDGET}")]
    return max(whole, key=lambda one: int(one.name.rpartition("-")[2]), default=None)


def _check_origin(directory: Path, origin: Mapping[str, Any]) -> None:
    try:
        stored = json.loads((directory / ORIGIN).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"expected what the run in {directory} began with in {directory / ORIGIN}, got: {error}; delete the "
            "directory to train from the start"
        ) from error
    differing = differences(stored, origin)
    if differing:
        raise TrainingError(
            f"expected what the run in {directory} began with, got {'; '.join(differing)}; resume it with the first "
            "command unchanged, or train without resume"
        )


class Budget(TrainerCallback):
    """How much of a run is spent, and what is due after a step."""

    def __init__(
        self, settings: RunSettings, began: float, validates: bool, progress: Progress | None
    ) -> None:
        self.settings, self.began, self.validates, self.progress = settings, began, validates, progress
        self.validations: list[dict[str, float]] = []
        self.validated_at = 0.0  # seconds into the run
        self.earlier = 0.0  # seconds before the checkpoint that was gone on from
        self.validation_seconds = 0.0  # the slowest so far: kept free at the end of a budget in minutes
        self.step = 0
        self.loss = math.nan
        self.rate = 0.0

    @property
    def seconds(self) -> float:
        """Since the run began, the time of earlier parts included, that between them not."""
        return time.monotonic() - self.began

    @property
    def done(self) -> float:
        """The spent part of the budget; at 1 or above it is time to stop."""
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        assert self.settings.minutes is not None
        usable = max(self.settings.minutes * 60 - self.validation_seconds, 1e-9)
        return self.seconds / usable

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """Decide what follows a step."""
        self.step = int(state.global_step)
        control.should_training_stop = self.done >= 1.0
        control.should_evaluate = self.validates and self.validation_due()
        control.should_save = control.should_evaluate or self.step % self.settings.checkpoint_every == 0
        if not control.should_evaluate:
            self.report(None)

    def validated(self, figures: dict[str, float], seconds: float) -> bool:
        """Keep the figures of a validation; True when it was one too many without a better one."""
        if SELECTION_METRIC not in figures:
            raise TrainingError(
                f"expected validation figures with {SELECTION_METRIC}, got {sorted(figures)}; return it"
            )
        self.validations.append({**figures, "step": float(self.step)})
        self.validation_seconds = max(self.validation_seconds, seconds)
        self.validated_at = self.seconds
        self.report(self.validations[-1])
        scores = [one[SELECTION_METRIC] for one in self.validations]
        patience = self.settings.patience
        return patience is not None and len(scores) - 1 - scores.index(max(scores)) >= patience

    def report(self, figures: dict[str, float] | None) -> None:
        """Tell the caller how far the run is."""
        if self.progress is not None:
            done = min(self.done, 1.0)
            self.progress(TrainProgress(self.step, done, self.loss, self.rate, self.seconds, figures))

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON values."""
        return {
            "seconds": self.seconds,
            "validation_seconds": self.validation_seconds,
            "validations": self.validations,
            "step": self.step,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Stand where :meth:`state` stood."""
        self.began = time.monotonic() - state["seconds"]
        self.validated_at = self.earlier = state["seconds"]
        self.validation_seconds = state["validation_seconds"]
        self.validations = list(state["validations"])
        self.step = state["step"]

    def validation_due(self) -> bool:
        """Whether a validation should follow this step."""
        if self.done >= 1.0:
            return True
        if self.settings.minutes is not None and (
            # A budget of time is for training: validate a tenth of it at most.
            self.seconds - self.validated_at < 9 * self.validation_seconds
        ):
            return False
        return self.done * self.settings.validations >= len(self.validations) + 1


class _Trainer(Trainer):
    """The Trainer with batches in their order, our schedule and our validation."""

    def __init__(self, budget: Budget, validate: Validate | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._budget, self._validate, self._trained = budget, validate, arguments["model"]
        self.data_collator = _only_one

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """A rate that follows the budget, be it of steps or of minutes."""
        budget, steps = self._budget, self._budget.settings.steps

        def factor(step: int) -> float:
            return schedule(budget.done if steps is None else step / steps, budget.settings.warmup)

        stepped: Any = optimizer or self.optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(stepped, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One batch, forward and backward."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        budget, optimizer = self._budget, self.optimizer
        assert optimizer is not None
        budget.loss, budget.rate = float(loss), optimizer.param_groups[0]["lr"]
        if not math.isfinite(budget.loss):
            raise TrainingError(
                f"expected a finite loss, got {budget.loss} at step {budget.step}; lower the learning rate"
            )
        return loss

    def evaluate(self, *arguments: Any, **others: Any) -> dict[str, float]:
        """Our figures, under the names the Trainer looks for; drawing random numbers there changes nothing here."""
        assert self._validate is not None
        began = time.monotonic()
        with torch.random.fork_rng():
            self._trained.eval()
            figures = self._validate(self._trained)
        if self._budget.validated(figures, time.monotonic() - began):
            self.control.should_training_stop = True
        named = {f"eval_{name}": value for name, value in figures.items()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, named)
        return named

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights alone, in safetensors; of a model with adapters those alone."""
        assert output_dir is not None
        if is_adapted(self._trained):
            self._trained.save_pretrained(output_dir, save_embedding_layers=False)
        else:
            self._trained.save_pretrained(output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        path = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        beside = path / f"{BUDGET}.partial"
        beside.write_text(json.dumps(self._budget.state()) + "\n", "utf-8")
        beside.replace(path / BUDGET)  # written last: its presence says that the rest is there


def _only_one(batches: list[Any]) -> Any:
    (batch,) = batches
    return batch
