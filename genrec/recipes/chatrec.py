"""Chat-REC (Gao et al. 2023, arXiv 2303.14524): recommendations in a conversation.

::

    chat = Chat(recommender, ["film-0003"])
    chat.turn("Something for tonight, but no horror.").ids
    chat.turn("Why the first one?").text        # names an item of the history

Faithful: each turn is told apart (recommend, explain, ask, chat); for a recommendation the recommender returns
many candidates within all filters so far, and the model narrows them to k; a question for reasons is answered
from the history; what has been shown, seen or excluded stays so for the rest of the conversation.

Different: the kind of a turn is a choice, the k items are a list of candidates, reasons are text that must cite
an item the user really chose. "no horror" becomes a filter over the catalog's fields
(:class:`genrec.recipes.user_words.FieldWords`), not a request the model may forget. Rating prediction is
:func:`genrec.recipes.brew360`'s, cross-domain needs a catalog of both. A small model trained here tells turns
apart by "why", ranks by its own probability, and gives its reason in one plain sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from genrec.grammars import Choice, Markup, Text
from genrec.recipes.answers import RecipeAnswer, Said
from genrec.recipes.catalog_talk import LONG, CatalogTalk
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recipes.user_words import FieldWish, FieldWords, mentioned_rows, where_of
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.errors import RequestError
from index.types import ItemId

CANDIDATES = 20
TURNS_SHOWN = 6
_KINDS = ("recommend", "explain", "ask", "chat")


@dataclass
class Chat:
    """One conversation.

    Args:
        recommender: retrieves, and its model talks.
        history: item ids the user chose before, oldest first; never recommended.
        k: items of a recommendation.
    """

    recommender: Recommender
    history: Sequence[ItemId | int]
    k: int = 5
    wishes: list[FieldWish] = field(default_factory=list)
    """What the user wanted or did not want of the catalog's fields so far; it holds on every later turn."""
    shown: list[int] = field(default_factory=list)
    """Rows that were recommended or named; not recommended again."""
    dialog: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._talk = CatalogTalk(self.recommender)
        self._words = FieldWords(self._talk.catalog)
        self._titles = self._talk.index.titles()
        self._seen = self._talk.rows(self.history)
        self._slate: list[int] = []

    def turn(self, text: str) -> RecipeAnswer:
        """Answer one thing the user says.

        Raises:
            RequestError: an empty text.
        """
        if not text.strip():
            raise RequestError("expected something said, got an empty text")
        self.dialog.append(("User", " ".join(text.split())))
        new = self._words.wishes(text)
        overruled = {(one.field, one.value) for one in new}
        self.wishes = [one for one in self.wishes if (one.field, one.value) not in overruled] + new
        named = mentioned_rows(self._talk.index, self._titles, text)
        kind = self._kind(text)
        if kind == "explain" and self._slate:
            answer = self._explain(next((row for row in named if row in self._slate), self._slate[0]))
        elif kind in ("recommend", "explain"):
            self.shown += [row for row in named if row not in self.shown]
            answer = self._recommend()
        else:
            answer = self._converse(kind)
        self.dialog.append(("Assistant", answer.text))
        return answer

    def _kind(self, text: str) -> str:
        if not self._talk.is_prose:
            return "explain" if text.strip().casefold().startswith(("why", "how come")) else "recommend"
        asked = self._talk.open(f"{self._prompt()}\nWhat the user wants now:")
        return str(asked.pick(Choice(_KINDS)).value)

    def _recommend(self) -> RecipeAnswer:
        gone = tuple(self._talk.catalog.item_ids[row] for row in self.shown)
        wish = Wishes(k=CANDIDATES, where=where_of(self.wishes), exclude=gone)
        rows = self._talk.retrieved(self._seen, CANDIDATES, wish)
        if not rows:
            return RecipeAnswer((), text="Nothing else passes what you have asked for.")
        if self._talk.is_prose:
            asked = self._talk.open(
                f"{self._prompt()}\nCandidates:\n{self._talk.listed(rows)}\nThe best of them:\n1."
            )
            rows = self._talk.pick_items(asked, rows, self.k)
        self._slate = rows[: self.k]
        self.shown += self._slate
        ids = self._talk.catalog.item_ids
        text = "; ".join(f"[{self._talk.title(row)}]({ids[row]})" for row in self._slate)
        return RecipeAnswer(
            self._talk.items(self._slate), (Said("kind", ("recommend",)),), f"You may like {text}."
        )

    def _explain(self, row: int) -> RecipeAnswer:
        said = (Said("kind", ("explain",)),)
        title, watched = self._talk.title(row), [one for one in self._seen if self._talk.title(one)]
        if not watched:
            return RecipeAnswer((), said, f"{title} is what most users like; I know nothing you have chosen.")
        nearest = watched[int(np.argmax(self._likeness(watched, row)))]
        if not self._talk.is_prose:
            text = f"{title}, because you chose [{self._talk.title(nearest)}]."
        else:
            titles = self._talk.naming(watched)
            grammar = Markup(titles.trie, titles.allowed, must_cite=[nearest], cite_once=True)
            asked = self._talk.open(f"{self._prompt()}\nWhy {title}, by what the user chose:")
            text = str(asked.pick(grammar, max_tokens=min(LONG, 128)).value.text)
        return RecipeAnswer((), said, text, evidence=self._talk.items([nearest]))

    def _converse(self, kind: str) -> RecipeAnswer:
        """Small talk and questions: no brackets, so no mention."""
        opening = "A question to the user" if kind == "ask" else "Assistant"
        asked = self._talk.open(f"{self._prompt()}\n{opening}:")
        text = str(asked.pick(Text(without="\n[]"), max_tokens=64).value)
        return RecipeAnswer((), (Said("kind", (kind,)),), text)

    def _likeness(self, rows: Sequence[int], row: int) -> np.ndarray:
        vectors = self._talk.index.vectors.text
        likeness: np.ndarray = vectors[np.asarray(rows)] @ vectors[row]
        return likeness

    def _prompt(self) -> str:
        said = "\n".join(f"{who}: {text}" for who, text in self.dialog[-TURNS_SHOWN:])
        chosen = self._talk.shown(self._seen)
        return f"The user chose these items, in this order:\n{chosen}\nThe conversation:\n{said}"


