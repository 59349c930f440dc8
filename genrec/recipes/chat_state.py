"""What is known in a conversation: said, wanted, shown. It follows from the turns alone, so it can be made again.

A conversation is a list of :class:`Turn`; what a user wishes for is read off what the user said, and what was shown
off the items of the answers. Nothing of it is a model's, so a server need not remember anybody: whoever sends the
turns again gets the same state (:meth:`ChatState.replay`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from genrec.recipes.user_words import FieldWish, FieldWords, mentioned_rows, where_of
from genrec.wishes import Wishes
from index.errors import RequestError
from index.filter_expression import both
from index.item_index import ItemIndex
from index.lexicon import Lexicon
from index.types import ItemId


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing that was said."""

    who: Literal["user", "assistant"]
    text: str
    item_ids: Sequence[ItemId] = ()
    """Of the assistant: what this turn recommended."""


class ChatWords:
    """What users may mean, over one catalog: values of fields, and titles. Made once, for many conversations.

    Args:
        index: the items.
        titles: their titles as people type them; the index's own where not given.
    """

    def __init__(self, index: ItemIndex, titles: Lexicon | None = None) -> None:
        self.index = index
        self.fields = FieldWords(index.catalog)
        self.titles = index.titles() if titles is None else titles


@dataclass
class ChatState:
    """One conversation so far."""

    words: ChatWords
    wishes: list[FieldWish] = field(default_factory=list)
    """What the user wanted or did not want of the catalog's fields; it holds on every later turn."""
    shown: list[int] = field(default_factory=list)
    """Rows that were recommended or named; not recommended again."""
    slate: list[int] = field(default_factory=list)
    """Rows of the last recommendation."""
    dialog: list[tuple[str, str]] = field(default_factory=list)

    def hear(self, text: str) -> list[int]:
        """The user says something; the rows of the items it names.

        Raises:
            RequestError: an empty text.
        """
        if not text.strip():
            raise RequestError("expected something said, got an empty text")
        self.dialog.append(("User", " ".join(text.split())))
        new = self.words.fields.wishes(text)
        overruled = {(one.field, one.value) for one in new}
        self.wishes = [one for one in self.wishes if (one.field, one.value) not in overruled] + new
        return mentioned_rows(self.words.index, self.words.titles, text)

    def show(self, rows: Sequence[int], named: Sequence[int]) -> None:
        """A recommendation answers the user, who has named some items."""
        self.slate = list(rows)
        self.shown = list(dict.fromkeys([*self.shown, *named, *rows]))

    def say(self, text: str) -> None:
        """The assistant says something."""
        self.dialog.append(("Assistant", text))

    def replay(self, turns: Sequence[Turn]) -> None:
        """Know what was said before, without asking a model.

        Raises:
            RequestError: an empty text of the user.
        """
        named: list[int] = []
        for one in turns:
            if one.who == "user":
                named = self.hear(one.text)
                continue
            if one.item_ids:
                rows = self.words.index.catalog.rows_of(list(one.item_ids))
                self.show([row for row in rows.tolist() if row >= 0], named)
            self.say(one.text)

    def narrowed(self, wishes: Wishes, k: int, named: Sequence[int] = ()) -> Wishes:
        """Wishes of a request with those of the conversation: its filters too, and nothing shown or named before."""
        ids = self.words.index.catalog.item_ids
        gone = (*wishes.exclude, *(ids[row] for row in (*self.shown, *named)))
        return replace(wishes, k=k, where=both(wishes.where, where_of(self.wishes)), exclude=gone)
