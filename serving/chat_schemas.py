"""What a conversation is made of on the wire: the turns a client sends, and the answer it lays behind them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from serving.request_schemas import LARGEST, Filter, HistoryEntry, ItemIdText, Name, Strict, ids_of
from serving.response_schemas import Sent, Timings


class UserMessage(Strict):
    """What the user said."""

    role: Literal["user"]
    content: Annotated[
        str, Field(max_length=10_000, pattern=r"\S", description="More than white space.", examples=["Why?"])
    ]


class ToldMessage(Strict):
    """What the server answered before, as it was."""

    role: Literal["assistant"]
    content: Annotated[str, Field(max_length=100_000)]
    items: Annotated[list[ItemIdText], Field(description="Ids that the answer recommended.")] = Field(
        default_factory=list
    )


Message = Annotated[UserMessage | ToldMessage, Field(discriminator="role")]


class ChatRequest(Strict):
    """A conversation so far, and who is talking. Nothing of it is kept: send all of it with every turn."""

    messages: Annotated[
        list[Message],
        Field(
            min_length=1,
            description="The turns, the first first; the last is the user's. What the user excluded in any of them "
            "stays excluded, and what was recommended is not recommended again.",
            examples=[[{"role": "user", "content": "Something light for tonight, but no horror."}]],
        ),
    ]
    history: Annotated[
        list[HistoryEntry],
        Field(
            description="Item ids the user chose before, or events with one, oldest first; not recommended again "
            "unless filter.exclude_seen is false."
        ),
    ] = Field(default_factory=list)
    num_results: Annotated[int, Field(ge=1, description="Items of a recommendation.")] = 5
    filter: Filter = Filter()
    timeout_ms: Annotated[
        int | None,
        Field(
            ge=1,
            le=LARGEST,
            description="After this the answer is 504. The server's default where not given.",
        ),
    ] = None
    user_id: Annotated[
        str | None,
        Field(max_length=256, description="Yours, written to the log beside the request id."),
    ] = None
    return_fields: Annotated[
        list[Name], Field(max_length=64, description="Catalog fields to return with every item.")
    ] = Field(default_factory=list)

    def item_ids(self) -> list[str]:
        """The history's ids, oldest first."""
        return ids_of(self.history)


class AssistantMessage(Sent):
    """The answer as a turn: lay it behind ``messages`` as it is, and the user's next one behind it."""

    role: Literal["assistant"]
    content: Annotated[str, Field(description="Items stand in it as [title](id).")]
    items: Annotated[list[str], Field(description="Ids of the recommended items, best first.")]


class ChatItem(Sent):
    """An item that the answer names."""

    item_id: str
    title: str
    fields: Annotated[dict[str, JsonValue], Field(description="The return_fields of the request.")]


class HeldWish(Sent):
    """What the user has asked for that the catalog's fields can hold."""

    field: str
    value: str
    excluded: Annotated[bool, Field(description="Whether such items are left out, or only such are allowed.")]


class ChatResponse(Sent):
    """The answer to a conversation."""

    id: Annotated[str, Field(description="Name it where you log what the user did with the answer.")]
    object: Literal["chat.recommendation"]
    created: Annotated[int, Field(description="Unix seconds.")]
    model: Annotated[str, Field(description="Name and hash of the bundle that answered.")]
    catalog: Annotated[str, Field(description="Version of the catalog.")]
    kind: Annotated[
        Literal["recommend", "explain", "ask", "chat"], Field(description="What the turn was taken for.")
    ]
    message: AssistantMessage
    items: Annotated[list[ChatItem], Field(description="The recommended items, best first.")]
    evidence: Annotated[list[ChatItem], Field(description="Items of the history that a reason cites.")]
    held: Annotated[
        list[HeldWish], Field(description="Wishes that hold from now on, read off what was said.")
    ]
    missing_ids: Annotated[list[str], Field(description="Ids of the history that are not in the catalog.")]
    timings_ms: Timings
