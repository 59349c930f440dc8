"""What a user says in a conversation: wishes that the catalog's own fields can hold, and items named by title.

This reads what *people* write, against closed lists (values of fields, titles). What a model writes is never
read like this: it is held to a grammar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import polars as pl

from index.bm25.analyzer import analyze
from index.catalog import Catalog
from index.item_index import ItemIndex
from index.lexicon import Lexicon, folded

MOST_VALUES = 300
"""Of each field so many values are known by their words, the most frequent: the rest are names of few items."""
_AGAINST = frozenset(
    ["no", "not", "without", "except", "never", "avoid", "hate", "dislike", "nothing", "skip"]
)
_ONLY = frozenset(("only", "just"))
_REACH = 2  # words between "no" and what it is about: "not another horror"
_LONGEST_TITLE = 12  # words
_LONGEST_VALUE = 12  # terms; nobody says more, and a description of 400 would be looked for at every word


@dataclass(frozen=True, slots=True)
class FieldWish:
    """A value of a field that is wanted, or not."""

    field: str
    value: str
    is_list: bool
    is_against: bool

    def where(self) -> dict[str, Any]:
        """As a structured filter."""
        one = {"field": self.field, "op": "contains" if self.is_list else "==", "value": self.value}
        return {"not": one} if self.is_against else one


class FieldWords:
    """The values of a catalog's fields, by the words a user has for them.

    Args:
        catalog: the :data:`MOST_VALUES` most frequent values of each of its fields of text take part.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._values: dict[tuple[str, ...], list[tuple[str, str, bool]]] = {}
        for name in catalog.field_names:
            series = catalog.frame[name]
            is_list = series.dtype == pl.List(pl.String())
            if not is_list and series.dtype != pl.String():
                continue
            counts = Counter((series.explode() if is_list else series).drop_nulls().to_list())
            values = [value for value, _ in counts.most_common(MOST_VALUES)]
            for value, terms in zip(values, analyze(values), strict=True):
                if 0 < len(terms) <= _LONGEST_VALUE:
                    self._values.setdefault(tuple(terms), []).append((name, value, is_list))
        self._longest = max(map(len, self._values), default=0)

    def wishes(self, text: str) -> list[FieldWish]:
        """What a user wants ("only comedies") or does not ("no horror, please") of the fields' values."""
        words = folded(text.replace("n't", " not")).split()
        stems = [one[0] if one else "" for one in analyze(words)] if words else []
        found: list[FieldWish] = []
        sign = 0  # -1 within reach of "no", 1 of "only"
        left, place = 0, 0
        while place < len(words):
            if words[place] in _AGAINST or words[place] in _ONLY:
                sign, left = (-1 if words[place] in _AGAINST else 1), _REACH + 1
                place += 1
                continue
            length = next(
                (n for n in range(self._longest, 0, -1) if tuple(stems[place : place + n]) in self._values), 0
            )
            if length and sign:
                for field, value, is_list in self._values[tuple(stems[place : place + length])]:
                    found.append(FieldWish(field, value, is_list, sign < 0))
                left = _REACH + 1  # "no horror, no war" and "no horror or war"
            elif words[place] not in ("or", "and", "nor"):
                left -= 1
            if left <= 0:
                sign = 0
            place += max(length, 1)
        return found


def where_of(wishes: Sequence[FieldWish]) -> dict[str, Any] | None:
    """One filter of all wishes: nothing that was excluded and, of each field, something that was asked for."""
    against = [one.where() for one in dict.fromkeys(wishes) if one.is_against]
    wanted: dict[str, list[dict[str, Any]]] = {}
    for one in dict.fromkeys(wishes):
        if not one.is_against:
            wanted.setdefault(one.field, []).append(one.where())
    parts = [*against, *({"any": some} for some in wanted.values())]
    return {"all": parts} if parts else None


def mentioned_rows(index: ItemIndex, titles: Lexicon, text: str) -> list[int]:
    """Rows of the items whose title stands in a text, in its order; the longest title counts.

    A title of one word counts where it is written with a capital, or "it" would be a film.
    """
    words = text.split()
    found: list[int] = []
    place = 0
    while place < len(words):
        length = 1
        for size, drop in product(range(min(_LONGEST_TITLE, len(words) - place), 0, -1), (False, True)):
            gram = " ".join(words[place : place + size])
            gram = gram.strip(".,;:!?\"'()[]") if drop else gram
            rows = titles.rows_of(gram) if gram else []
            if rows and (size > 1 or gram[:1].isupper() or gram.isdigit()):
                found += [row for row in rows if row not in found]
                length = size
                break
        place += length
    return found
