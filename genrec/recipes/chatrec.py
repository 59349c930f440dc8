"""Chat-REC (Gao et al. 2023, arXiv 2303.14524): recommendations in a conversation.

::

    chat = Chat(recommender, ["film-0003"])
    chat.turn("Something for tonight, but no horror.").ids
    chat.turn("Why the first one?").text        # names an item of the history

In a terminal ``genrec chat``; over HTTP ``POST /v1/chat``, which remembers nobody: a client sends the turns.

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
from genrec.recipes.chat_state import ChatState, ChatWords, Turn
from genrec.recommender import Recommender
from genrec.wishes import Wishes
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
        before: turns of the conversation so far.
        wishes: what else may be recommended, beside what the user says.
        words: what users may mean; made here where not given.
    """

    recommender: Recommender
    history: Sequence[ItemId | int]
    k: int = 5
    before: Sequence[Turn] = ()
    wishes: Wishes = field(default_factory=Wishes)
    words: ChatWords | None = None

    def __post_init__(self) -> None:
        self._talk = CatalogTalk(self.recommender)
        self.state = ChatState(self.words or ChatWords(self._talk.index))
        self.state.replay(self.before)
        self._seen = self._talk.rows(self.history)

    def turn(self, text: str) -> RecipeAnswer:
        """Answer one thing the user says.

        Raises:
            RequestError: an empty text.
        """
        named = self.state.hear(text)
        kind = self._kind(text)
        slate = self.state.slate
        if kind == "explain" and slate:
            answer = self._explain(next((row for row in named if row in slate), slate[0]))
        elif kind in ("recommend", "explain"):
            answer = self._recommend(named)
        else:
            answer = self._converse(kind)
        self.state.say(answer.text)
        return answer

    def _kind(self, text: str) -> str:
        if not self._talk.is_prose:
            return "explain" if text.strip().casefold().startswith(("why", "how come")) else "recommend"
        asked = self._talk.open(f"{self._prompt()}\nWhat the user wants now:")
        return str(asked.pick(Choice(_KINDS)).value)

    def _recommend(self, named: Sequence[int]) -> RecipeAnswer:
        said = (Said("kind", ("recommend",)),)
        count = max(CANDIDATES, self.k)
        rows = self._talk.retrieved(self._seen, count, self.state.narrowed(self.wishes, count, named))
        if rows and self._talk.is_prose:
            asked = self._talk.open(
                f"{self._prompt()}\nCandidates:\n{self._talk.listed(rows)}\nThe best of them:\n1."
            )
            rows = self._talk.pick_items(asked, rows, self.k)
        rows = rows[: self.k]
        if not rows:
            return RecipeAnswer((), said, "Nothing else passes what you have asked for.")
        self.state.show(rows, named)
        ids = self._talk.catalog.item_ids
        text = "; ".join(f"[{self._talk.title(row)}]({ids[row]})" for row in rows)
        return RecipeAnswer(self._talk.items(rows), said, f"You may like {text}.")

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
        said = "\n".join(f"{who}: {text}" for who, text in self.state.dialog[-TURNS_SHOWN:])
        chosen = self._talk.shown(self._seen)
        return f"The user chose these items, in this order:\n{chosen}\nThe conversation:\n{said}"