def check() -> list[Check]:
    """T0: scripted dialogs: "no horror" holds on all later turns, nothing comes twice, reasons cite the history."""
    index = films()
    genres = dict(zip(index.catalog.item_ids, index.catalog.frame["genres"].to_list(), strict=True))

    def says(before: str) -> dict[str, float]:
        line = before[before.rfind("\n") + 1 :]
        if line.startswith("What the user wants"):
            return {"explain": 1.0} if "User: Why" in before[-160:] else {"recommend": 1.0}
        return {} if line.startswith("Why") else dict.fromkeys(index.catalog.titles, 1.0)

    recommender, _ = planted_recommender(index, says)
    broken = repeated = uncited = 0
    for first in range(0, 24, 8):
        history = index.catalog.item_ids[first : first + 3]
        chat, named = Chat(recommender, history), list(history)
        for text in ("Something good.", "Without drama, please.", "More!", "Why the first?", "Others?"):
            answer = chat.turn(text)
            if chat.wishes:
                broken += sum("drama" in genres[one] for one in answer.ids)
            repeated += len(set(answer.ids) & set(named)) + len(answer.ids) - len(set(answer.ids))
            named += answer.ids
            if text.startswith("Why"):
                cited = [
                    one
                    for one in answer.evidence
                    if one.item_id in history and f"[{one.title}]" in answer.text
                ]
                uncited += not cited
    return [
        Check("items that a filter said earlier forbids", broken, 0, "=="),
        Check("items seen or shown before", repeated, 0, "=="),
        Check("reasons that cite nothing of the history", uncited, 0, "=="),
    ]
