"""API keys: who may ask, and who may reload."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import ApiError
from serving.replies import send_error
from serving.settings import Settings

GUARDED = "/v1/"
ADMIN = "/v1/admin/"
BEARER = {"www-authenticate": "Bearer"}


class Keys:
    """A set of keys that is asked in a time that does not depend on what was guessed right."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def hold(self, key: str) -> bool:
        """Whether ``key`` is one of them. All are compared, each in constant time."""
        digest = _digest(key)
        found = False
        for one in self._digests:
            found |= hmac.compare_digest(one, digest)
        return found


class KeyGuard:
    """Lets requests under ``/v1/`` pass that carry a key, before anything of their body is read.

    Health and metrics ask for no key: they are for the machinery around the server and name no item.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._clients = Keys((*settings.api_keys, *settings.admin_keys) if settings.api_keys else ())
        self._admins = Keys(settings.admin_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401 or 403."""
        if scope["type"] == "http" and scope["path"].startswith(GUARDED):
            try:
                self._check(scope["path"], Headers(scope=scope))
            except ApiError as error:
                await send_error(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, path: str, headers: Headers) -> None:
        is_admin = path.startswith(ADMIN)
        if not self._clients and not (is_admin and self._admins):
            return
        key = _key_of(headers)
        if key is None:
            raise ApiError(
                "missing_api_key", "expected the header 'authorization: Bearer KEY', got none", headers=BEARER
            )
        if not (self._clients.hold(key) or self._admins.hold(key)):
            raise ApiError(
                "invalid_api_key", "expected one of the server's API keys, got another", headers=BEARER
            )
        if is_admin and not self._admins.hold(key):
            raise ApiError("admin_only", "expected one of the server's admin keys, got a client's")


def _key_of(headers: Headers) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
