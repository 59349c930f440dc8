"""What clients may send, as types: they check a body and describe it in OpenAPI. They know no index.

Types are strict (``true`` is no number, ``"10"`` neither) and unknown fields are refused: a misspelt wish that
is silently ignored is the worst answer a recommender can give. Limits an operator sets are not here but in
:mod:`serving.limits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from genrec.search import Diversity, Normalize, Synchronize
from genrec.tasks import Mode, QueryConstraint
from genrec.wishes import PriorName, Wishes

LARGEST = 2**53 - 1  # the largest integer every JSON reader agrees on

Fallback: TypeAlias = Literal["none", "similar"]
ItemIdText = Annotated[str, Field(min_length=1, max_length=512)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Strict(BaseModel):
    """No conversion, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class HistoryEvent(Strict):
    """One thing the user did, as it stands in a log."""

    item_id: ItemIdText
    event: Annotated[
        str | None,
        Field(
            max_length=64,
            description="What was done. Accepted so that log lines fit; the model does not use it.",
        ),
    ] = None
    ts: Annotated[
        float | None,
        Field(
            ge=0,
            le=LARGEST,
            description="When. Where every entry of the history has one, it is put in this order.",
        ),
    ] = None


Expression = Annotated[str, Field(min_length=1, max_length=10_000)]
Structured = Annotated[dict[str, JsonValue], Field(min_length=1)]
HistoryEntry = ItemIdText | Annotated[int, Field(ge=0, le=LARGEST)] | HistoryEvent


def ids_of(history: Sequence[HistoryEntry]) -> list[str]:
    """The ids of a history, oldest first."""
    events = [one for one in history if isinstance(one, HistoryEvent)]
    if len(events) == len(history) and all(one.ts is not None for one in events):
        return [one.item_id for one in sorted(events, key=lambda one: one.ts or 0.0)]
    return [one.item_id if isinstance(one, HistoryEvent) else str(one) for one in history]


class Filter(Strict):
    """Which items may be answered. It acts inside the search, so it never makes an answer short."""

    where: Annotated[
        Expression | Structured | None,
        Field(
            description="A condition on catalog fields: an expression, or its structured form "
            '{"all": [{"field": "year", "op": ">=", "value": 1990}, {"not": {"genre": ["horror"]}}]}.',
            examples=['year >= 1990 and "Comedy" in genres', {"category": ["Books", "Music"]}],
        ),
    ] = None
    include: Annotated[
        list[ItemIdText] | None,
        Field(description="Only these items; an empty list allows none. Unknown ids match nothing."),
    ] = None
    exclude: Annotated[list[ItemIdText], Field(description="Not these items.")] = []
    exclude_seen: Annotated[bool, Field(description="Not the items of the history.")] = True
    max_per: Annotated[
        dict[Name, Annotated[int, Field(ge=1, le=LARGEST)]] | None,
        Field(
            max_length=8,
            description="At most so many items with one value of a field; a list field counts each of its values.",
            examples=[{"brand": 2}],
        ),
    ] = None


class Decoding(Strict):
    """How to search. Leave it out for what was measured to be best for the model."""

    beam: Annotated[int | None, Field(ge=1, description="Prefixes kept per step, at least num_results.")] = (
        None
    )
    normalize: Annotated[
        Normalize | None, Field(description="What a step's probabilities are normalised over.")
    ] = None
    synchronize: Annotated[
        Synchronize, Field(description="`token` equals Hugging Face's beam search, for comparisons.")
    ] = "leaf"
    exact: Annotated[bool, Field(description="Search on until every item is proven to be in its place.")] = (
        False
    )
    max_expansions: Annotated[
        int | None, Field(ge=1, description="Budget of an exact search or a sample, in prefixes.")
    ] = None
    prior: Annotated[
        PriorName | Annotated[float, Field(ge=0, lt=1)] | None,
        Field(
            description="What other people's histories and the items' texts say beside the model: `none`, `history`, "
            "or its weight. What was measured to be best for the model where not given."
        ),
    ] = None
    sample: Annotated[
        bool, Field(description="Draw items without replacement, in the model's proportions.")
    ] = False
    seed: Annotated[int, Field(ge=0, le=LARGEST, description="The same seed draws the same sample.")] = 0
    diversity: Annotated[
        float,
        Field(
            ge=0, le=100, description="Search in groups kept apart this strongly, for unlike items; 0 is off."
        ),
    ] = 0.0
    groups: Annotated[int, Field(ge=1, le=64, description="Groups of a diverse search.")] = 5
    queries: Annotated[
        int | None,
        Field(
            ge=1, description="In query mode: queries written, each of which finds its share of the items."
        ),
    ] = None
    constraint: Annotated[
        QueryConstraint | None,
        Field(
            description="In query mode: `free` text, or `catalog_ngrams`: only words that stand together in the "
            "catalog, so that every query finds something."
        ),
    ] = None


