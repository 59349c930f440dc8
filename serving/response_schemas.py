"""What clients get, as types. They are filled from answers and never checked again: OpenAPI is made of them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from genrec.search import Normalize
from genrec.tasks import Mode, QueryConstraint
from serving.errors import ErrorType

Degraded: TypeAlias = Literal["budget_exhausted", "deadline_exceeded", "queue_full", "mode_unavailable"]
NonNegative = Annotated[float, Field(ge=0)]


class Sent(BaseModel):
    """Every field is always there."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True, extra="forbid")


class ErrorDetail(Sent):
    """What went wrong."""

    type: ErrorType
    code: str
    message: str
    param: Annotated[str | None, Field(description="The field it is about, such as filter.where.")]


class ErrorResponse(Sent):
    """Any answer with a status of 400 or more."""

    error: ErrorDetail


class SimilarItem(Sent):
    """An item of the history that is coded alike."""

    item_id: str
    shared_levels: Annotated[int, Field(ge=1, description="Leading codes the two have in common.")]


class Explanation(Sent):
    """Why an item is where it is."""

    proven: Annotated[bool, Field(description="No allowed item can stand above it.")]
    semantic_id: Annotated[list[int], Field(description="The item's codes, coarse to fine.")]
    similar_in_history: Annotated[
        list[SimilarItem],
        Field(description="Items of the history by shared leading codes: likeness, not proof of cause."),
    ]
    prior_part: Annotated[
        float | None,
        Field(
            description="How much of the probability comes from other people's histories and the texts; the rest is "
            "the model's. null where the model was asked alone."
        ),
    ] = None
    because_of: Annotated[
        str | None, Field(description="The item of the history that says most for it in that part.")
    ] = None


class MatchedTerm(Sent):
    """A word that a query and an item have in common."""

    term: Annotated[str, Field(description="As it is compared: `run` for `running`.")]
    score: Annotated[float, Field(description="What it gives to the item's score.")]


class RecommendedItem(Sent):
    """One recommended item."""

    item_id: str
    rank: Annotated[int, Field(ge=1)]
    title: str
    score: Annotated[
        float,
        Field(
            description="Log-probability under the answer's normalisation; in query mode the BM25 score under the "
            "query that found the item; of a fallback the leading codes shared with an item of the history."
        ),
    ]
    probability: Annotated[
        float | None,
        Field(description="Share of the whole catalog's probability; null where scores are no shares."),
    ]
    source: Annotated[
        Literal["generated", "retrieved", "fallback"],
        Field(description="Whether the model wrote the item itself, or a query that found it, or neither."),
    ]
    generated: Annotated[
        str | None, Field(description="What the model wrote: the title or the query; null for codes.")
    ]
    matched_terms: Annotated[
        list[MatchedTerm], Field(description="In query mode: what was searched for that the item has.")
    ]
    fields: Annotated[dict[str, JsonValue], Field(description="The return_fields of the request.")]
    explanation: Annotated[Explanation | None, Field(description="With explain: true.")]


class Usage(Sent):
    """What the answer took."""

    history_items: Annotated[int, Field(ge=0, description="Known items of the history: what the model read.")]
    expansions: Annotated[int, Field(ge=0, description="Prefixes expanded.")]
    model_calls: Annotated[int, Field(ge=0)]
    beam: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1, description="Requests that were searched together.")]


class Timings(Sent):
    """Milliseconds inside the server, by phase."""

    queue: NonNegative
    search: NonNegative
    total: NonNegative


class UsedQuery(Sent):
    """A search query that the model wrote."""

    text: str
    score: Annotated[float, Field(description="Its log-probability.")]
    found: Annotated[int, Field(ge=0, description="Items of this answer that it found.")]
    matched_terms: Annotated[list[str], Field(description="Its words that such an item has.")]


class Plan(Sent):
    """What would be searched for."""

    mode: Mode
    normalize: Normalize
    beam: Annotated[int, Field(ge=1)]
    max_expansions: int | None
    queries: Annotated[int | None, Field(description="Of query mode.")]
    constraint: Annotated[QueryConstraint | None, Field(description="Of query mode.")]
    allowed_items: Annotated[int, Field(ge=0, description="Items that filters, lists and seen items leave.")]


