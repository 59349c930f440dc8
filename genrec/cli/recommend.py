"""``genrec recommend``."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import JsonFlag, QuietFlag, Verify
from genrec.cli.output import Stages, answers, print_json, print_table, remark, stages
from genrec.cli.wish_options import MaxPer, PriorWish, ids_of, limits_of, prior_of
from genrec.leaf_search import LeafSearch
from genrec.modes import QueryMode
from genrec.recommender import Recommendation, RecommendedItem, Recommender
from genrec.search import Diversity, Normalize
from genrec.tasks import Mode, QueryConstraint
from genrec.wishes import Wishes
from index.counted import counted

SILENT_SECONDS = 2.0  # a search that takes longer shows that it lives

BundlePath = Annotated[Path, typer.Argument(help="A bundle that genrec train wrote.", metavar="BUNDLE")]


def recommend(
    bundle: BundlePath,
    history: Annotated[
        str,
        typer.Option(help="Item ids, oldest first, separated by commas. Empty: a new user.", metavar="IDS"),
    ] = "",
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many items.")] = 10,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="What the model writes: item codes, titles, or queries that find the items; the bundle's first."
        ),
    ] = None,
    beam: Annotated[
        int | None, typer.Option(min=1, help="Prefixes kept per step; the bundle's default where not given.")
    ] = None,
    normalize: Annotated[
        Normalize | None, typer.Option(help="Score over the catalog or the vocabulary; the bundle's default.")
    ] = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Allow items of the history.")] = False,
    where: Annotated[
        str | None,
        typer.Option(help='Only items for which this holds, such as: year >= 1990 and "Comedy" in genres.'),
    ] = None,
    exclude: Annotated[
        str, typer.Option(help="Item ids never to return, separated by commas.", metavar="IDS")
    ] = "",
    max_per: MaxPer = None,
    prior: PriorWish = None,
    diversity: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Search in groups kept apart this strongly (try 1), for unlike items; see --groups.",
        ),
    ] = None,
    groups: Annotated[int, typer.Option(min=1, help="Groups of a diverse search.")] = 5,
    exact: Annotated[bool, typer.Option("--exact", help="Search on until the best k are proven.")] = False,
    max_expansions: Annotated[
        int | None,
        typer.Option(min=1, help="Budget of --exact, in prefixes; what is proven by then is said."),
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Of --mode query: how many are written; the bundle's default.")
    ] = None,
    constraint: Annotated[
        QueryConstraint | None,
        typer.Option(help="Of --mode query: free text, or only words that stand together in the catalog."),
    ] = None,
    verify: Verify = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Recommend items for one history. Every answer is an item of the catalog.

    For example: genrec recommend runs/movies --history 1,32,50 --mode title -k 5
    """
    recommender = Recommender.load(bundle, verify=verify, modes=None if mode is None else [mode])
    ids = ids_of(history)
    wishes = Wishes(
        k=k,
        beam=beam,
        normalize=normalize,
        exclude_seen=not include_seen,
        where=where,
        exclude=ids_of(exclude),
        exact=exact,
        max_expansions=max_expansions,
        max_per=limits_of(max_per or []),
        prior=prior_of(prior),
        diversity=None if diversity is None else Diversity(groups, diversity),
        mode=mode,
        queries=queries,
        constraint=constraint,
    )
    if exact and not isinstance(recommender.mode_of(wishes), QueryMode):
        with stages(quiet) as progress:
            answer = prove(recommender, ids, wishes, progress)
    else:
        answer = recommender.recommend_batch([ids], wishes)[0]
    if json:
        print_json({**asdict(answer), "history": ids})
        return
    show_recommendation(recommender, ids, answer)


def prove(recommender: Recommender, history: list[str], wishes: Wishes, progress: Stages) -> Recommendation:
    """An exact recommendation, which may take long: after a while its prefixes are counted for the user."""
    requests = recommender.requests([recommender.history_rows(history)], wishes)
    mode = recommender.trie_mode(wishes)
    started = time.monotonic()
    proving = LeafSearch(mode.decoder, mode.trie, requests, wishes.normalize or mode.defaults.normalize)
    while proving.going.any():
        proving.step()
        if time.monotonic() - started >= SILENT_SECONDS:
            progress("prefixes to the proof", int(proving.expansions[0]), wishes.max_expansions)
    return recommender.recommendation(history, wishes, proving.result_now(0))


def show_recommendation(recommender: Recommender, ids: list[str], answer: Recommendation) -> None:
    """The history, then the recommended items, as tables for a person."""
    catalog = recommender.index.catalog
    seen = [
        (one, catalog.titles[row])
        for one, row in zip(ids, catalog.rows_of(ids).tolist(), strict=True)
        if row >= 0
    ]
    if seen:
        print_table("History, oldest first", ("id", "title"), seen, numbers_from=2)
        answers.print()
    if answer.mode == "query":
        _show_queries(answer)
    else:
        _show_items(answer)
    for note in answer.notes:
        remark(f"note: {note}")
    if answer.unknown_ids:
        remark(f"note: not in the catalog and not used: {', '.join(answer.unknown_ids)}")


def _show_items(answer: Recommendation) -> None:
    rows = [(item.rank, item.item_id, item.title, _weight(item)) for item in answer.items]
    # Vocabulary scores are no share of the catalog, so they stay what they are: log-probabilities.
    weight = "probability" if answer.normalize == "catalog" else "log-probability"
    print_table("Recommended", ("", "id", "title", weight), rows, numbers_from=3)
    answers.print(
        f"{answer.certified} of {len(answer.items)} certified in their place; beam {answer.beam}, "
        f"{counted(answer.expansions, 'prefix', 'prefixes')} expanded, "
        f"{counted(answer.model_calls, 'model call')}"
    )


def _show_queries(answer: Recommendation) -> None:
    written = [
        (place, query.text, query.found, f"{query.score:.3f}")
        for place, query in enumerate(answer.queries, start=1)
    ]
    print_table("Queries the model wrote", ("", "query", "items", "log-probability"), written, numbers_from=2)
    answers.print()
    place_of = {query.text: place for place, query in enumerate(answer.queries, start=1)}
    found = [
        (
            item.rank,
            item.item_id,
            item.title,
            place_of[item.generated or ""],
            ", ".join(term.term for term in item.matched_terms),
            f"{item.score:.3f}",
        )
        for item in answer.items
    ]
    columns = ("", "id", "title", "query", "words in common", "BM25")
    print_table("Found by them", columns, found, numbers_from=5)
    answers.print(f"beam {answer.beam}, {counted(answer.model_calls, 'model call')}")


def _weight(item: RecommendedItem) -> str:
    return f"{item.score:.3f}" if item.probability is None else f"{100 * item.probability:.2f} %"