class RecommendationRequest(Strict):
    """One user's history, and what is wanted."""

    history: Annotated[
        list[HistoryEntry],
        Field(
            description="Item ids, or events with one, oldest first. Empty for a new user. Ids that are not in "
            "the catalog come back in missing_ids and are not used.",
            examples=[["B01", {"item_id": "B02", "ts": 1767225600}]],
        ),
    ]
    user_id: Annotated[
        str | None,
        Field(
            max_length=256,
            description="Yours, written to the log beside the request id; nothing is stored by it.",
        ),
    ] = None
    num_results: Annotated[
        int, Field(ge=1, description="Items wanted; fewer come back only where fewer are allowed.")
    ] = 10
    mode: Annotated[
        Mode | None,
        Field(
            description="What the model writes: item codes, titles, or search queries that find the items. "
            "GET /v1/models says which it can; the first of them where not given."
        ),
    ] = None
    filter: Filter = Filter()
    decoding: Decoding = Decoding()
    timeout_ms: Annotated[
        int | None,
        Field(
            ge=1,
            description="After this the answer is 504, or the fallback. The server's default where not given.",
        ),
    ] = None
    fallback: Annotated[
        Fallback,
        Field(
            description="What is answered where the model has no answer in time, finds no place to wait, or "
            "lacks the mode: `none`, which is the error, or `similar`: allowed items whose codes are alike to "
            "those of the history's latest, or what suits a new user. Such an answer says so in `degraded`. "
            "While the server is full it refuses (429) before it reads a body."
        ),
    ] = "none"
    validate_only: Annotated[
        bool,
        Field(description="Check everything and say in `plan` what would be searched, without searching."),
    ] = False
    explain: Annotated[bool, Field(description="Say why, for every item.")] = False
    return_fields: Annotated[
        list[Name], Field(max_length=64, description="Catalog fields to return with every item.")
    ] = []

    def item_ids(self) -> list[str]:
        """The history's ids, oldest first."""
        return ids_of(self.history)

    def wishes(self, max_expansions: int) -> Wishes:
        """What the engine is asked for; a search that could run for ever is given the server's budget."""
        budget = self.decoding.max_expansions
        if budget is None and (self.decoding.exact or self.decoding.sample):
            budget = max_expansions
        return Wishes(
            k=self.num_results,
            beam=self.decoding.beam,
            normalize=self.decoding.normalize,
            synchronize=self.decoding.synchronize,
            exclude_seen=self.filter.exclude_seen,
            where=self.filter.where,
            include=self.filter.include,
            exclude=self.filter.exclude,
            exact=self.decoding.exact,
            max_expansions=budget,
            max_per=self.filter.max_per,
            prior=self.decoding.prior,
            sample=self.decoding.sample,
            seed=self.decoding.seed,
            diversity=Diversity(self.decoding.groups, self.decoding.diversity)
            if self.decoding.diversity
            else None,
            mode=self.mode,
            queries=self.decoding.queries,
            constraint=self.decoding.constraint,
        )


class BatchRequest(Strict):
    """Many requests at once, each with its own wishes."""

    requests: Annotated[list[RecommendationRequest], Field(min_length=1)]


class ReloadRequest(Strict):
    """A reload of the bundle the server was started with."""

    verify: Annotated[bool, Field(description="Compare every file's hash first.")] = True


FIELD_NAMES = frozenset(
    name
    for model in (HistoryEvent, Filter, Decoding, RecommendationRequest, BatchRequest, ReloadRequest)
    for name in model.model_fields
).union(("messages", "role", "content", "items"))
"""Every field a client may name; what else pydantic puts into an error's path is its own talk."""


def param_of(location: tuple[Any, ...]) -> str | None:
    """``("body", "history", 0, "HistoryEvent", "ts")`` → ``history.0.ts``: the path as a client knows it."""
    is_body = location[0] == "body"
    parts = [str(one) for one in location[1:] if not is_body or isinstance(one, int) or one in FIELD_NAMES]
    return ".".join(parts) or None
