"""Index, histories and a language model in, bundle out: fine-tune any model of the transformers library.

The story: load the base and give it tokens for codes; write tasks as prompts and answers; train, whole or by
adapters; choose by validation how each task is asked; merge; save. The result is a bundle like any other. Selection
looks at validation events only; test events are never read here.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from genrec.bundle import save_bundle
from genrec.decoders.exported import CAUSAL_LM, ENCODER_DECODER
from genrec.decoders.hugging_face import quiet_transformers
from genrec.evaluation.protocol import figures, rank_cases
from genrec.model_card import training_facts
from genrec.search import Normalize
from genrec.tasks import TASKS, QueryDefaults, TaskDefaults
from genrec.training.adapters import is_adapted, merged, with_adapters
from genrec.training.base_model import has_weights
from genrec.training.checkpoint import origin_of
from genrec.training.examples import check_histories
from genrec.training.finetune_settings import FinetuneSettings
from genrec.training.pretrain import Progress
from genrec.training.speaking_model import SpeakingModel, speaking_model
from genrec.training.task_examples import ExampleMaker, TaskBatches
from genrec.training.train_bundle import SELECTION_BEAM, SELECTION_METRIC, validation_sample
from genrec.training.trainer_run import RunSettings, own_randomness, run_trainer
from index.build import training_part
from index.errors import TrainingError, require
from index.histories import Cases, Histories
from index.item_index import ItemIndex
from index.leakage import event_hashes

PRETRAINED_BEAM, SCRATCH_BEAM = 20, 50
"""Prefixes a bundle keeps per step by default: a large model pays for each."""
_CASES_AT_ONCE = {"prose": 16, "compact": 128}  # searched together: prompts in prose are long


@dataclass(frozen=True)
class FinetunedBundle:
    """What fine-tuning ended with."""

    path: Path
    steps: int
    seconds: float  # with those before the checkpoint that it went on from
    parameters: int  # of the model that was saved
    trained: int  # of those, how many could change
    tasks: dict[str, TaskDefaults]
    validation: dict[
        str, dict[str, dict[str, float]]
    ]  # task → normalisation → figures; empty without a hold-out


def finetune_bundle(
    index: ItemIndex,
    histories: Histories,
    out: Path,
    *,
    settings: FinetuneSettings,
    progress: Progress | None = None,
    stage: Callable[[str], None] | None = None,
    resume: bool = False,
) -> FinetunedBundle:
    """Fine-tune a language model on an index and write a bundle.

    Args:
        index: what to walk; its ``holdout`` setting also holds here.
        histories: whole histories over the index's catalog.
        out: the bundle's directory. While training runs, its checkpoints lie beside it.
        settings: base, tasks, budget.
        progress: called after every step.
        stage: told what happens before and after the steps.
        resume: go on from the last checkpoint of a run that was killed.

    Raises:
        TrainingError: there is no such base, nothing to train on, the model's positions are too few, or the
            checkpoint belongs to another run.
        IndexFormatError: the base's tokenizer cannot be read.
        MissingDependencyError: accelerate, or peft for adapters, is not installed.
    """
    require("accelerate", extra="finetune", purpose="Fine-tuning (--base)")
    began = time.monotonic()
    say = stage or (lambda _: None)
    holdout = index.settings["holdout"]
    training = training_part(histories, holdout)
    if not training.num_events:
        raise TrainingError(
            f"expected training events, got none of {histories.num_events} with holdout '{holdout}'; "
            f"histories need three events or more, or build the index with --holdout none"
        )
    say("loading the base model")
    mixture = settings.mixture(has_weights(settings.base))
    is_ranked = any(name in TASKS and TASKS[name].is_mode for name in mixture)
    spoken = speaking_model(index, settings, mixture)
    model: Any = spoken.base.model
    parameters = sum(p.numel() for p in model.parameters())
    if settings.lora is not None:
        with own_randomness(settings.seed):
            model = with_adapters(model, settings.lora, list(spoken.base.codes))
    cases = None if holdout == "none" or not is_ranked else _cases(histories, index, settings)
    defaults = _first_defaults(spoken)

    def validate(current: Any) -> dict[str, float]:
        assert cases is not None
        narrow = {name: replace(one, beam=SELECTION_BEAM) for name, one in defaults.items()}
        by_task = {name: _measured(spoken, current, narrow, name, cases) for name in spoken.measured}
        first = by_task[spoken.measured[0]]
        means = {key: float(np.mean([one[key] for one in by_task.values()])) for key in first}
        return {
            **means,
            **{f"{task} {SELECTION_METRIC}": one[SELECTION_METRIC] for task, one in by_task.items()},
        }

    batches, run_settings = _batches(spoken, training, mixture, settings)
    checkpoints = checkpoint_directory(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        result = run_trainer(
            model,
            batches,
            run_settings,
            directory=checkpoints,
            origin=origin_of(settings, codes=[index.codes], events=[training.offsets, training.items]),
            validate=validate if cases is not None and len(cases) else None,
            progress=progress,
            resume=resume,
            began=began,
        )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        validation: dict[str, dict[str, dict[str, float]]] = {}
        if cases is not None and len(cases):
            say("choosing the normalisation on validation")
            for name in spoken.measured:
                found = _by_normalization(spoken, model, defaults, name, cases)
                best = max(found, key=lambda one: found[one][SELECTION_METRIC])
                defaults[name] = replace(defaults[name], normalize=best)
                validation[name] = {one: dict(values) for one, values in found.items()}
        say("writing the bundle")
        seconds = result.earlier + time.monotonic() - began
        hashes = event_hashes(training, index.catalog.item_ids)
        save_bundle(
            out,
            index,
            lambda directory: _save_model(model, directory),
            family=ENCODER_DECODER if spoken.base.is_encoder_decoder else CAUSAL_LM,
            tasks=defaults,
            trained_events=hashes,
            facts={
                "token_offset": spoken.token_offset,
                **({} if spoken.history is None else {"history": spoken.history.to_dict()}),
                "settings": asdict(settings),
                "mixture": mixture,
                "steps": result.steps,
                "seconds": round(seconds, 1),
                "parameters": parameters,
                "trained_parameters": trained,
                **training_facts(training, hashes),
                "holdout": holdout,
                "validation": validation,
            },
            text=spoken.text,
        )
    shutil.rmtree(checkpoints, ignore_errors=True)
    return FinetunedBundle(out, result.steps, seconds, parameters, trained, defaults, validation)


def checkpoint_directory(out: Path) -> Path:
    """Where a run that will write ``out`` keeps its checkpoints."""
    return out.with_name(f"{out.name}.checkpoints")


def _batches(
    spoken: SpeakingModel, training: Histories, mixture: Mapping[str, float], settings: FinetuneSettings
) -> tuple[TaskBatches, RunSettings]:
    index, base = spoken.index, spoken.base
    active = np.setdiff1d(np.arange(len(index.catalog)), index.removed)
    read = spoken.history.max_items if spoken.history is not None else spoken.form.max_items
    maker = ExampleMaker(spoken.speech, spoken.reader(), spoken.token_offset)
    steps = settings.steps

    def batches(count: int) -> TaskBatches:
        return TaskBatches(
            maker,
            check_histories(training.offsets, training.items, len(index.catalog)),
            mixture,
            max_items=max(read, spoken.form.max_items),
            batch_size=settings.batch_size,
            batches=count,
            seed=settings.seed,
            loss_on=settings.loss_on,
            is_encoder_decoder=base.is_encoder_decoder,
            active=active,
            few=settings.examples,
            longest=min(base.max_positions or 2**31, 4 * settings.max_tokens),
        )

    if settings.epochs is not None:
        steps = max(1, batches(1).batches_of_epochs(settings.epochs) // settings.accumulate)
    run = RunSettings(
        steps=steps,
        minutes=settings.minutes,
        learning_rate=settings.rate(base.is_pretrained),
        seed=settings.seed,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        accumulate=settings.accumulate,
        validations=settings.validations,
        patience=settings.patience,
        checkpoint_every=settings.checkpoint_every,
        on_cpu=settings.on_cpu,
    )
    return batches(run.batches), run


def _first_defaults(spoken: SpeakingModel) -> dict[str, TaskDefaults]:
    """How tasks are asked until validation has spoken: a pretrained model knows words that are no title's."""
    beam = PRETRAINED_BEAM if spoken.base.is_pretrained else SCRATCH_BEAM
    defaults: dict[str, TaskDefaults] = {}
    for name in spoken.modes:
        if name == "query":
            defaults[name] = QueryDefaults(beam=beam)
        else:
            fluent = spoken.base.is_pretrained and TASKS[name].is_text
            defaults[name] = TaskDefaults("vocabulary" if fluent else "catalog", beam)
    return defaults


