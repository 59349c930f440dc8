"""Index and histories in, bundle out: train the native model, choose how it is asked, save.

Selection looks at validation events only; test events are never read here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from genrec.bundle import save_bundle
from genrec.decoders.native_decoder import NativeDecoder
from genrec.evaluation.protocol import figures, rank_cases
from genrec.native_model import NativeConfig, NativeModel
from genrec.recommender import Recommender
from genrec.search import Normalize
from genrec.tasks import TaskDefaults
from genrec.training.pretrain import Progress, TrainSettings, train_native
from index.build import Holdout, training_part
from index.errors import TrainingError
from index.histories import Cases, Histories, leave_one_out, temporal_split
from index.item_index import SEMANTIC_ID, ItemIndex
from index.leakage import event_hashes

VALIDATION_USERS = 2_500  # as the measured prototype; the standard error of ndcg@10 is about 0.003
SELECTION_BEAM = 10  # while training: a narrow beam ranks checkpoints as a wide one does
SELECTION_METRIC = "ndcg@10"


@dataclass(frozen=True)
class TrainedBundle:
    """What training ended with."""

    path: Path
    steps: int
    seconds: float
    parameters: int
    normalize: Normalize
    validation: dict[str, dict[str, float]]  # figures per normalisation, empty where nothing was held out


def train_bundle(
    index: ItemIndex,
    histories: Histories,
    out: Path,
    *,
    settings: TrainSettings,
    config: NativeConfig | None = None,
    progress: Progress | None = None,
    stage: Callable[[str], None] | None = None,
    resume: bool = False,
) -> TrainedBundle:
    """Train a native model on an index and write a bundle.

    Args:
        index: what to walk; its ``holdout`` setting also holds here.
        histories: whole histories over the index's catalog.
        out: the bundle's directory. While training runs, its checkpoint lies beside it.
        settings: budget and optimisation.
        config: the model's shape; the measured default where not given.
        progress: called after every step.
        stage: told what happens after the steps.
        resume: go on from the checkpoint of a run that was killed.

    Raises:
        TrainingError: nothing to train on, or the checkpoint belongs to another run.
    """
    started = time.monotonic()
    holdout = index.settings["holdout"]
    training = training_part(histories, holdout)
    if not training.num_events:
        raise TrainingError(
            f"expected training events, got none of {histories.num_events} with holdout '{holdout}'; "
            f"histories need three events or more, or build the index with --holdout none"
        )
    config = config or NativeConfig(code_sizes=index.level_sizes)
    cases = None if holdout == "none" else validation_sample(histories, holdout, settings.seed)
    checkpoint = checkpoint_path(out)

    def validate(model: NativeModel) -> dict[str, float]:
        assert cases is not None
        return validation_figures(index, model, cases, "catalog", SELECTION_BEAM)

    out.parent.mkdir(parents=True, exist_ok=True)
    result = train_native(
        config,
        index.codes,
        training.offsets,
        training.items,
        settings=settings,
        validate=validate if cases is not None and len(cases) else None,
        progress=progress,
        checkpoint=checkpoint,
        resume=resume,
    )
    defaults = TaskDefaults()
    validation: dict[str, dict[str, float]] = {}
    if cases is not None and len(cases):
        (stage or (lambda _: None))("choosing the normalisation on validation")
        for name in get_args(Normalize):
            validation[name] = validation_figures(index, result.model, cases, name, defaults.beam)
        best = max(validation, key=lambda name: validation[name][SELECTION_METRIC])
        defaults = replace(defaults, normalize="catalog" if best == "catalog" else "vocabulary")
    parameters = sum(p.numel() for p in result.model.parameters())
    seconds = time.monotonic() - started
    facts: dict[str, Any] = {
        "settings": asdict(settings),
        "steps": result.steps,
        "seconds": round(seconds, 1),
        "parameters": parameters,
        "training_events": training.num_events,
        "holdout": holdout,
        "validation": validation,
    }
    (stage or (lambda _: None))("writing the bundle")
    save_bundle(
        out,
        index,
        result.model.save,
        family="native",
        tasks={SEMANTIC_ID: defaults},
        trained_events=event_hashes(training, index.catalog.item_ids),
        facts=facts,
    )
    checkpoint.unlink(missing_ok=True)
    return TrainedBundle(out, result.steps, seconds, parameters, defaults.normalize, validation)


def checkpoint_path(out: Path) -> Path:
    """Where a run that will write ``out`` keeps its checkpoint."""
    return out.with_name(f"{out.name}.checkpoint.safetensors")


def validation_sample(histories: Histories, holdout: Holdout, seed: int) -> Cases:
    """At most :data:`VALIDATION_USERS` of the events held out for validation, the same for a seed."""
    temporal = holdout == "temporal"
    cases = temporal_split(histories).validation if temporal else leave_one_out(histories, "validation")
    if len(cases) <= VALIDATION_USERS:
        return cases
    chosen = np.random.default_rng(seed).choice(len(cases), VALIDATION_USERS, replace=False)
    return cases.take(np.sort(chosen))


def validation_figures(
    index: ItemIndex, model: NativeModel, cases: Cases, normalize: Normalize, beam: int
) -> dict[str, float]:
    """The metrics of a model on validation cases."""
    recommender = Recommender(index, NativeDecoder(model), TaskDefaults(normalize, beam))
    ranked = rank_cases(recommender, cases, k=10)
    return figures(ranked, cases.target, len(index.catalog))
