"""What a model can be asked for: one :class:`TaskSpec` per task, from which everything else follows.

A spec says what a prompt shows, what an answer is written as and what holds it. Training examples, inference
prompts and evaluation are made from the same spec, so they cannot drift apart:

==============  ===========================  ==========================  =====================
task            prompt shows                 answer                      held by
==============  ===========================  ==========================  =====================
semantic_id     the history                  the next item's codes       the trie of codes
title           the history                  the next item's title       the trie of titles
query           the history                  a search query              nothing, or n-grams; BM25
title_of_code   an item's codes              its title                   (training only)
code_of_title   an item's title              its codes                   (training only)
==============  ===========================  ==========================  =====================

How items and texts become tokens is the model's :class:`~genrec.speech.Speech`. The defaults of a task are
measured on validation when a bundle is trained and travel in its manifest, so a user never has to choose a
normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from genrec.decoders.base import Items, Prompt, Tokens
from genrec.search_batch import Normalize
from genrec.speech import Speech
from index.errors import IndexFormatError, RequestError
from index.types import IntArray

Mode: TypeAlias = Literal["semantic_id", "title", "query"]
"""The tasks a request may name."""
Shown: TypeAlias = Literal["history", "code", "title"]
Written: TypeAlias = Literal["code", "title", "query"]
Held: TypeAlias = Literal["codes", "titles", "queries", "nothing"]
QueryConstraint: TypeAlias = Literal["free", "catalog_ngrams"]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task, in all it means for training, asking and measuring."""

    name: str
    shown: Shown
    written: Written
    held_by: Held
    """``codes`` and ``titles`` are tries, so answers are items; a query finds items by BM25; ``nothing`` is for
    training only."""
    mark: str | None = None
    """Name of the token that ends a compact prompt and says what is wanted; None where the model's shape does."""
    opening: str = ""
    """What a prompt in prose begins with."""
    closing: str = ""
    """What it ends with: the answer goes on from here."""

    @property
    def is_mode(self) -> bool:
        """Whether a request may ask for it. Then it is also measured: its answers are ranked items."""
        return self.held_by != "nothing"

    @property
    def is_text(self) -> bool:
        """Whether answers are text, by the model's vocabulary; codes have token ids of their own."""
        return self.written != "code"

    def prompt(self, speech: Speech, rows: IntArray) -> Prompt:
        """What the model reads before it answers.

        Args:
            speech: the model's.
            rows: int[P] catalog rows: the history, oldest first, or the one item an alignment task is about.

        Raises:
            IdentifierError: the model's vocabulary lacks the task's mark.
        """
        return self._prose(speech, rows) if speech.form.kind == "prose" else self._compact(speech, rows)

    def _compact(self, speech: Speech, rows: IntArray) -> Prompt:
        if self.shown == "title":
            return (Tokens(speech.marked_title(rows, self.mark)),)
        items = Items(np.asarray(rows, np.int64))
        return (items,) if self.mark is None else (items, Tokens(speech.mark(self.mark)))

    def _prose(self, speech: Speech, rows: IntArray) -> Prompt:
        if self.shown == "title" or (self.shown == "history" and self.is_text):
            return (Tokens(speech.prose(self.opening, rows, self.closing)),)
        # The decoder's reader writes items as codes, and says before them what they are.
        items = Items(np.asarray(rows, np.int64))
        return (items, Tokens(speech.inside(self.closing))) if self.closing else (items,)

    def answers(self, speech: Speech, rows: IntArray) -> list[list[int]]:
        """Token paths of catalog rows as answers: level tokens of the trie of codes, or text and its terminator."""
        if self.written == "code":
            codes: list[list[int]] = speech.level_tokens[rows].tolist()
            return codes
        return speech.vocabulary.answers(self.answer_texts(speech, rows))

    def answer_texts(self, speech: Speech, rows: IntArray) -> list[str]:
        """What a text task writes for catalog rows, before it is tokenised; empty for an item without a title."""
        titles = [speech.titles[row] for row in rows.tolist()]
        return [speech.query_words.of(title) for title in titles] if self.written == "query" else titles


