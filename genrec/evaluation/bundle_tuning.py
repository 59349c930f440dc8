"""Choose on a bundle's validation events how it is asked, and write it into the bundle: how its queries are searched
with, and what its history prior says."""

from __future__ import annotations

from dataclasses import asdict, replace

from genrec.bundle import Bundle, DecoderName, changing_bundle
from genrec.evaluation.protocol import figures, rank_cases
from genrec.evaluation.query_tuning import TunedBm25, TuningProgress, tune_bm25
from genrec.history_prior import DIRECTORY
from genrec.modes import QueryMode, codes_mode
from genrec.recommender import Recommender
from genrec.training.fit_prior import PRIOR_USERS, ChosenPrior, choose_prior, fit_history_prior
from genrec.wishes import Wishes
from index.build import training_part
from index.errors import HistoryError, LeakageError, RequestError
from index.histories import Cases, Histories, leave_one_out, temporal_split
from index.item_index import SEMANTIC_ID
from index.leakage import leaked

QUERY = "query"
SLOW_PRIOR_USERS = 2_500  # beside a language model, which answers more slowly


def tune_bundle(
    bundle: Bundle,
    histories: Histories,
    *,
    decoder: DecoderName = "auto",
    threads: int = 1,
    seed: int = 0,
    progress: TuningProgress | None = None,
) -> TunedBm25:
    """Tune query mode with the events that the bundle's hold-out keeps for validation, and save what was chosen.

    The model and all else stay as they are. Other processes go on with the bundle they have open.

    Args:
        bundle: opened; one whose model writes queries.
        histories: whole histories, the same file the bundle was trained from.
        decoder: what runs the model.
        threads: CPU threads of an export.
        seed: of the sample of users.
        progress: told what is done.

    Raises:
        RequestError: the model writes no queries.
        HistoryError: nothing is held out for validation.
        LeakageError: the bundle has been trained on what is held out.
        IndexFormatError: another process has saved the bundle since it was opened.
    """
    if QUERY not in bundle.tasks:
        raise RequestError(
            f"expected a bundle whose model writes queries, got one for {', '.join(bundle.tasks)}; "
            "train it with the task 'query'"
        )
    cases = _validation(bundle, histories)
    mode = Recommender.of_bundle(bundle, decoder, threads=threads, modes=[QUERY]).modes[QUERY]
    assert isinstance(mode, QueryMode)
    tuned = tune_bm25(mode, bundle.index, cases, seed=seed, progress=progress)
    with changing_bundle(bundle, replacing="") as (_, manifest):
        manifest["tasks"] = {**manifest["tasks"], QUERY: tuned.defaults(mode.defaults).to_dict()}
        manifest["bm25_tuning"] = asdict(tuned)
    return tuned


def tune_prior(
    bundle: Bundle,
    histories: Histories,
    *,
    decoder: DecoderName = "auto",
    threads: int = 1,
    seed: int = 0,
    progress: TuningProgress | None = None,
) -> ChosenPrior:
    """Fit a history prior on the training events, choose on validation how much it says, and save it in the bundle.

    For bundles that have none (fine-tuned language models) or one of before. The model stays as it is.

    Args:
        bundle: opened; one whose model writes semantic IDs.
        histories: whole histories, the same file the bundle was trained from.
        decoder: what runs the model.
        threads: CPU threads of an export.
        seed: of the sample of users.
        progress: told what is done.

    Raises:
        RequestError: the model writes no semantic IDs.
        HistoryError, LeakageError, IndexFormatError: as :func:`tune_bundle`.
    """
    if SEMANTIC_ID not in bundle.tasks:
        raise RequestError(
            f"expected a bundle whose model writes semantic IDs, got one for {', '.join(bundle.tasks)}; "
            f"train it with the task '{SEMANTIC_ID}'"
        )
    cases = _validation(bundle, histories)
    cases = cases.sample(PRIOR_USERS if bundle.family == "native" else SLOW_PRIOR_USERS, seed)
    tell = progress or (lambda stage, done, total: None)
    tell("counting which items follow each other", 0, 1)
    index = bundle.index
    prior = fit_history_prior(index, training_part(histories, index.settings["holdout"]))
    recommender = Recommender.of_bundle(bundle, decoder, threads=threads, modes=[SEMANTIC_ID])
    stage = "choosing the weight of the history prior"
    chosen = choose_prior(recommender, prior, cases, progress=lambda done, total: tell(stage, done, total))
    prior = replace(prior, settings=chosen.settings)
    mode = recommender.trie_mode(Wishes())
    defaults = replace(mode.defaults, prior_weight=chosen.weight)
    mixed = Recommender(index, modes={SEMANTIC_ID: codes_mode(index, mode.decoder, defaults, prior)})
    ranked = rank_cases(
        mixed, cases, 10, progress=lambda done, total: tell("measuring what was chosen", done, total)
    )
    found = figures(ranked, cases.target, len(index.catalog))
    with changing_bundle(bundle, replacing=DIRECTORY) as (files, manifest):
        prior.save_files(files)
        manifest[DIRECTORY] = prior.manifest()
        manifest["tasks"] = {**manifest["tasks"], SEMANTIC_ID: defaults.to_dict()}
        manifest["model"] = {**manifest["model"], "prior_validation": found}
    return chosen


def _validation(bundle: Bundle, histories: Histories) -> Cases:
    holdout = bundle.index.settings["holdout"]
    if holdout == "none":
        raise HistoryError(
            "expected a bundle that keeps events for validation, got one built with --holdout none; "
            "tune one built with another hold-out, and take its k1 and b"
        )
    is_temporal = holdout == "temporal"
    cases = temporal_split(histories).validation if is_temporal else leave_one_out(histories, "validation")
    if not len(cases):
        raise HistoryError("expected held-out events for validation, got none; histories are too short")
    guilty = leaked(cases, histories.user_ids, bundle.index.catalog.item_ids, bundle.trained_events())
    if guilty.any():
        raise LeakageError(
            f"expected a bundle that has not seen its validation events, got one trained on {int(guilty.sum()):,} "
            f"of {len(cases):,}; give the interactions it was trained from"
        )
    return cases
