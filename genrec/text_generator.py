"""TextGenerator: prompts in, texts out, whoever writes them. It knows no model, no server and no item.

Query mode and recipes ask for text through this contract, so a model of this process and one behind an
OpenAI-compatible endpoint (:mod:`genrec.openai_generator`) can stand in for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from index.errors import RequestError

Finish: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """One text."""

    text: str  # without the stop string, and without white space around it
    finish: Finish = "stop"  # the text ended, or its budget of tokens did
    score: float | None = None  # its log-probability, where the writer says so


@runtime_checkable
class TextGenerator(Protocol):
    """Writes texts behind prompts."""

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[list[GeneratedText]]:
        """``n`` texts for each prompt.

        Args:
            prompts: B of them.
            n: texts wanted for each; equal ones may come.
            max_tokens: of a text.
            temperature: 0 takes the most probable text the writer knows to find; above it draws.
            stop: a text ends before the first of these strings.

        Returns:
            B lists of n texts. Where texts have scores the best come first, otherwise they stand as written.

        Raises:
            RequestError: a number is out of range.
        """


def check_generate(n: int, max_tokens: int, temperature: float, stop: Sequence[str]) -> None:
    """Refuse what no generator should be asked; see :meth:`TextGenerator.generate`."""
    if n < 1 or max_tokens < 1:
        raise RequestError(f"expected n >= 1 and max_tokens >= 1, got n={n}, max_tokens={max_tokens}")
    if not 0 <= temperature < float("inf"):
        raise RequestError(f"expected a finite temperature >= 0, got {temperature}")
    if isinstance(stop, str) or not all(stop):
        raise RequestError(f"expected a list of stop strings that are not empty, got {stop!r}")


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string, without white space around it."""
    places = [place for place in (text.find(one) for one in stop) if place >= 0]
    return text[: min(places, default=len(text))].strip()
