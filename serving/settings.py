"""What an operator may set: by environment variable ``GENREC_<NAME>``, or by an option of ``genrec serve``.

Options win over the environment, the environment over the defaults here. An unknown or impossible value is an
error at start, never a silent default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serving.errors import SettingsError

PREFIX = "GENREC_"
MIN_KEY_LENGTH = 16  # characters; a shorter key can be guessed

Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """The server's settings. The limits also stand in the OpenAPI description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path | None = None
    """The bundle to serve, which a reload reads again."""
    verify: bool = False
    """Compare every file's hash at start, and at every reload."""

    host: str = "127.0.0.1"
    """Where to listen; other machines reach the server only if this is changed."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    api_keys: tuple[str, ...] = ()
    """Keys of clients; the environment variable separates them by commas. Without any, no key is asked for."""
    admin_keys: tuple[str, ...] = ()
    """Keys that may also reload. Where only ``api_keys`` are set, nobody may (SIGHUP still works)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    playground: bool = True
    """The page at ``/``, and ``POST /v1/walk``, which it shows the search by."""

    max_body_bytes: Positive = 2**20
    body_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """A body that trickles in slower than this is given up."""
    max_history: Positive = 1000
    """Items of one history."""
    max_results: Positive = 200
    """``num_results``."""
    max_beam: Positive = 500
    max_expansions: Positive = 10_000
    """Budget of an exact search or a sample, in prefixes; also the default there, so that none runs for ever."""
    max_ids: Positive = 10_000
    """Ids in one ``include`` or ``exclude``."""
    max_requests: Positive = 64
    """Requests in one ``/v1/recommendations:batch``."""
    max_messages: Positive = 200
    """Turns of one conversation at ``/v1/chat``."""
    default_timeout_ms: Positive = 10_000
    max_timeout_ms: Positive = 60_000

    workers: Positive = 1
    """Processes that serve; each has the model's own memory and an engine thread, they share the index's files."""
    hang_timeout_s: Annotated[float, Field(ge=1)] = 60.0
    """A worker that gives no sign of life for so long is ended and started again; no search step takes that long."""
    queue_size: Positive = 256
    """Requests that may wait in a worker; one more gets 429."""
    max_batch: Positive = 16
    """Requests searched together."""
    prompt_cache_mb: Annotated[int, Field(ge=0)] = 256
    """MiB of remembered prompts in every worker, where the model can start from one; 0 remembers none."""

    @field_validator("api_keys", "admin_keys", mode="before")
    @classmethod
    def _split(cls, keys: object) -> object:
        return tuple(one.strip() for one in keys.split(",") if one.strip()) if isinstance(keys, str) else keys

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _long_enough(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError(
                    f"expected keys of at least {MIN_KEY_LENGTH} printable ASCII characters without spaces, "
                    f"got one of {len(key)} characters"
                )
        return keys

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.max_requests > self.queue_size:
            raise ValueError(
                f"expected max_requests of at most queue_size, got {self.max_requests} and {self.queue_size}: "
                f"a batch that fits no queue would never be answered"
            )
        if self.default_timeout_ms > self.max_timeout_ms:
            raise ValueError(
                f"expected default_timeout_ms of at most max_timeout_ms, got {self.default_timeout_ms} "
                f"and {self.max_timeout_ms}"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    @classmethod
    def read(cls, environment: Mapping[str, str], **options: Any) -> Settings:
        """Settings from ``GENREC_*`` variables and the options that were given (those that are not None).

        ``GENREC_API_KEYS_FILE`` and ``GENREC_ADMIN_KEYS_FILE`` (or the options of those names) name files with
        one key a line; empty lines and lines that begin with ``#`` do not count.

        Raises:
            SettingsError: an unknown variable, a value that cannot be, or a file that cannot be read.
        """
        values: dict[str, Any] = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX)
        }
        values |= {name: value for name, value in options.items() if value is not None}
        for name in ("api_keys", "admin_keys"):
            file = values.pop(f"{name}_file", None)
            if file is not None:
                values[name] = _keys_of(Path(file))
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # Only the first: the input is left out of the message, it may be a key.
            first = error.errors(include_input=False, include_url=False)[0]
            if not first["loc"]:
                raise SettingsError(str(first["msg"]).removeprefix("Value error, ")) from None
            name = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                raise SettingsError(
                    f"expected a setting among {', '.join(cls.model_fields)}, got {PREFIX}{name.upper()}"
                ) from None
            raise SettingsError(f"{name} ({PREFIX}{name.upper()}): {first['msg']}") from None


def _keys_of(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"expected a file of API keys, one a line, got {file}: {error}") from error
    keys = tuple(one.strip() for one in lines if one.strip() and not one.lstrip().startswith("#"))
    if not keys:
        raise SettingsError(f"expected at least one API key in {file}, got none")
    return keys
