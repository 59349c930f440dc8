"""One table of errors: complete, consistent, and every error of genrec in it."""

from __future__ import annotations

import pytest

from index.errors import DecoderError, FilterError, GenrecError, IndexFormatError, TrainingError
from serving.errors import (
    ERRORS,
    INTERNAL_MESSAGE,
    ApiError,
    DeadlineExceeded,
    NotReady,
    QueueFull,
    api_error,
)


def all_below(kind: type[GenrecError]) -> set[type[GenrecError]]:
    return {kind}.union(*(all_below(one) for one in kind.__subclasses__()))


def test_every_error_of_genrec_has_a_code():
    for kind in all_below(GenrecError):
        if kind is not QueueFull:
            answer = api_error(kind("what happened"))
            assert answer.kind is ERRORS[answer.kind.code]
            assert (answer.message == INTERNAL_MESSAGE) == (answer.kind.status == 500)


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (FilterError("x"), "invalid_filter", 422),
        (IndexFormatError("x"), "bundle_refused", 422),
        (QueueFull("x", 3), "queue_full", 429),
        (NotReady("x"), "not_ready", 503),
        (DeadlineExceeded("x"), "deadline_exceeded", 504),
        (DecoderError("weights in some directory"), "internal_error", 500),
        (TrainingError("x"), "internal_error", 500),
        (ZeroDivisionError("x"), "internal_error", 500),
        (ApiError("item_not_found", "x"), "item_not_found", 404),
    ],
)
def test_what_errors_become(error, code, status):
    answer = api_error(error)
    assert (answer.kind.code, answer.kind.status) == (code, status)
    if status == 500:
        assert "directory" not in answer.message


def test_who_must_wait_is_told_how_long():
    assert api_error(QueueFull("x", 3)).headers == {"retry-after": "3"}
    assert api_error(NotReady("x")).headers == {"retry-after": "1"}


def test_the_body_is_in_the_shape_of_openai():
    body = ApiError("invalid_value", "expected 1, got 2", "k").body()
    assert body == {
        "error": {
            "type": "invalid_request_error",
            "code": "invalid_value",
            "message": "expected 1, got 2",
            "param": "k",
        }
    }