class RecommendationResponse(Sent):
    """The answer to one history."""

    id: Annotated[str, Field(description="Name it where you log what the user did with the answer.")]
    object: Literal["recommendation.list"]
    created: Annotated[int, Field(description="Unix seconds.")]
    model: Annotated[str, Field(description="Name and hash of the bundle that answered.")]
    catalog: Annotated[str, Field(description="Version of the catalog.")]
    mode: Mode
    items: list[RecommendedItem]
    certified: Annotated[
        int, Field(ge=0, description="The first so many items are proven to be in their place.")
    ]
    normalize: Normalize
    queries: Annotated[
        list[UsedQuery], Field(description="In query mode, in the order in which they were merged.")
    ]
    missing_ids: Annotated[list[str], Field(description="Ids of the history that are not in the catalog.")]
    notes: Annotated[list[str], Field(description="What one should know about this answer, in words.")]
    degraded: Annotated[
        Degraded | None,
        Field(
            description="Why this answer is less than what was asked for; null where it is not. Any but "
            "`budget_exhausted` is the error that a fallback stands for."
        ),
    ]
    plan: Annotated[Plan | None, Field(description="With validate_only: true; then there are no items.")]
    usage: Usage
    timings_ms: Timings


class BatchResult(Sent):
    """The answer to one request of a batch: either of the two."""

    status: Annotated[int, Field(description="The HTTP status the request would have got alone.")]
    recommendation: RecommendationResponse | None
    error: ErrorDetail | None


class BatchResponse(Sent):
    """Answers in the order of the requests."""

    object: Literal["recommendation.batch"]
    results: list[BatchResult]


class ItemResponse(Sent):
    """One item of the catalog."""

    object: Literal["item"]
    item_id: str
    title: str
    removed: Annotated[bool, Field(description="It may stand in a history and is never recommended.")]
    fields: dict[str, JsonValue]


class FoundItem(Sent):
    """An item whose title fits what was typed."""

    item_id: str
    title: str


class ItemListResponse(Sent):
    """Items by title."""

    object: Literal["list"]
    data: list[FoundItem]
    did_you_mean: Annotated[list[str], Field(description="Other spellings that find something.")]


class CatalogField(Sent):
    """A field that filters, caps and return_fields may name."""

    name: str
    type: Literal["integer", "number", "string", "boolean", "list of strings"]


class ModelLimits(Sent):
    """What one request may ask for."""

    num_results: int
    beam: int
    history: int
    max_expansions: int
    timeout_ms: int


class ModeInfo(Sent):
    """What a request gets that names a mode and nothing else."""

    mode: Mode
    normalize: Normalize
    beam: int
    queries: Annotated[int | None, Field(description="Of query mode.")]
    constraint: Annotated[QueryConstraint | None, Field(description="Of query mode.")]


class ModelInfo(Sent):
    """The model that is being served."""

    id: str
    object: Literal["model"]
    created: Annotated[int, Field(description="When it was loaded, Unix seconds.")]
    catalog: str
    items: int
    modes: Annotated[
        list[Mode], Field(description="What it can write; the first where a request names none.")
    ]
    defaults: Annotated[list[ModeInfo], Field(description="Of every mode.")]
    normalize: Annotated[Normalize, Field(description="Used where a request names nothing.")]
    beam: Annotated[int, Field(description="Used where a request names nothing.")]
    fields: list[CatalogField]
    limits: ModelLimits


class ModelListResponse(Sent):
    """The models of this server: one."""

    object: Literal["list"]
    data: list[ModelInfo]


class LiveResponse(Sent):
    """The process answers."""

    live: Literal[True]


class ReadyResponse(Sent):
    """The model answers."""

    ready: Literal[True]


class ReloadResponse(Sent):
    """The model now served."""

    object: Literal["reload"]
    model: str
    previous: str
    catalog: str
