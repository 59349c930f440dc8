"""The OpenAPI description: every status a route can answer with, the limits of this server, its keys."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

import genrec
from serving.errors import ERRORS
from serving.limits import describe_limits
from serving.response_schemas import ErrorResponse
from serving.settings import Settings

_GENERATED = ("HTTPValidationError", "ValidationError")  # FastAPI's own error bodies, which are never sent
_HEADERS = {429: "retry-after", 503: "retry-after"}


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for FastAPI: one entry a status, naming its codes."""
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in codes:
        kind = ERRORS[code]
        by_status[kind.status].append(f"`{kind.code}`: {kind.meaning}")
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": "; ".join(lines)}
        for status, lines in sorted(by_status.items())
    }
    for status, header in _HEADERS.items():
        if status in responses:
            responses[status]["headers"] = {
                header: {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
            }
    return responses


def describe(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """The whole description."""
    document = get_openapi(
        title="genrec",
        version=genrec.__version__,
        summary="Recommendations from a language model that walks a trie of your catalog.",
        description="Errors have one shape, and the codes that stand at every status.",
        routes=app.routes,
    )
    components = document["components"]
    for name in _GENERATED:
        components["schemas"].pop(name, None)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            _drop_generated(operation["responses"])
            if path.startswith("/v1/"):
                _guard(operation, path, settings)
    if settings.api_keys or settings.admin_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    describe_limits(components["schemas"], settings)
    return document


def _drop_generated(responses: dict[str, Any]) -> None:
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith(_GENERATED):
        del responses["422"]


def _guard(operation: dict[str, Any], path: str, settings: Settings) -> None:
    if not settings.api_keys and not (settings.admin_keys and path.startswith("/v1/admin/")):
        operation["responses"].pop("403", None)
        return
    operation["security"] = [{"key": []}]
    lines = [f"`{code}`: {ERRORS[code].meaning}" for code in ("missing_api_key", "invalid_api_key")]
    operation["responses"]["401"] = {
        "description": "; ".join(lines),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
    }
