"""What ``POST /v1/walk`` answers, as types: one search, step by step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from genrec.search_trace import Fate
from serving.response_schemas import RecommendationResponse, Sent

Count = Annotated[int, Field(ge=0)]
Score = Annotated[
    float | None, Field(description="Log-probability of the path; null where the model rules it out.")
]


class WalkPrefix(Sent):
    """A prefix of the trie that a step has scored."""

    id: Count
    parent: Annotated[int | None, Field(description="The prefix it was reached from; null for the first.")]
    step: Annotated[int, Field(ge=0, description="The step that scored it.")]
    level: Annotated[int, Field(ge=0, description="Decisions from the root.")]
    tokens: Annotated[
        list[int],
        Field(description="Its own token, and those that are forced behind it, as the model knows them."),
    ]
    label: Annotated[str, Field(description="The tokens in words: codes of a semantic ID, or text.")]
    start: Annotated[
        int, Field(ge=0, description="The items below are consecutive in the trie: the first one,")
    ]
    end: Annotated[int, Field(ge=0, description="and the one behind the last.")]
    allowed: Annotated[int, Field(ge=0, description="Items below that the request may get.")]
    score: Score
    order: Annotated[
        float | None,
        Field(description="What the beam chose by: under a filter it looks ahead, so it is not the score."),
    ]
    fate: Annotated[
        Fate,
        Field(
            description="live: it goes on; pruned: left out; filtered: nothing allowed is below; finished: an item. "
            "A later step may take up a pruned one: it then stands in `expanded` or `ended` of that step."
        ),
    ]
    examples: Annotated[list[str], Field(description="Some items below, allowed ones where there are any.")]


class WalkCounts(Sent):
    """Prefixes by fate."""

    live: Count
    pruned: Count
    filtered: Count
    finished: Count


class WalkUnlisted(Sent):
    """Prefixes of one parent and fate that are only counted."""

    parent: Count
    fate: Fate
    count: Annotated[int, Field(ge=1)]
    items: Annotated[int, Field(ge=1, description="Below all of them.")]
    best: Score


class WalkEnded(Sent):
    """A prefix of an earlier step that turned out to be an item."""

    id: Count
    score: Score


class WalkFound(Sent):
    """An item of the answer as it stands."""

    item_id: str
    score: float


class WalkStep(Sent):
    """One decision of the search."""

    expanded: Annotated[list[int], Field(description="Prefixes whose children were scored.")]
    scored: Annotated[int, Field(ge=0, description="Children.")]
    counts: WalkCounts
    unlisted: list[WalkUnlisted]
    ended: list[WalkEnded]
    bound: Annotated[
        float | None,
        Field(description="The most that anything not found yet can be worth; null where nothing is left."),
    ]
    found: Annotated[list[WalkFound], Field(description="The best items so far.")]
    certified: Annotated[
        int, Field(ge=0, description="The first so many of them are proven to be in their place.")
    ]
    model_calls: Annotated[int, Field(ge=1, description="So far.")]


class WalkResponse(Sent):
    """How one recommendation was found."""

    object: Literal["walk"]
    recommendation: Annotated[
        RecommendationResponse,
        Field(description="What /v1/recommendations answers; its times are of a watched search."),
    ]
    items: Annotated[int, Field(ge=1, description="Items of the trie, removed ones included.")]
    prefixes: Annotated[list[WalkPrefix], Field(description="By id; the first is the empty one.")]
    steps: list[WalkStep]
    titles: Annotated[dict[str, str], Field(description="Of every item named.")]
    truncated: Annotated[bool, Field(description="The search went on for more steps than are told.")]
