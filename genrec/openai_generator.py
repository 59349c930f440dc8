"""A text generator behind an OpenAI-compatible endpoint: OpenAI itself, vLLM, llama.cpp, ``transformers serve`` …

The ``openai`` package (extra ``openai``) speaks HTTP, waits and tries again; this file asks for what the contract of
:class:`~genrec.text_generator.TextGenerator` wants and says in one sentence what went wrong. It knows no catalog.

::

    export OPENAI_BASE_URL=http://localhost:8000/v1 OPENAI_API_KEY=local
    OpenAiGenerator("my-model").generate(["A search query for a cosy lamp:"], n=3, max_tokens=16)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from genrec.text_generator import GeneratedText, check_generate, cut_at
from index.counted import counted
from index.errors import EndpointError, RequestError, require

Api: TypeAlias = Literal["chat", "completions"]

KEY, BASE_URL = "OPENAI_API_KEY", "OPENAI_BASE_URL"
_MOST_STOPS = 4  # of the API; what stands behind them is cut off here


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """How an endpoint is asked.

    Raises:
        RequestError: a number is out of range, or an unknown API.
    """

    api: Api = "chat"
    """``chat`` for instructed models (``/chat/completions``, the prompt is the user's message), ``completions``
    for plain language models that go on with the prompt (``/completions``)."""
    system: str | None = None
    """What a chat begins with."""
    timeout: float = 60.0
    """Seconds that one answer may take."""
    retries: int = 4
    """Further tries after a timeout, a lost connection, 408, 409, 429 or 5xx: after half a second, doubling up to
    eight seconds, or when the answer's ``Retry-After`` says."""
    parallel: int = 8
    """Requests under way at once."""

    def __post_init__(self) -> None:
        if self.api not in get_args(Api):
            raise RequestError(f"expected an api of {', '.join(get_args(Api))}, got {self.api!r}")
        if not self.timeout > 0 or self.retries < 0 or self.parallel < 1:
            raise RequestError(
                f"expected timeout > 0, retries >= 0 and parallel >= 1, got timeout={self.timeout}, "
                f"retries={self.retries}, parallel={self.parallel}"
            )


class OpenAiGenerator:
    """Texts from an endpoint; see :meth:`TextGenerator.generate`. Close it, or use it in a ``with`` block.

    Args:
        model: as the endpoint names it.
        settings: how it is asked.
        base_url: where it is; ``OPENAI_BASE_URL``, or OpenAI itself, where not given.
        api_key: ``OPENAI_API_KEY`` where not given.

    Raises:
        EndpointError: there is no key.
        MissingDependencyError: the ``openai`` package is not installed.
    """

    def __init__(
        self,
        model: str,
        settings: EndpointSettings | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self.model = model
        self.settings = settings or EndpointSettings()
        self._openai: Any = require("openai", extra="openai", purpose="Asking an OpenAI-compatible endpoint")
        key = api_key or os.environ.get(KEY)
        if not key:
            raise EndpointError(
                f"expected a key of the endpoint in the environment variable {KEY}, got none; set it (a local "
                f"server takes any, such as {KEY}=local)"
            )
        self._client = self._openai.OpenAI(
            api_key=key,
            base_url=base_url or os.environ.get(BASE_URL) or None,
            timeout=self.settings.timeout,
            max_retries=self.settings.retries,
        )
        self.base_url = without_credentials(str(self._client.base_url))  # it stands in errors

    def __enter__(self) -> OpenAiGenerator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[list[GeneratedText]]:
        """``n`` texts for each prompt; see :meth:`TextGenerator.generate`.

        Endpoints that give one text whatever ``n`` says are asked again for the others. With temperature 0 that
        would give the same text every time: it is asked for once and stands n times.

        Raises:
            EndpointError: the endpoint refuses, is not reached, or does not answer in the form of the API.
        """
        check_generate(n, max_tokens, temperature, stop)
        own: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}
        if stop:
            own["stop"] = list(stop)[:_MOST_STOPS]
        drawn = 1 if temperature == 0 else n
        if len(prompts) <= 1 or self.settings.parallel == 1:
            texts = [self._texts(prompt, drawn, own, stop) for prompt in prompts]
        else:
            with ThreadPoolExecutor(min(self.settings.parallel, len(prompts))) as pool:
                try:
                    texts = list(pool.map(lambda prompt: self._texts(prompt, drawn, own, stop), prompts))
                except BaseException:
                    pool.shutdown(cancel_futures=True)  # what has not begun need not be paid for
                    raise
        return [each * n if drawn < n else each for each in texts]

    def _texts(self, prompt: str, n: int, own: dict[str, Any], stop: Sequence[str]) -> list[GeneratedText]:
        """At least one text an answer, until there are n."""
        texts: list[GeneratedText] = []
        while len(texts) < n:
            wanted = n - len(texts)
            asked = own if wanted == 1 else {**own, "n": wanted}
            choices = self._ask(prompt, asked)
            texts += [self._text(choice, stop) for choice in choices[:wanted]]
        return texts

    def _ask(self, prompt: str, own: dict[str, Any]) -> list[Any]:
        """One request: its choices, at least one."""
        if self.settings.api == "completions":
            call: Callable[..., Any] = self._client.completions.create
            own = {**own, "prompt": prompt}
        else:
            system = (
                [] if self.settings.system is None else [{"role": "system", "content": self.settings.system}]
            )
            call = self._client.chat.completions.create
            own = {**own, "messages": [*system, {"role": "user", "content": prompt}]}
        try:
            answer = call(model=self.model, **own)
        except self._openai.OpenAIError as error:
            raise EndpointError(self._explained(error)) from error
        except ValueError as error:  # what the package lets through: no JSON behind a header that promises it
            raise self._malformed(f"{type(error).__name__}: {error}") from error
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise self._malformed(f"no choices: {_shortened(answer)}")
        return choices

    def _text(self, choice: Any, stop: Sequence[str]) -> GeneratedText:
        text = getattr(choice, "text", None) if self.settings.api == "completions" else None
        if self.settings.api == "chat":
            text = getattr(getattr(choice, "message", None), "content", None)
        if not isinstance(text, str):
            raise self._malformed(f"a choice without text: {_shortened(choice)}")
        # A model that reasons first may spend its whole budget on that: then nothing of its answer has come.
        finish = getattr(choice, "finish_reason", None)
        return GeneratedText(cut_at(text, stop), "length" if finish == "length" else "stop")

    def _malformed(self, what: str) -> EndpointError:
        return EndpointError(
            f"expected an answer of the {self.settings.api} API from {self.base_url}, got {what}; check the base URL "
            f"(it usually ends in /v1) and the api setting"
        )

    def _explained(self, error: Exception) -> str:
        """What went wrong, what was asked for, and what to do."""
        package, where = self._openai, f"model {self.model!r} at {self.base_url}"
        tries = counted(self.settings.retries + 1, "try", "tries")
        if isinstance(error, package.AuthenticationError):
            return f"expected {where} to accept the key in {KEY}, got 401: {_said(error)}; set a valid key"
        if isinstance(error, package.PermissionDeniedError):
            return (
                f"expected {where} to be open to this key, got 403: {_said(error)}; use another key or model"
            )
        if isinstance(error, package.NotFoundError):
            return (
                f"expected {where}, got 404: {_said(error)}; check the name of the model, the base URL (it usually "
                f"ends in /v1) and the api setting ({self.settings.api})"
            )
        if isinstance(error, package.RateLimitError):
            return (
                f"expected {where} to answer, got 429 in each of {tries}: {_said(error)}; wait, ask for less at "
                f"once (parallel={self.settings.parallel}), or look at the account's quota"
            )
        if isinstance(error, package.APITimeoutError):
            return (
                f"expected {where} to answer within {self.settings.timeout:g} s, got nothing in {tries}; give it "
                f"more time (timeout) or ask for fewer tokens"
            )
        if isinstance(error, package.APIConnectionError):
            return (
                f"expected an endpoint at {self.base_url}, got no connection in {tries} "
                f"({error.__cause__ or error}); start it, or set {BASE_URL}"
            )
        if isinstance(error, package.APIResponseValidationError):
            return str(self._malformed(_said(error)))
        status = getattr(error, "status_code", None)
        if isinstance(error, package.InternalServerError):
            return f"expected {where} to answer, got {status} in each of {tries}: {_said(error)}"
        if status is not None:
            return f"expected {where} to accept the request, got {status}: {_said(error)}"
        return f"expected {where} to answer, got {type(error).__name__}: {_said(error)}"


def _said(error: Exception) -> str:
    """What the endpoint said of it, in one line."""
    body = getattr(error, "body", None)
    found = body.get("message") or body.get("detail") if isinstance(body, dict) else body
    return _shortened(found or error)


def _shortened(value: object, most: int = 300) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[:most] + " …"


def without_credentials(url: str) -> str:
    """The address without the user and password that may stand in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