def _cases(histories: Histories, index: ItemIndex, settings: FinetuneSettings) -> Cases:
    """Validation events, the same for a seed, no more than asked for."""
    cases = validation_sample(histories, index.settings["holdout"], settings.seed)
    return cases.sample(settings.validation_users, settings.seed)


def _measured(
    spoken: SpeakingModel, model: Any, defaults: Mapping[str, TaskDefaults], task: str, cases: Cases
) -> dict[str, float]:
    """The metrics of one task on validation cases."""
    recommender = spoken.recommender(model, defaults)
    ranked = rank_cases(recommender, cases, k=10, mode=task, batch=_CASES_AT_ONCE[spoken.form.kind])  # type: ignore[arg-type]
    return figures(ranked, cases.target, len(spoken.index.catalog))


def _by_normalization(
    spoken: SpeakingModel, model: Any, defaults: Mapping[str, TaskDefaults], task: str, cases: Cases
) -> dict[Normalize, dict[str, float]]:
    """Validation figures of a task under each normalisation it has; queries are free text and have one."""
    both: tuple[Normalize, ...] = get_args(Normalize)
    names = (defaults[task].normalize,) if task == "query" else both
    return {
        name: _measured(
            spoken, model, {**defaults, task: replace(defaults[task], normalize=name)}, task, cases
        )
        for name in names
    }


def _save_model(model: Any, directory: Path) -> None:
    """The plain model, adapters merged in; beside it the adapters by themselves, small and telling what changed."""
    if is_adapted(model):
        adapter = directory / "adapter"
        model.save_pretrained(str(adapter), save_embedding_layers=False)
        (adapter / "README.md").unlink(missing_ok=True)  # a form to fill in for a model hub
    merged(model).save_pretrained(directory)
