"""The limits an operator sets, in one table: checked on every request, and written into OpenAPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from serving.chat_schemas import ChatRequest
from serving.errors import ApiError
from serving.request_schemas import BatchRequest, RecommendationRequest
from serving.settings import Settings


@dataclass(frozen=True, slots=True)
class Limit:
    """One bound on one field."""

    schema: str  # name of the model in OpenAPI
    path: tuple[str, ...]  # from the request; the last part is the field
    keyword: Literal["maximum", "maxItems"]
    setting: str

    def of(self, settings: Settings) -> int:
        """The bound."""
        bound: int = getattr(settings, self.setting)
        return bound


LIMITS = (
    Limit("RecommendationRequest", ("history",), "maxItems", "max_history"),
    Limit("RecommendationRequest", ("num_results",), "maximum", "max_results"),
    Limit("RecommendationRequest", ("timeout_ms",), "maximum", "max_timeout_ms"),
    Limit("Filter", ("filter", "include"), "maxItems", "max_ids"),
    Limit("Filter", ("filter", "exclude"), "maxItems", "max_ids"),
    Limit("Decoding", ("decoding", "beam"), "maximum", "max_beam"),
    Limit("Decoding", ("decoding", "queries"), "maximum", "max_beam"),
    Limit("Decoding", ("decoding", "max_expansions"), "maximum", "max_expansions"),
)
CHAT_LIMITS = (
    Limit("ChatRequest", ("messages",), "maxItems", "max_messages"),
    Limit("ChatRequest", ("history",), "maxItems", "max_history"),
    Limit("ChatRequest", ("num_results",), "maximum", "max_results"),
    Limit("ChatRequest", ("timeout_ms",), "maximum", "max_timeout_ms"),
    Limit("Filter", ("filter", "include"), "maxItems", "max_ids"),
    Limit("Filter", ("filter", "exclude"), "maxItems", "max_ids"),
)
MESSAGE_LIMIT = Limit("ToldMessage", ("items",), "maxItems", "max_results")
BATCH_LIMIT = Limit("BatchRequest", ("requests",), "maxItems", "max_requests")


def check_request(request: RecommendationRequest, settings: Settings, place: str = "") -> None:
    """Refuse what is over a limit.

    Args:
        request: with types already checked.
        settings: the server's.
        place: what stands before the field's name in the error, ``requests.3.``.

    Raises:
        ApiError: ``invalid_value``; names the field, the limit and the setting.
    """
    for limit in LIMITS:
        _check_at(limit, request, settings, place)


def check_chat(request: ChatRequest, settings: Settings) -> None:
    """Refuse a conversation over a limit.

    Raises:
        ApiError: ``invalid_value``.
    """
    for limit in CHAT_LIMITS:
        _check_at(limit, request, settings, "")
    for number, message in enumerate(request.messages):
        if message.role == "assistant":
            _check_at(MESSAGE_LIMIT, message, settings, f"messages.{number}.")


def check_batch(batch: BatchRequest, settings: Settings) -> None:
    """Refuse a batch that is too long, or that holds a request over a limit.

    Raises:
        ApiError: ``invalid_value``.
    """
    _check(BATCH_LIMIT, batch.requests, settings, "")
    for number, request in enumerate(batch.requests):
        check_request(request, settings, f"requests.{number}.")


def describe_limits(schemas: dict[str, Any], settings: Settings) -> None:
    """Write the limits into OpenAPI's ``components.schemas``."""
    for limit in (*LIMITS, *CHAT_LIMITS, MESSAGE_LIMIT, BATCH_LIMIT):
        _describe(schemas[limit.schema]["properties"][limit.path[-1]], limit.keyword, limit.of(settings))


def _check_at(limit: Limit, request: Any, settings: Settings, place: str) -> None:
    value = request
    for name in limit.path:
        value = getattr(value, name)
    _check(limit, value, settings, place)


def _check(limit: Limit, value: Any, settings: Settings, place: str) -> None:
    bound = limit.of(settings)
    size = len(value) if isinstance(value, list) else value
    if size is not None and size > bound:
        param = place + ".".join(limit.path)
        of = " entries" if limit.keyword == "maxItems" else ""
        raise ApiError(
            "invalid_value",
            f"{param}: expected at most {bound}{of}, got {size}; the server's {limit.setting} says so",
            param,
        )


_TYPED: dict[str, str] = {"maximum": "integer", "maxItems": "array"}


def _describe(schema: dict[str, Any], keyword: str, bound: int) -> None:
    """Into the branch of the field's schema that has the type (the other one says null)."""
    branches: list[dict[str, Any]] = schema.get("anyOf", [schema])
    for branch in branches:
        if branch.get("type") == _TYPED[keyword]:
            branch[keyword] = bound
