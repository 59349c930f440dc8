"""Speech: how one model reads items and writes text. Tasks (:mod:`genrec.tasks`) are made of it.

``compact``
    For small models trained here: a history is item positions (:class:`~genrec.decoders.base.Items`), one token
    behind it says what is wanted.
``prose``
    For pretrained language models: a history is titles, line by line, between two sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from genrec.query_words import QueryWords
from genrec.vocabulary import TextVocabulary, one_line
from index.errors import IdentifierError, IndexFormatError
from index.item_index import ItemIndex
from index.title_paths import untitled_rows
from index.types import BoolArray, Int32Array, Int64Array, IntArray

FormKind: TypeAlias = Literal["compact", "prose"]


@dataclass(frozen=True, slots=True)
class SpeechForm:
    """The facts of a speech, as a manifest holds them."""

    kind: FormKind
    max_items: int = 20
    """Items of a history that are read, the newest."""
    max_tokens: int = 512
    """Of a prompt in prose; the oldest items are left out where there are more."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SpeechForm:
        """Read :meth:`to_dict` back.

        Raises:
            IndexFormatError: an unknown or missing key, or a value that makes no sense.
        """
        try:
            form = cls(**values)
            if form.kind not in get_args(FormKind) or form.max_items < 1 or form.max_tokens < 1:
                raise ValueError(values)
        except (TypeError, ValueError) as error:
            raise IndexFormatError(
                f"expected a speech form of {', '.join(cls.__slots__)}, got {dict(values)}; make the bundle again"
            ) from error
        return form


@dataclass(frozen=True, eq=False)
class Speech:
    """One model's way with one catalog.

    Args:
        index: the items.
        form: how prompts are written.
        text: what text the model speaks; None for one that speaks codes alone.
    """

    index: ItemIndex
    form: SpeechForm
    text: TextVocabulary | None = None

    @property
    def vocabulary(self) -> TextVocabulary:
        """The text vocabulary of a model that has one.

        Raises:
            IdentifierError: it has none.
        """
        if self.text is None:
            raise IdentifierError("expected a model that speaks text, got one that speaks codes alone")
        return self.text

    @property
    def titles(self) -> Sequence[str]:
        """N titles, by row."""
        return self.index.catalog.titles

    @property
    def level_tokens(self) -> Int32Array:
        """int32[N, L]: the codes of every row as tokens of the trie of codes."""
        return self.index.level_tokens

    @cached_property
    def is_titled(self) -> BoolArray:
        """bool[N]: rows that a text can name; an example of a text task needs such a target."""
        titled = np.ones(len(self.titles), np.bool_)
        titled[untitled_rows(self.titles)] = False
        return titled

    @cached_property
    def query_words(self) -> QueryWords:
        """What queries for the catalog's items are."""
        return QueryWords(self.titles)

    def mark(self, name: str) -> Int64Array:
        """int64[1]: the token that says what is wanted."""
        return np.array([self.vocabulary.mark(name)], np.int64)

    def inside(self, text: str) -> Int64Array:
        """int64[P]: a line of prose behind items, in the middle of a prompt."""
        ids = self.vocabulary.tokenizer.encode(f"\n{text}", add_special_tokens=False).ids
        return np.array(ids, np.int64)

    def marked_title(self, rows: IntArray, mark: str | None) -> Int64Array:
        """int64[P]: the title of the last row, and a mark behind it."""
        title = self.vocabulary.answers([self.titles[int(rows[-1])]])[0][:-1]
        return np.array([*title, *([] if mark is None else [self.vocabulary.mark(mark)])], np.int64)

    def prose(self, opening: str, rows: IntArray, closing: str) -> Int64Array:
        """int64[P]: titles of the newest items, a line each, between two sentences.

        As many items as ``form.max_items`` and ``form.max_tokens`` allow; those without a title say nothing.
        """
        lines = [one_line(self.titles[row]) for row in np.asarray(rows)[-self.form.max_items :].tolist()]
        lines = [line for line in lines if line]
        while True:
            listed = [opening, *(f"- {line}" for line in lines)] if lines else []
            ids = self.vocabulary.prompt("\n".join([*listed, closing]))
            too_many = len(ids) - self.form.max_tokens
            if too_many <= 0 or not lines:
                return ids
            share = len(ids) / max(len(lines), 1)  # tokens of a line, about; one at least is left out
            lines = lines[max(1, int(too_many / (2 * share))) :]
