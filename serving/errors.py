"""Every error the server answers with, once: code, HTTP status and meaning; and what genrec's errors become.

The body is in the shape OpenAI's clients read::

    {"error": {"type": "invalid_request_error", "code": "invalid_value", "message": "…", "param": "num_results"}}

Status 400 means the request itself is malformed (the OpenAPI schema says so beforehand); 422 means it is well
formed and cannot be done with this model and catalog. Errors of the server's own fault (5xx) say nothing of
the inside: the log has it under the same request id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from index.errors import (
    CatalogError,
    DecoderError,
    FilterError,
    GenrecError,
    HistoryError,
    IndexFormatError,
    MissingDependencyError,
    RequestError,
)

ErrorType: TypeAlias = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "overloaded_error",
    "timeout_error",
    "server_error",
]


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One documented error."""

    code: str
    status: int
    type: ErrorType
    meaning: str


ERRORS: Mapping[str, ErrorKind] = {
    kind.code: kind
    for kind in (
        ErrorKind("invalid_json", 400, "invalid_request_error", "the body is not JSON in UTF-8, or has a key twice"),
        ErrorKind("json_too_deep", 400, "invalid_request_error", "the body is nested too deeply"),
        ErrorKind("missing_field", 400, "invalid_request_error", "a required field or parameter is missing"),
        ErrorKind("unknown_field", 400, "invalid_request_error", "a field the request does not have"),
        ErrorKind("invalid_value", 400, "invalid_request_error", "a value of another type or outside its range"),
        ErrorKind("missing_api_key", 401, "authentication_error", "no API key came with the request"),
        ErrorKind("invalid_api_key", 401, "authentication_error", "the API key is not one of the server's"),
        ErrorKind("admin_only", 403, "permission_error", "the route needs an admin key"),
        ErrorKind("route_not_found", 404, "not_found_error", "no such route"),
        ErrorKind("item_not_found", 404, "not_found_error", "no item has this id"),
        ErrorKind("method_not_allowed", 405, "invalid_request_error", "the route has other methods"),
        ErrorKind("body_timeout", 408, "timeout_error", "the body did not arrive in time"),
        ErrorKind("reload_in_progress", 409, "invalid_request_error", "another reload is still running"),
        ErrorKind("body_too_large", 413, "invalid_request_error", "the body has too many bytes"),
        ErrorKind("unsupported_media_type", 415, "invalid_request_error", "the body is not declared as JSON"),
        ErrorKind("invalid_filter", 422, "invalid_request_error", "the filter does not fit this catalog"),
        ErrorKind("invalid_request", 422, "invalid_request_error", "wishes that contradict each other"),
        ErrorKind("unknown_return_field", 422, "invalid_request_error", "the catalog has no such field"),
        ErrorKind("mode_unavailable", 422, "invalid_request_error", "the model was not trained for this mode"),
        ErrorKind("bundle_refused", 422, "server_error", "the bundle on disk cannot be served; the old one stays"),
        ErrorKind("queue_full", 429, "overloaded_error", "too many requests wait; try again after Retry-After"),
        ErrorKind("internal_error", 500, "server_error", "the server failed; its log has the reason"),
        ErrorKind("not_ready", 503, "overloaded_error", "no model is loaded, or the server is stopping"),
        ErrorKind("deadline_exceeded", 504, "timeout_error", "no answer within timeout_ms"),
    )
}  # fmt: skip


class ApiError(Exception):
    """An answer that is an error.

    Args:
        code: one of :data:`ERRORS`.
        message: what was expected, what came, what to do.
        param: the field it is about, ``filter.where``; None where there is none.
        headers: more headers, such as ``Allow``.
    """

    def __init__(
        self, code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = ERRORS[code]
        self.message = message
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body."""
        return {
            "error": {
                "type": self.kind.type,
                "code": self.kind.code,
                "message": self.message,
                "param": self.param,
            }
        }


class SettingsError(GenrecError, ValueError):
    """A setting of the server is unknown or cannot be."""


class QueueFull(GenrecError, RuntimeError):
    """More requests wait than the queue holds.

    Args:
        retry_after: seconds until a place is likely.
    """

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExceeded(GenrecError, TimeoutError):
    """A request's time ran out before its answer was there."""


class NotReady(GenrecError, RuntimeError):
    """No model is loaded, or the engine is closing."""


class ReloadInProgress(GenrecError, RuntimeError):
    """A reload was asked for while another one runs."""


class WorkersFailed(GenrecError, RuntimeError):
    """No worker gets as far as answering."""


class ClientGone(Exception):
    """The client closed the connection before its answer was ready. Nobody reads what is sent then."""


_CODE_OF: dict[type[GenrecError], tuple[str, str | None]] = {
    FilterError: ("invalid_filter", "filter.where"),
    RequestError: ("invalid_request", None),
    HistoryError: ("invalid_request", "history"),
    QueueFull: ("queue_full", None),
    DeadlineExceeded: ("deadline_exceeded", "timeout_ms"),
    NotReady: ("not_ready", None),
    ReloadInProgress: ("reload_in_progress", None),
    IndexFormatError: ("bundle_refused", None),
    CatalogError: ("bundle_refused", None),
    MissingDependencyError: ("bundle_refused", None),
    DecoderError: ("internal_error", None),
    GenrecError: ("internal_error", None),  # what a request cannot cause: training, leakage, building
}
"""Error class to (code, param). The nearest class in an error's ancestry counts."""

INTERNAL_MESSAGE = "the server failed to answer; its log has the reason under this request id"


def api_error(error: Exception) -> ApiError:
    """What an exception becomes on the wire; everything unforeseen is ``internal_error``."""
    if isinstance(error, ApiError):
        return error
    for ancestor in type(error).__mro__:
        if ancestor in _CODE_OF:
            code, param = _CODE_OF[ancestor]
            break
    else:
        code, param = "internal_error", None
    message = INTERNAL_MESSAGE if code == "internal_error" else str(error)
    headers = {}
    if isinstance(error, QueueFull):
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, NotReady):
        headers["retry-after"] = "1"
    return ApiError(code, message, param, headers)
