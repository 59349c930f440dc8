"""``genrec train``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.bundle import load_bundle
from genrec.cli.options import (
    Interactions,
    ItemColumn,
    JsonFlag,
    OnError,
    QuietFlag,
    Threads,
    TimeColumn,
    UserColumn,
    read_histories,
)
from genrec.cli.output import Stages, answers, print_json, print_table, remark, stages
from genrec.cli.train_base import (
    Accumulate,
    Base,
    BatchSize,
    Epochs,
    Examples,
    Form,
    Lora,
    LoraRank,
    LossOnOption,
    MaxItems,
    TextSize,
    ValidationUsers,
    finetune,
    settings_of,
)
from index.build import training_part
from index.counted import counted
from index.errors import TrainingError, require
from index.item_index import SEMANTIC_ID, load_index

if TYPE_CHECKING:
    from genrec.training.pretrain import TrainProgress

DEFAULT_MINUTES = 15.0
FEW_STEPS = 100  # the smallest model worth having saw a few epochs; below this a person should be told


def train(
    index: Annotated[Path, typer.Option(help="The index to train on.", metavar="INDEX")],
    interactions: Interactions,
    out: Annotated[Path, typer.Option(help="Bundle directory to write.", metavar="DIR")],
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help=f"Time budget; {DEFAULT_MINUTES:g} where nothing is given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Step budget instead; repeatable to the bit.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="What the one model learns to answer with, separated by commas: semantic_id (codes), title, query. "
            "The native model always learns codes; text takes about half of each of its steps, so give it twice the "
            "budget. With --base also title_of_code and code_of_title, weights (semantic_id,title=2), and what "
            "recipes ask: yes_no, brew_like, brew_next, brew_known, brew_kind, profile, recommend, rank, tree and "
            "recommend_retrieval.",
            metavar="TASKS",
        ),
    ] = None,
    prior_weight: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            help="What other people's histories and the items' texts weigh beside the model in every answer; 0: the "
            "model alone. Chosen on validation where not given.",
        ),
    ] = None,
    taught: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Part of the first training targets drawn from what that prior would have recommended, in place of "
            "what really came; .9 where not given. It falls to a tenth of itself. 0 for none.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run left off.")] = False,
    hidden_size: Annotated[int | None, typer.Option(min=8, help="Width of the model.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers of the model's body.")] = None,
    dropout: Annotated[float | None, typer.Option(min=0.0, max=0.9, help="Dropout.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Peak learning rate.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many validations without a better one.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints, for --resume.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    base: Base = None,
    lora: Lora = False,
    lora_rank: LoraRank = None,
    form: Form = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    accumulate: Accumulate = None,
    max_items: MaxItems = None,
    loss_on: LossOnOption = None,
    validation_users: ValidationUsers = None,
    examples: Examples = None,
    text_size: TextSize = None,
    threads: Threads = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Train a model on an index and write a bundle: the small native one, or with --base any language model.

    Events held out when the index was built are not trained on: the last-but-one event of every user chooses
    the best weights and the normalisation, the last one is kept for genrec evaluate.

    With --tasks semantic_id,title,query the same model also writes titles and search queries.

    Any language model: genrec train --base ./Qwen3-0.6B --lora --index INDEX --interactions FILE --out DIR

    TALLRec, from 64 examples: genrec train --base ./Qwen3-0.6B --lora --tasks yes_no --examples 64 --epochs 20
    --index INDEX --interactions FILE --out DIR

    TIGER's T5 from nothing: genrec train --base t5-tiger --index INDEX --interactions FILE --out DIR
    """
    torch = require("torch", extra="train", purpose="Training")
    from genrec.native_model import NativeConfig
    from genrec.training.pretrain import TrainSettings
    from genrec.training.train_bundle import checkpoint_path, train_bundle

    budgets = {"--minutes": minutes, "--steps": steps, "--epochs": epochs}
    budget = [f"{name} {value:g}" for name, value in budgets.items() if value is not None]
    if len(budget) > 1:
        raise TrainingError(f"expected one budget, got {' and '.join(budget)}; give one")
    tuned = {
        "form": form,
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "max_items": max_items,
        "loss_on": loss_on,
        "validation_users": validation_users,
        "examples": examples,
        "text_size": text_size,
    }
    shape = {"hidden_size": hidden_size, "layers": layers, "dropout": dropout}
    own = {**shape, "prior_weight": prior_weight, "taught": taught}  # of the native model
    _refuse({**tuned, "lora": lora or None, "lora_rank": lora_rank} if base is None else own, base)
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_index(index)
    histories = read_histories(interactions, loaded.catalog, on_error, user_column, item_column, time_column)
    if not budget:
        minutes = DEFAULT_MINUTES
    if base is not None:
        tuning = settings_of(
            base,
            tasks,
            lora,
            lora_rank,
            **tuned,
            steps=steps,
            minutes=minutes,
            seed=seed,
            patience=patience,
            learning_rate=learning_rate,
            checkpoint_every=checkpoint_every,
        )
        finetune(
            loaded,
            histories,
            out,
            tuning,
            resume=resume,
            quiet=quiet,
            json=json,
            report=lambda progress: _Report(progress).step,
        )
        return
    settings = TrainSettings(steps=steps, minutes=minutes, seed=seed, patience=patience)
    if learning_rate is not None:
        settings = replace(settings, learning_rate=learning_rate)
    if taught is not None:
        settings = replace(settings, taught=taught)
    if checkpoint_every is not None:
        settings = replace(settings, checkpoint_every=checkpoint_every)
    given = {name: value for name, value in shape.items() if value is not None}
    events = training_part(histories, loaded.settings["holdout"]).lengths
    config = replace(NativeConfig.sized(loaded.level_sizes, events), **given)  # type: ignore[arg-type]

    checkpoint = checkpoint_path(out)
    if resume and not checkpoint.exists():
        remark(f"note: no checkpoint in {checkpoint}: training starts from the beginning")
    with stages(quiet) as progress:
        report = _Report(progress)
        try:
            result = train_bundle(
                loaded,
                histories,
                out,
                settings=settings,
                config=config,
                progress=lambda at: report.step(at),
                stage=progress,
                resume=resume,
                tasks=[name.strip() for name in (tasks or SEMANTIC_ID).split(",") if name.strip()],
                prior_weight=prior_weight,
            )
        except KeyboardInterrupt:
            remark(_interrupted(checkpoint))
            raise typer.Exit(130) from None
    if result.steps < FEW_STEPS:
        remark(
            f"note: only {counted(result.steps, 'training step')} fitted into the budget: this model has "
            f"hardly learned; give it more --minutes"
        )
    facts = {
        "path": str(out),
        "steps": result.steps,
        "parameters": result.parameters,
        "normalize": result.normalize,
        "validation": result.validation,
        "prior_weight": result.prior_weight,
        "prior_validation": result.prior_validation,
        "title_normalize": result.title_normalize,
        "title_validation": result.title_validation,
        "seconds": round(result.seconds, 1),
    }
    if json:
        print_json(facts)
        return
    answers.print(
        f"Trained {counted(result.parameters, 'parameter')} for {counted(result.steps, 'step')} "
        f"in {facts['seconds']:.0f} s → {out}"
    )
    _print_validation("Validation", result.validation, result.normalize)
    if result.prior_validation:
        answers.print(_about_prior(result.prior_weight, result.prior_validation))
    if result.title_normalize is not None:
        _print_validation("Validation of titles", result.title_validation, result.title_normalize)
    answers.print(f"Model card: {load_bundle(out).card}")
    answers.print(
        f"Next: genrec recommend {out} --history ID,ID,…   or   genrec evaluate {out} --interactions FILE"
    )


