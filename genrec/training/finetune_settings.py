"""What a fine-tuning is told: base, tasks, budget. Checked here, used in :mod:`genrec.training.finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from genrec.recipes.instructions import INSTRUCTIONS
from genrec.speech import FormKind
from genrec.tasks import TASKS
from genrec.training.adapters import LoraSettings
from genrec.training.task_examples import LossOn
from index.errors import TrainingError

PRETRAINED_TASKS = {
    "semantic_id": 1.0,
    "title": 1.0,
    "query": 0.5,
    "title_of_code": 0.25,
    "code_of_title": 0.25,
}
"""The mixture where none is given: every way to name the next item, and what ties codes to words."""
SCRATCH_TASKS = {"semantic_id": 1.0}

LEARNING_RATES = {"lora": 5e-4, "pretrained": 1e-4, "scratch": 1e-3}
"""Peak rates where none is given: usual values, not tuned here."""


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How to fine-tune. Exactly one of ``steps``, ``minutes`` and ``epochs`` is given."""

    base: str
    """A model directory, a name known to Hugging Face, a config or a preset (:mod:`genrec.training.base_model`)."""
    tasks: Mapping[str, float] | None = None
    """Weights of the mixture, by task; the usual one where not given."""
    form: FormKind | None = None
    """How prompts are written: prose for a pretrained model, compact for one that starts from nothing."""
    lora: LoraSettings | None = None
    """Train adapters only; all weights where not given."""
    steps: int | None = None
    minutes: float | None = None
    """Wall time of the whole training, validation included."""
    epochs: float | None = None
    """Passes over all training events."""
    batch_size: int = 32
    accumulate: int = 1
    """Batches added up into one step."""
    learning_rate: float | None = None
    warmup: float = 0.03
    """Part of the budget over which the learning rate rises."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    max_items: int = 20
    """Items of a history that are read; fewer where the model's positions end before."""
    max_tokens: int = 512
    """Of a prompt in prose."""
    loss_on: LossOn = "answers"
    text_size: int = 4_096
    """Tokens of the vocabulary that is trained on the titles for a model that starts from nothing and writes text."""
    examples: int | None = None
    """Learn from so many training events alone, drawn by the seed; from all where not given."""
    validations: int = 10
    """Validations over the whole budget, the last at its end."""
    validation_users: int = 500
    patience: int | None = None
    """Stop after this many validations without a better one."""
    checkpoint_every: int = 500
    """Steps between checkpoints; every validation leaves one too."""
    seed: int = 0
    on_cpu: bool | None = field(default=None, compare=False)
    """None: on a GPU where there is one."""

    def __post_init__(self) -> None:
        budgets = {name: getattr(self, name) for name in ("steps", "minutes", "epochs")}
        given = {name: value for name, value in budgets.items() if value is not None}
        if len(given) != 1:
            raise TrainingError(f"expected one of steps, minutes and epochs, got {given or 'none'}; pass one")
        positive = ("batch_size", "accumulate", "max_items", "max_tokens", "text_size", "validations")
        for name in (
            *given,
            *positive,
            "examples",
            "validation_users",
            "patience",
            "checkpoint_every",
            "learning_rate",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"expected {name} above 0, got {value}; correct the training settings")
        if self.form is not None and self.form not in get_args(FormKind):
            raise TrainingError(f"expected a form of {', '.join(get_args(FormKind))}, got {self.form!r}")
        if self.loss_on not in get_args(LossOn):
            raise TrainingError(f"expected the loss on {' or '.join(get_args(LossOn))}, got {self.loss_on!r}")
        if self.tasks is not None:
            _check_tasks(self.tasks)
            if self.form == "compact" and any(name in INSTRUCTIONS for name in self.tasks):
                raise TrainingError(
                    f"expected prompts in prose for instructions, got compact ones with {', '.join(self.tasks)}; "
                    "leave the form out"
                )

    def mixture(self, is_pretrained: bool) -> dict[str, float]:
        """Weights by task."""
        usual = PRETRAINED_TASKS if is_pretrained else SCRATCH_TASKS
        return dict(usual if self.tasks is None else self.tasks)

    def rate(self, is_pretrained: bool) -> float:
        """The peak learning rate."""
        kind = "lora" if self.lora is not None else "pretrained" if is_pretrained else "scratch"
        return self.learning_rate or LEARNING_RATES[kind]


def _check_tasks(tasks: Mapping[str, float]) -> None:
    known = (*TASKS, *INSTRUCTIONS)
    unknown = [name for name in tasks if name not in known]
    if unknown:
        raise TrainingError(f"expected tasks of {', '.join(known)}, got {', '.join(unknown)}")
    if any(not weight > 0 for weight in tasks.values()):
        raise TrainingError(f"expected weights above 0, got {dict(tasks)}; leave a task out instead")
    if not any(name in INSTRUCTIONS or TASKS[name].is_mode for name in tasks):
        modes = [*(name for name, spec in TASKS.items() if spec.is_mode), *INSTRUCTIONS]
        raise TrainingError(
            f"expected a task that answers requests or recipes ({', '.join(modes)}), got "
            f"{', '.join(tasks) or 'none'}; add one"
        )
