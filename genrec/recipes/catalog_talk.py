"""CatalogTalk: what every recipe stands on: conversations about a catalog, and rankings of its items.

Two kinds of model answer. One that reads *prose* (a pretrained language model, zero-shot or fine-tuned) is
talked to: :meth:`CatalogTalk.open` begins a conversation, :meth:`CatalogTalk.several` is a ranking it may
answer with. The small models trained here read *compact* prompts, a history and nothing else; they have no
words for a question, but know how probable every item is (:meth:`CatalogTalk.ranked`). Recipes say both forms
of a step; which one runs is the model's to decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from genrec.grammars import Distinct, Text, Titles
from genrec.modes import QueryMode, TrieMode
from genrec.recipes.answers import NamedItem
from genrec.recipes.catalog_text import CatalogText
from genrec.recommender import Recommender
from genrec.session import Session
from genrec.text_search import Beams, Samples
from genrec.wishes import Wishes
from index.errors import RequestError
from index.types import ItemId

LONG = 4096
"""Most tokens of a list or a text; the model's positions and what a grammar needs bound it before."""


class CatalogTalk(CatalogText):
    """A recommender, and its model as somebody to talk to.

    Args:
        recommender: where it has the mode ``title`` with a model that reads prose, steps are asked in words.
    """

    def __init__(self, recommender: Recommender) -> None:
        super().__init__(recommender.index)
        self.recommender = recommender
        mode = recommender.modes.get("title")
        self._titles = mode if isinstance(mode, TrieMode) else None
        self._removed = frozenset(self.index.removed.tolist())

    @property
    def is_prose(self) -> bool:
        """Whether the model can be asked in words."""
        return self._titles is not None and self._titles.speech.form.kind == "prose"

    def rows(self, ids: Sequence[ItemId | int]) -> list[int]:
        """The catalog rows of a history, oldest first; ids that are not in the catalog are left out.

        Raises:
            RequestError: a single string instead of a list.
        """
        return [int(row) for row in self.recommender.history_rows(ids)]

    def candidates(self, ids: Sequence[ItemId | int], leave_out: Iterable[int] = ()) -> list[int]:
        """The rows of candidates, none twice, without removed items and ``leave_out``.

        Raises:
            RequestError: none is left.
        """
        gone = self._removed.union(leave_out)
        rows = [row for row in dict.fromkeys(self.rows(ids)) if row not in gone and self.may_name(row)]
        if not rows:
            raise RequestError(
                f"expected candidates that are in the catalog and not seen yet, got {list(ids)[:5]}"
            )
        return rows

    def retrieved(self, history: Sequence[int], k: int, wishes: Wishes | None = None) -> list[int]:
        """The rows that the recommender itself would recommend behind a history, best first."""
        return [row for row, _ in self.scored(history, k, wishes)]

    def scored(self, history: Sequence[int], k: int, wishes: Wishes | None = None) -> list[tuple[int, float]]:
        """The same with their scores."""
        ids = [self.catalog.item_ids[row] for row in history]
        (answer,) = self.recommender.recommend_batch([ids], wishes or Wishes(k=k))
        rows = self.catalog.rows_of([item.item_id for item in answer.items]).tolist()
        scored = [(row, item.score) for row, item in zip(rows, answer.items, strict=True)]
        return [(row, score) for row, score in scored if self.may_name(row)]

    def ranked(self, history: Sequence[int], rows: Sequence[int]) -> list[tuple[int, float]]:
        """Rows by how probable the recommender's default mode takes each to come next; log-probabilities."""
        ids = [self.catalog.item_ids[row] for row in history]
        include = [self.catalog.item_ids[row] for row in rows]
        answer = self.recommender.recommend(ids, k=len(include), include=include, exclude_seen=False)
        found = self.catalog.rows_of([item.item_id for item in answer.items]).tolist()
        return [(row, item.score) for row, item in zip(found, answer.items, strict=True)]

    def open(self, text: str) -> Session:
        """Begin a conversation in words.

        Raises:
            RequestError: the model reads no prose.
        """
        mode = self._spoken()
        return Session(mode.decoder, mode.speech.vocabulary).say(text)

    def naming(self, rows: Iterable[int]) -> Titles:
        """The grammar of naming one of these items."""
        return Titles.of(self._spoken().trie, rows)

    def several(self, rows: Sequence[int], count: int | None = None) -> Distinct:
        """The grammar of a numbered list of these items, none twice; all of them where ``count`` is not given.

        The list begins behind a prompt that ends in ``1.``.
        """
        titles = self.naming(rows)
        named = titles.paths(self._spoken().speech.vocabulary).count
        return Distinct(titles, named if count is None else min(count, named), "\n{number}.")

    def pick_items(self, session: Session, rows: Sequence[int], count: int | None = None) -> list[int]:
        """Let a conversation name items in a numbered list; it joins the conversation. Rows, best first."""
        said = session.pick(self.several(rows, count), max_tokens=LONG)
        named = [row for one in said.value for row in one]
        return named if count is None else named[:count]

    def write(self, session: Session, max_tokens: int, method: Beams | Samples | None = None) -> str:
        """Let a conversation say something on one line; it joins the conversation."""
        return str(session.pick(Text(without="\n"), method, max_tokens=max_tokens).value)

    def items(self, rows: Sequence[int], scores: Sequence[float] | None = None) -> tuple[NamedItem, ...]:
        """Rows as an answer names them."""
        ids, titles = self.catalog.item_ids, self.catalog.titles
        return tuple(
            NamedItem(ids[row], titles[row], None if scores is None else float(scores[place]))
            for place, row in enumerate(rows)
        )

    def may_name(self, row: int) -> bool:
        """In prose an item without a title has no name; by its code any can be named."""
        return super().may_name(row) if self.is_prose else True

    def _spoken(self) -> TrieMode:
        if self._titles is None or not self.is_prose:
            raise RequestError(
                "expected a model that reads prose (genrec train --base, or a language model's directory), got one "
                "of compact prompts; it cannot be asked in words"
            )
        return self._titles


def needs_query_mode(recommender: Recommender) -> QueryMode:
    """The query mode of a recommender.

    Raises:
        RequestError: it has none.
    """
    mode = recommender.modes.get("query")
    if not isinstance(mode, QueryMode):
        raise RequestError(
            f"expected a model that writes queries (genrec train --tasks semantic_id,title,query), got one with "
            f"{', '.join(recommender.modes)}"
        )
    return mode
