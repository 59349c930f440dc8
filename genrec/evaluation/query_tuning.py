"""How query mode searches, chosen on validation: k1 and b of BM25, the grid search of GPT4Rec (arXiv 2304.03879), and
how many titles of the history stand behind every query.

The model writes each user's queries once, and all settings search with the same ones: a setting costs a search, not a
model. It looks at the cases it is given alone: who calls it gives those of validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.evaluation.metrics import recall
from genrec.grounding import Query, ground
from genrec.mode_requests import query_context
from genrec.modes import QueryMode
from genrec.queries import QueryRequest
from genrec.query_search import CatalogQuerySearch
from genrec.tasks import QueryDefaults
from index.errors import RequestError
from index.histories import Cases
from index.item_index import ItemIndex
from index.types import Float64Array, Int32Array

K1 = (0.3, 0.6, 0.9, 1.2, 2.0)
B = (0.0, 0.25, 0.5, 0.75, 1.0)
CONTEXT = (0, 1, 2)
"""Titles of the newest items that stand behind a query. On Amazon Beauty, with the words of the ten items that the
codes find best (validation, 1,250 users): recall@40 .140 with none, .174 with one, .183 with two."""
USERS = 1_000
"""Cases looked at, at most. Differences between settings are of the same users, so they are seen with few."""
DEPTH = 40
"""Recall is measured at this depth, as in the paper."""
_BATCH = 64  # users whose queries are written together

TuningProgress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One way to search."""

    k1: float
    b: float
    context: int
    recall: float  # at DEPTH


@dataclass(frozen=True, slots=True)
class TunedBm25:
    """What was chosen, and what from."""

    k1: float
    b: float
    context: int
    recall: float  # at DEPTH, with them
    built: float  # with the settings of the index, and no context
    users: int
    tried: tuple[Tried, ...]  # every context with the index's settings, then others with the best one

    def defaults(self, of: QueryDefaults) -> QueryDefaults:
        """The defaults with what was chosen."""
        return replace(of, k1=self.k1, b=self.b, context=self.context)


def tune_bm25(
    mode: QueryMode,
    index: ItemIndex,
    cases: Cases,
    *,
    k1: Sequence[float] = K1,
    b: Sequence[float] = B,
    context: Sequence[int] = CONTEXT,
    seed: int = 0,
    progress: TuningProgress | None = None,
) -> TunedBm25:
    """Choose the settings of the best recall. Of equals the ones nearest to the index's own are taken.

    First the context, with the index's k1 and b, then those with it: every pair with every context would be three
    times as many searches. Titles behind all queries make the queries' items alike, so of contexts the shortest
    within one standard error of the best is taken (the rule of Breiman et al., Classification and Regression
    Trees, 1984, with the error of the paired difference).

    Args:
        mode: whose model writes the queries, by the mode's defaults.
        index: the items.
        cases: validation cases; a seeded sample of :data:`USERS` where there are more.
        k1: what is tried, beside the index's own.
        b: the same.
        context: what is tried; 0 must be among them.
        seed: of the sample.
        progress: told what is done.

    Raises:
        RequestError: there is no case, or the mode's queries are not written here.
    """
    if not len(cases) or not isinstance(mode.search, CatalogQuerySearch):
        raise RequestError("expected validation cases and a model that writes queries, got none")
    cases = cases.sample(USERS, seed)
    tell = progress or (lambda stage, done, total: None)
    histories = [np.asarray(cases.history_of(case), np.int64) for case in range(len(cases))]
    queries = _written(mode, mode.search, histories, tell)
    built = index.bm25.settings
    pairs = list(dict.fromkeys([(built.k1, built.b), *((one, other) for one in k1 for other in b)]))
    tried: list[Tried] = []
    searches = len(context) + len(pairs) - 1

    def search(one: float, other: float, items: int) -> Float64Array:
        tell("trying how to search", len(tried), searches)
        behind = [query_context(mode, rows, items) for rows in histories]
        ranked = _ranked(queries, histories, behind, index, one, other)
        found = recall(ranked, cases.target, DEPTH)
        tried.append(Tried(one, other, items, float(found.mean())))
        return found

    chosen = shortest({items: search(built.k1, built.b, items) for items in sorted(context)})
    for one, other in pairs[1:]:
        search(one, other, chosen)
    tell("trying how to search", searches, searches)
    best = max(
        (it for it in tried if it.context == chosen),
        key=lambda it: (it.recall, -abs(it.k1 - built.k1) - abs(it.b - built.b)),
    )
    plain = next(it for it in tried if not it.context)
    return TunedBm25(best.k1, best.b, best.context, best.recall, plain.recall, len(cases), tuple(tried))


def shortest(found: Mapping[int, Float64Array]) -> int:
    """The shortest context, of those in rising order, that is within one standard error of the best.

    Args:
        found: by context, of each of C users whether the target was found.
    """
    best = max(found.values(), key=lambda one: float(one.mean()))
    lost = {items: best - one for items, one in found.items()}
    return next(items for items, one in lost.items() if one.mean() <= one.std() / np.sqrt(len(one)))


def _written(
    mode: QueryMode, search: CatalogQuerySearch, histories: Sequence[np.ndarray], tell: TuningProgress
) -> list[list[Query]]:
    """The queries of each user."""
    defaults = mode.defaults
    queries: list[list[Query]] = []
    for begin in range(0, len(histories), _BATCH):
        tell("writing queries", begin, len(histories))
        requests = [
            QueryRequest(
                prompt=mode.spec.prompt(mode.speech, rows),
                k=DEPTH,
                queries=defaults.queries,
                beam=max(defaults.beam, defaults.queries),
                constraint=defaults.constraint,
                exclude=rows,
            )
            for rows in histories[begin : begin + _BATCH]
        ]
        nothing = np.zeros(0, np.int64)
        written = search.writer.write(requests, [nothing] * len(requests))
        queries += [[Query(one.text, one.score) for one in own] for own in written]
    tell("writing queries", len(histories), len(histories))
    return queries


def _ranked(
    queries: Sequence[Sequence[Query]],
    histories: Sequence[np.ndarray],
    behind: Sequence[str],
    index: ItemIndex,
    k1: float,
    b: float,
) -> Int32Array:
    """int32[C, DEPTH], -1 where the queries, with what stands behind them, found fewer."""
    ranked = np.full((len(queries), DEPTH), -1, np.int32)
    searched = [
        [Query(f"{query.text} {context}", query.score) for query in own]
        for own, context in zip(queries, behind, strict=True)
    ]
    found = ground(searched, index.bm25_scored_by(k1, b), DEPTH, exclude=histories)
    for case, one in enumerate(found):
        ranked[case, : len(one.rows)] = one.rows
    return ranked
