"""Reading a request's body: bounded while it arrives, and JSON in the strict sense.

Strict means UTF-8, no key twice in an object, no ``NaN`` or ``Infinity``, no lone surrogates, bounded nesting.
A number without a fraction is an integer however it is written (``10.0``, ``1e1``), as JSON Schema has it. This
module knows no field of any request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from serving.errors import ApiError, ClientGone
from serving.settings import Settings

MAX_DEPTH = 48  # a filter may be nested 32 deep, each level takes an object and a list at most in its syntax
_EXACT = 2.0**53  # integers up to here are exact as doubles


class StrictJsonRoute(APIRoute):
    """A route whose body, if it has one, is read by :func:`read_body` and :func:`parse_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The usual handler, given a request that has been read."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def read_and_handle(request: Request) -> Response:
            settings: Settings = request.app.state.settings
            body = await read_body(request, settings.max_body_bytes, settings.body_timeout_s)
            return await handle(_ReadRequest(request, body, parse_json(body)))

        return read_and_handle


class _ReadRequest(Request):
    """A request whose body has been read and parsed."""

    def __init__(self, request: Request, body: bytes, value: object) -> None:
        super().__init__(request.scope, request.receive)
        self._read_body = body
        self._read_value = value

    async def body(self) -> bytes:
        return self._read_body

    async def json(self) -> Any:
        return self._read_value


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The body's bytes; reading stops as soon as there are too many, whatever the headers promised.

    Raises:
        ApiError: not declared as JSON, too large, or too slow.
        ClientGone: the client hung up.
    """
    declared = request.headers.get("content-type", "")
    media_type, _, parameters = declared.partition(";")
    charset = parameters.strip().lower().replace('"', "")
    if media_type.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise ApiError(
            "unsupported_media_type", f"expected content-type: application/json, got {declared[:100]!r}"
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise ApiError("body_timeout", f"expected the whole body within {timeout_s:g} s") from None


def parse_json(body: bytes) -> object:
    """The value a body holds.

    Raises:
        ApiError: ``invalid_json`` or ``json_too_deep``.
    """
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text, parse_constant=_refuse_constant, parse_float=_number, object_pairs_hook=_unique
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be encoded
    except RecursionError:
        raise _too_deep() from None
    except UnicodeEncodeError:
        raise ApiError(
            "invalid_json", "expected text, got an escaped lone surrogate (\\ud800 to \\udfff)"
        ) from None
    except UnicodeDecodeError as error:
        raise ApiError("invalid_json", f"expected UTF-8, got another byte at offset {error.start}") from None
    except ValueError as error:  # JSONDecodeError, and integers of thousands of digits
        raise ApiError("invalid_json", f"expected JSON: {str(error)[:200]}") from None
    if _is_deeper_than(value, MAX_DEPTH):
        raise _too_deep()
    return value


def _number(digits: str) -> float | int:
    value = float(digits)
    return int(value) if abs(value) <= _EXACT and value.is_integer() else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:80]!r} comes twice in one object")
    return value


def _is_deeper_than(value: object, depth: int) -> bool:
    """Level by level, without recursion."""
    level: list[Any] = [value]
    for _ in range(depth):
        level = [
            part
            for one in level
            if isinstance(one, (dict, list))
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, (dict, list))
        ]
        if not level:
            return False
    return True


def _too_deep() -> ApiError:
    return ApiError("json_too_deep", f"expected JSON nested at most {MAX_DEPTH} deep, got a deeper one")


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        "body_too_large",
        f"expected a body of at most {max_bytes} bytes; split it, or raise max_body_bytes on the server",
        headers={"connection": "close"},
    )
