"""Index and histories in, bundle out: train the native model, choose how it is asked, save.

Selection looks at validation events only; test events are never read here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch

from genrec.bundle import save_bundle
from genrec.decoders.native_decoder import NativeDecoder
from genrec.evaluation.protocol import figures, rank_cases
from genrec.history_prior import HistoryPrior
from genrec.model_card import training_facts
from genrec.modes import codes_mode
from genrec.native_model import NativeConfig, NativeModel
from genrec.recommender import Recommender
from genrec.search import Normalize
from genrec.tasks import TASKS, QueryDefaults, TaskDefaults, tasks_in_order
from genrec.training.fit_prior import PRIOR_USERS, WEIGHTS, choose_prior, fit_history_prior
from genrec.training.pretrain import Progress, TrainSettings, train_native
from genrec.training.teacher import MOST_EVENTS, TEACHER_SETTINGS, teach
from genrec.training.text_part import TEXT_BEAM, TextPart, text_part
from genrec.wishes import USUAL_WEIGHT
from index.build import Holdout, training_part
from index.errors import TrainingError
from index.histories import Cases, Histories, leave_one_out, temporal_split
from index.item_index import SEMANTIC_ID, ItemIndex
from index.leakage import event_hashes

Stage: TypeAlias = Callable[[str, int, int], None]

VALIDATION_USERS = 2_500  # as the measured prototype; the standard error of ndcg@10 is about 0.003
SELECTION_BEAM = 10  # while training: a narrow beam ranks checkpoints as a wide one does
SELECTION_METRIC = "ndcg@10"
TAUGHT_A_MINUTE = 20_000  # events that the prior is asked about, in a fifth of a minute of one thread
TEACHING = "asking the history prior what it would have recommended"
CHOOSING = "choosing the weight of the history prior on validation"


@dataclass(frozen=True)
class TrainedBundle:
    """What training ended with."""

    path: Path
    steps: int
    seconds: float  # with those before the checkpoint that it went on from
    parameters: int
    normalize: Normalize
    validation: dict[str, dict[str, float]]  # figures per normalisation, empty where nothing was held out
    title_normalize: Normalize | None = None  # None where the model writes no titles
    title_validation: dict[str, dict[str, float]] = field(default_factory=dict)
    prior_weight: float = 0.0  # of the history prior; 0 where the model is asked alone
    prior_validation: dict[str, float] = field(default_factory=dict)  # figures with it


def train_bundle(
    index: ItemIndex,
    histories: Histories,
    out: Path,
    *,
    settings: TrainSettings,
    config: NativeConfig | None = None,
    progress: Progress | None = None,
    stage: Stage | None = None,
    resume: bool = False,
    tasks: Sequence[str] = (SEMANTIC_ID,),
    prior_weight: float | None = None,
) -> TrainedBundle:
    """Train a native model on an index and write a bundle.

    Args:
        index: what to walk; its ``holdout`` setting also holds here.
        histories: whole histories over the index's catalog.
        out: the bundle's directory. While training runs, its checkpoint lies beside it.
        settings: budget and optimisation.
        config: the model's shape; :meth:`NativeConfig.sized` by the data where not given.
        progress: called after every step.
        stage: told what happens before and after the steps: what, how much of it is done, and of how much.
        resume: go on from the checkpoint of a run that was killed.
        tasks: what the one model is to answer; ``semantic_id`` is always among them.
        prior_weight: of the history prior against the model's codes, in [0, 1); 0 for a bundle without one. Chosen
            on validation where not given, with how the prior is made; :data:`genrec.wishes.USUAL_WEIGHT` where
            nothing is held out.

    Raises:
        TrainingError: nothing to train on, tasks that a native model does not have, or the checkpoint belongs to
            another run.
    """
    started = time.monotonic()
    holdout = index.settings["holdout"]
    training = training_part(histories, holdout)
    if not training.num_events:
        raise TrainingError(
            f"expected training events, got none of {histories.num_events} with holdout '{holdout}'; "
            f"histories need three events or more, or build the index with --holdout none"
        )
    tell = stage or (lambda what, done, total: None)

    def say(what: str) -> None:
        tell(what, 0, 1)

    config = config or NativeConfig.sized(index.level_sizes, training.lengths)
    text = _text_part(index, tasks, config, say)
    if text is not None:
        config = text.config
    cases = None if holdout == "none" else validation_sample(histories, holdout, settings.seed)
    checkpoint = checkpoint_path(out)
    prior = teacher = None
    if prior_weight != 0 or settings.taught:
        say("counting which items follow each other")
        prior = fit_history_prior(index, training)
    if prior is not None and settings.taught:
        asked = replace(prior, settings=TEACHER_SETTINGS)
        teacher = teach(
            asked,
            training,
            seed=settings.seed,
            most=_taught_events(settings),
            progress=lambda done, total: tell(TEACHING, done, total),
        )

    def validate(model: NativeModel) -> dict[str, float]:
        assert cases is not None
        found = validation_figures(index, model, cases, "catalog", SELECTION_BEAM)
        return found if text is None else {**found, **text.figures(model, cases)}

    if cases is not None and len(cases):
        say("preparing to validate")
        _search_once(index, config, cases)
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
        corpus=None if text is None else text.corpus,
        teacher=teacher,
    )
    chosen = _chosen(index, result.model, cases, text, tasks, say)
    many = None if cases is None else validation_sample(histories, holdout, settings.seed, PRIOR_USERS)
    mixed = _with_prior(
        index, result.model, prior, cases, many, chosen.defaults[SEMANTIC_ID], prior_weight, tell
    )
    chosen.defaults[SEMANTIC_ID] = mixed.defaults
    parameters = sum(p.numel() for p in result.model.parameters())
    seconds = result.earlier + time.monotonic() - started
    hashes = event_hashes(training, index.catalog.item_ids)
    facts: dict[str, Any] = {
        "settings": asdict(settings),
        "shape": config.to_dict(),
        "steps": result.steps,
        "seconds": round(seconds, 1),
        "parameters": parameters,
        **training_facts(training, hashes),
        "holdout": holdout,
        "validation": chosen.validation,
        **({"prior_validation": mixed.validation} if mixed.validation else {}),
        **({"title_validation": chosen.title_validation} if "title" in chosen.defaults else {}),
    }
    say("writing the bundle")
    save_bundle(
        out,
        index,
        result.model.save,
        family="native",
        tasks=chosen.defaults,
        trained_events=hashes,
        facts=facts,
        text=None if text is None else text.bundled,
        prior=mixed.prior,
    )
    checkpoint.unlink(missing_ok=True)
    titles = chosen.defaults.get("title")
    return TrainedBundle(
        out,
        result.steps,
        seconds,
        parameters,
        chosen.defaults[SEMANTIC_ID].normalize,
        chosen.validation,
        None if titles is None else titles.normalize,
        chosen.title_validation,
        mixed.defaults.prior_weight,
        mixed.validation,
    )


def _search_once(index: ItemIndex, config: NativeConfig, cases: Cases) -> None:
    """With any model. The first search on a machine compiles its loops: a quarter of a minute, which would count as
    the length of a validation, be kept free at the end, and make validations rare."""
    with torch.random.fork_rng(devices=[]):  # a caller's own draws stay as they were
        model = NativeModel(config, index.codes)
    validation_figures(index, model, cases.take(np.arange(1)), "catalog", SELECTION_BEAM)


@dataclass(frozen=True)
class _Mixed:
    """The history prior of a bundle, how the codes are asked with it, and what that gives."""

    prior: HistoryPrior | None
    defaults: TaskDefaults
    validation: dict[str, float]


def _with_prior(
    index: ItemIndex,
    model: NativeModel,
    prior: HistoryPrior | None,
    cases: Cases | None,
    many: Cases | None,
    codes: TaskDefaults,
    weight: float | None,
    tell: Stage,
) -> _Mixed:
    """How the prior is mixed in: by the best weight and settings on ``many`` validation cases, or a weight given.

    The figures are of ``cases``, as the model's own.
    """
    if prior is None or weight == 0:
        return _Mixed(None, codes, {})
    if cases is None or many is None or not len(cases):
        return _Mixed(prior, replace(codes, prior_weight=USUAL_WEIGHT if weight is None else weight), {})
    decoder = NativeDecoder(model)
    weights = WEIGHTS if weight is None else (weight,)
    chosen = choose_prior(
        Recommender(index, decoder, codes),
        prior,
        many,
        weights=weights,
        progress=lambda done, total: tell(CHOOSING, done, total),
    )
    prior, codes = replace(prior, settings=chosen.settings), replace(codes, prior_weight=chosen.weight)
    recommender = Recommender(index, modes={SEMANTIC_ID: codes_mode(index, decoder, codes, prior)})
    ranked = rank_cases(recommender, cases, k=10)
    return _Mixed(prior, codes, figures(ranked, cases.target, len(index.catalog)))


@dataclass(frozen=True)
class _Chosen:
    """How each task is asked, and why."""

    defaults: dict[str, TaskDefaults]
    validation: dict[str, dict[str, float]]
    title_validation: dict[str, dict[str, float]]


def _chosen(
    index: ItemIndex,
    model: NativeModel,
    cases: Cases | None,
    text: TextPart | None,
    tasks: Sequence[str],
    say: Callable[[str], None],
) -> _Chosen:
    """Defaults of every task: the better normalisation on validation, the usual one where nothing is held out."""
    codes, titles = TaskDefaults(), TaskDefaults("vocabulary", TEXT_BEAM)
    defaults: dict[str, TaskDefaults] = {SEMANTIC_ID: codes}
    validation: dict[str, dict[str, float]] = {}
    title_validation: dict[str, dict[str, float]] = {}
    measurable = cases is not None and len(cases) > 0
    if measurable:
        assert cases is not None
        say("choosing the normalisation on validation")
        for name in get_args(Normalize):
            validation[name] = validation_figures(index, model, cases, name, codes.beam)
        defaults[SEMANTIC_ID] = replace(codes, normalize=_best(validation))
    if text is not None and "title" in tasks:
        if measurable:
            assert cases is not None
            say("choosing the normalisation of titles on validation")
            for name in get_args(Normalize):
                title_validation[name] = text.title_figures(model, cases, name)
            titles = replace(titles, normalize=_best(title_validation))
        defaults["title"] = titles
    if text is not None and "query" in tasks:
        queries = QueryDefaults(beam=TEXT_BEAM, constraint="catalog_ngrams")
        if measurable:
            assert cases is not None
            say("choosing on validation how queries are searched with")
            queries = text.tuned_queries(model, cases, queries)
        defaults["query"] = queries
    return _Chosen(defaults, validation, title_validation)


def _text_part(
    index: ItemIndex, tasks: Sequence[str], config: NativeConfig, say: Callable[[str], None]
) -> TextPart | None:
    """What is needed to write text; None where codes alone are asked for."""
    known = [name for name, spec in TASKS.items() if spec.is_mode]
    if SEMANTIC_ID not in tasks or not set(tasks) <= set(known):
        raise TrainingError(
            f"expected {SEMANTIC_ID}, with or without {' and '.join(known[1:])}, as tasks of a native model, got "
            f"{', '.join(tasks) or 'none'}; correct --tasks"
        )
    texts = [name for name in tasks_in_order(tasks) if TASKS[name].is_text]
    if not texts:
        return None
    say("learning a vocabulary from the titles")
    return text_part(index, texts, config)


def _best(validation: Mapping[str, dict[str, float]]) -> Normalize:
    best = max(validation, key=lambda name: validation[name][SELECTION_METRIC])
    return "catalog" if best == "catalog" else "vocabulary"


def _taught_events(settings: TrainSettings) -> int:
    """No more than a run can draw from, or than a fifth of its minutes pays for."""
    if settings.steps is not None:
        return min(MOST_EVENTS, settings.steps * settings.batch_targets)
    assert settings.minutes is not None
    return min(MOST_EVENTS, round(settings.minutes * TAUGHT_A_MINUTE))


def checkpoint_path(out: Path) -> Path:
    """Where a run that will write ``out`` keeps its checkpoint."""
    return out.with_name(f"{out.name}.checkpoint.safetensors")


def validation_sample(
    histories: Histories, holdout: Holdout, seed: int, users: int = VALIDATION_USERS
) -> Cases:
    """At most ``users`` of the events held out for validation, the same for a seed."""
    temporal = holdout == "temporal"
    cases = temporal_split(histories).validation if temporal else leave_one_out(histories, "validation")
    return cases.sample(users, seed)


def validation_figures(
    index: ItemIndex, model: NativeModel, cases: Cases, normalize: Normalize, beam: int
) -> dict[str, float]:
    """The metrics of a model on validation cases."""
    recommender = Recommender(index, NativeDecoder(model), TaskDefaults(normalize, beam))
    ranked = rank_cases(recommender, cases, k=10)
    return figures(ranked, cases.target, len(index.catalog))