_HISTORY = "Items a user chose, oldest first:"
TASKS: Mapping[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec("semantic_id", "history", "code", "codes"),
        TaskSpec(
            "title",
            "history",
            "title",
            "titles",
            mark="title",
            opening=_HISTORY,
            closing="The title of the next item:",
        ),
        TaskSpec(
            "query",
            "history",
            "query",
            "queries",
            mark="query",
            opening=_HISTORY,
            closing="A search query for the next item:",
        ),
        TaskSpec("title_of_code", "code", "title", "nothing", mark="name", closing="The title of this item:"),
        TaskSpec(
            "code_of_title",
            "title",
            "code",
            "nothing",
            mark="code",
            opening="The item:",
            closing="Its code:",
        ),
    )
}
"""Every task, by name, in the order of tables."""


def task(name: str) -> TaskSpec:
    """A task by its name.

    Raises:
        RequestError: there is none of this name.
    """
    if name not in TASKS:
        raise RequestError(f"expected a task of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


@dataclass(frozen=True, slots=True)
class TaskDefaults:
    """How a bundle runs a task unless a request says otherwise."""

    normalize: Normalize = "catalog"
    """The better of the two on this bundle's validation users."""
    beam: int = 50
    """Prefixes kept per step."""
    prior_weight: float = 0.0
    """Of the bundle's history prior against the model (:mod:`genrec.history_prior`), in [0, 1): the best on this
    bundle's validation users. 0 leaves the model alone."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskDefaults:
        """Read :meth:`to_dict` back.

        Raises:
            IndexFormatError: an unknown key or value.
        """
        try:
            defaults = cls(**values)
        except TypeError as error:
            names = sorted(cls.__dataclass_fields__)
            raise IndexFormatError(f"expected task defaults {names}, got {sorted(values)}") from error
        if not defaults.is_known():
            raise IndexFormatError(
                f"expected known task defaults, got {dict(values)}; train the bundle again"
            )
        return defaults

    def is_known(self) -> bool:
        """Whether every value makes sense."""
        return self.normalize in get_args(Normalize) and self.beam >= 1 and 0 <= self.prior_weight < 1


@dataclass(frozen=True, slots=True)
class QueryDefaults(TaskDefaults):
    """How a bundle makes queries and searches with them unless a request says otherwise."""

    normalize: Normalize = "vocabulary"
    """Queries are free text: there is no catalog to normalise over."""
    queries: int = 10
    """m, queries per request; each finds its share of the items."""
    constraint: QueryConstraint = "free"
    k1: float | None = None
    """Of BM25, tuned on validation; None: as the index was built."""
    b: float | None = None
    context: int = 0
    """BM25 also looks for the titles of so many of the newest items, behind every query; tuned with k1 and b."""

    def is_known(self) -> bool:
        """Whether every value makes sense."""
        return (
            self.normalize in get_args(Normalize)
            and self.beam >= 1
            and self.prior_weight == 0
            and self.queries >= 1
            and self.context >= 0
            and self.constraint in get_args(QueryConstraint)
            and (self.k1 is None or 0 <= self.k1 < inf)
            and (self.b is None or 0 <= self.b <= 1)
        )


def defaults_of(name: str, values: Mapping[str, Any]) -> TaskDefaults:
    """The defaults of a task from a manifest.

    Raises:
        IndexFormatError: an unknown task, key or value.
    """
    if name not in TASKS:
        raise IndexFormatError(f"expected tasks of {', '.join(TASKS)}, got {name!r}; update genrec")
    return (QueryDefaults if name == "query" else TaskDefaults).from_dict(values)


def tasks_in_order(names: Sequence[str]) -> list[str]:
    """Names of tasks in the order of tables and defaults: semantic_id, title, query."""
    return [name for name in TASKS if name in names]