def _refuse(options: Mapping[str, object], base: str | None) -> None:
    """Options that would have no effect are a misunderstanding.

    Raises:
        TrainingError: one was given.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise TrainingError(
            f"expected {', '.join(given)} "
            + (
                "together with --base, got no base"
                if base is None
                else "without --base, whose model has a shape and no prior"
            )
            + "; leave one of them out"
        )


def _interrupted(checkpoint: Path) -> str:
    if checkpoint.exists():
        return (
            f"interrupted; the checkpoint is {checkpoint}: the same command with --resume goes on from there"
        )
    return "interrupted before the first checkpoint; nothing was written"


def _print_validation(heading: str, validation: Mapping[str, Mapping[str, float]], chosen: str) -> None:
    """A table of figures per normalisation; nothing where nothing was held out."""
    names = ("recall@10", "ndcg@10", "coverage")
    rows = [
        (f"{name} (chosen)" if name == chosen else name, *(f"{figures[n]:.4f}" for n in names))
        for name, figures in validation.items()
    ]
    if rows:
        print_table(heading, ("normalisation", *names), rows, numbers_from=1)


def _about_prior(weight: float, figures: Mapping[str, float]) -> str:
    if not weight:
        return "History prior: the model alone is better on validation"
    return (
        f"History prior: weight {weight:g}; with it recall@10 {figures['recall@10']:.4f}, "
        f"ndcg@10 {figures['ndcg@10']:.4f}, coverage {figures['coverage']:.4f}"
    )


class _Report:
    """Turns training progress into bars and lines."""

    def __init__(self, progress: Stages) -> None:
        self._progress = progress

    def step(self, at: TrainProgress) -> None:
        self._progress("training", round(at.done * 1000), 1000)
        if at.validation is not None:
            text = at.validation.get("token_probability")
            self._progress.note(
                f"[{at.seconds:6.1f} s] step {at.step}: loss {at.loss:.3f}, validation "
                f"recall@10 {at.validation['recall@10']:.4f}, ndcg@10 {at.validation['ndcg@10']:.4f}"
                + ("" if text is None else f", probability of a text token {text:.4f}")
            )
