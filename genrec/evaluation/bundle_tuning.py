"""Choose k1 and b of a bundle's query mode on its validation events, and write them into the bundle."""

from __future__ import annotations

from dataclasses import asdict

from genrec.bundle import Bundle, DecoderName, changing_bundle
from genrec.evaluation.query_tuning import TunedBm25, TuningProgress, tune_bm25
from genrec.modes import QueryMode
from genrec.recommender import Recommender
from index.errors import HistoryError, LeakageError, RequestError
from index.histories import Cases, Histories, leave_one_out, temporal_split
from index.leakage import leaked

QUERY = "query"


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
