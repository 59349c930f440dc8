"""``genrec train --base``: the options of fine-tuning, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from genrec.bundle import load_bundle
from genrec.cli.output import Stages, answers, print_json, print_table, remark, stages
from index.counted import counted
from index.errors import TrainingError
from index.histories import Histories
from index.item_index import ItemIndex

if TYPE_CHECKING:
    from genrec.training.finetune import FinetunedBundle
    from genrec.training.finetune_settings import FinetuneSettings
    from genrec.training.pretrain import TrainProgress

_PANEL = "With --base: any language model"

Base: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Fine-tune this instead of training the native model: a Hugging Face model directory or name (GPT-2, "
        "Llama, Qwen, T5, BART, …), a bundle that was fine-tuned before, or a config.json or 't5-tiger' for a model "
        "that starts from nothing.",
        metavar="MODEL",
        rich_help_panel=_PANEL,
    ),
]
Lora: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--lora", help="Train small adapters and the rows of new tokens only.", rich_help_panel=_PANEL
    ),
]
LoraRank: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Rank of the adapters; 16.", rich_help_panel=_PANEL)
]
Form: TypeAlias = Annotated[
    Literal["prose", "compact"] | None,
    typer.Option(
        help="Prompts in words, or as codes alone; words where the model is pretrained.",
        rich_help_panel=_PANEL,
    ),
]
Epochs: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0.0, help="Budget in passes over all events instead.", rich_help_panel=_PANEL),
]
BatchSize: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Examples a batch; 32.", rich_help_panel=_PANEL)
]
Accumulate: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Batches added up into one step; 1.", rich_help_panel=_PANEL)
]
MaxItems: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Items of a history that are read; 20.", rich_help_panel=_PANEL)
]
LossOnOption: TypeAlias = Annotated[
    Literal["answers", "all"] | None,
    typer.Option(help="Learn answers, or prompts as well; answers.", rich_help_panel=_PANEL),
]
TextSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=300,
        help="Tokens of the vocabulary made for a model from nothing that writes text; 4096.",
        rich_help_panel=_PANEL,
    ),
]
Examples: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, help="Learn from so many events alone, drawn by --seed; from all.", rich_help_panel=_PANEL
    ),
]
ValidationUsers: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="Users each validation asks; 500.", rich_help_panel=_PANEL)
]


def settings_of(
    base: str, tasks: str | None, lora: bool, lora_rank: int | None, **given: Any
) -> FinetuneSettings:
    """The settings from the options that were given; the others keep their defaults.

    Raises:
        TrainingError: options that make no sense, or contradict each other.
    """
    from genrec.training.adapters import LoraSettings
    from genrec.training.finetune_settings import FinetuneSettings

    if lora_rank is not None and not lora:
        raise TrainingError(
            f"expected --lora with --lora-rank, got --lora-rank {lora_rank} alone; add --lora"
        )
    adapters = None
    if lora:
        adapters = LoraSettings() if lora_rank is None else LoraSettings(lora_rank, 2.0 * lora_rank)
    chosen = {name: value for name, value in given.items() if value is not None}
    return FinetuneSettings(
        base=base, tasks=None if tasks is None else weights_of(tasks), lora=adapters, **chosen
    )


def weights_of(tasks: str) -> dict[str, float]:
    """``semantic_id,title=2`` as weights by task.

    Raises:
        TrainingError: a weight is no number.
    """
    weights = {}
    for part in filter(None, (one.strip() for one in tasks.split(","))):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight or 1)
        except ValueError as error:
            raise TrainingError(f"expected tasks as NAME or NAME=WEIGHT, got {part!r}") from error
    return weights


def finetune(
    index: ItemIndex,
    histories: Histories,
    out: Path,
    settings: FinetuneSettings,
    *,
    resume: bool,
    quiet: bool,
    json: bool,
    report: Callable[[Stages], Callable[[TrainProgress], None]],
) -> None:
    """Fine-tune, and tell what came of it."""
    from genrec.training.finetune import checkpoint_directory, finetune_bundle
    from genrec.training.trainer_run import last_checkpoint

    checkpoints = checkpoint_directory(out)
    if resume and last_checkpoint(checkpoints) is None:
        remark(f"note: no checkpoint in {checkpoints}: training starts from the beginning")
    with stages(quiet) as progress:
        try:
            result = finetune_bundle(
                index,
                histories,
                out,
                settings=settings,
                progress=report(progress),
                stage=lambda name: progress(name, 0, 1),
                resume=resume,
            )
        except KeyboardInterrupt:
            remark(
                f"interrupted; the checkpoint is in {checkpoints}: the same command with --resume goes on from there"
                if last_checkpoint(checkpoints) is not None
                else "interrupted before the first checkpoint; nothing was written"
            )
            raise typer.Exit(130) from None
    seconds = round(result.seconds, 1)
    if json:
        print_json(
            {
                "path": str(out),
                "steps": result.steps,
                "parameters": result.parameters,
                "trained_parameters": result.trained,
                "tasks": {name: defaults.to_dict() for name, defaults in result.tasks.items()},
                "validation": result.validation,
                "seconds": seconds,
            }
        )
        return
    answers.print(
        f"Trained {counted(result.trained, 'parameter')} of {result.parameters:,} for "
        f"{counted(result.steps, 'step')} in {seconds:.0f} s → {out}"
    )
    _show_validation(result)
    answers.print(f"Model card: {load_bundle(out).card}")
    answers.print(
        f"Next: genrec recommend {out} --history ID,ID,…   or   genrec evaluate {out} --interactions FILE"
    )


def _show_validation(result: FinetunedBundle) -> None:
    names = ("recall@10", "ndcg@10", "coverage")
    rows = [
        (
            task,
            f"{name} (chosen)" if name == result.tasks[task].normalize else name,
            *(f"{figures[one]:.4f}" for one in names),
        )
        for task, by_name in result.validation.items()
        for name, figures in by_name.items()
    ]
    if rows:
        print_table("Validation", ("task", "normalisation", *names), rows, numbers_from=2)
