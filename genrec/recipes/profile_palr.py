"""PALR (Yang et al. 2023, arXiv 2305.07622): keywords of a user, candidates found by them, and a model that selects.

::

    answer = palr(recommender, ["film-0003", "film-0006"], k=10)
    answer.said_at("profile"), answer.ids

Faithful: (1) the model writes keywords from the history; (2) a retriever returns candidates; (3) the model
answers "history + profile + candidates → items", with items of the candidates alone.

Different: the retriever is BM25 over the catalog by the profile, beside the recommender's own candidates; any
other is given as ``candidates``. A language model is used as it is, or tuned on both instructions by ``genrec train
--base DIR --lora --tasks title,profile,recommend,recommend_retrieval``; the right keywords are then the most
frequent kinds (genres) of a history, the right items its next three, and the other candidates drawn. The
keywords of a small model of compact prompts are the queries it writes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.grounding import Query, ground
from genrec.modes import QueryMode
from genrec.recipes.answers import RecipeAnswer, Said
from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.catalog_text import CatalogText
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recommender import Recommender
from index.types import ItemId

CANDIDATES = 20
"""From each of the two retrievers."""


def palr(
    recommender: Recommender,
    history: Sequence[ItemId | int],
    *,
    k: int = 10,
    candidates: Sequence[ItemId] | None = None,
) -> RecipeAnswer:
    """The k best of the candidates.

    Args:
        recommender: retrieves; its model writes the profile and selects.
        history: item ids, oldest first; never recommended.
        k: items wanted.
        candidates: item ids of another retriever; here they are found where not given.

    Raises:
        RequestError: candidates that are all unknown or seen.
    """
    talk = CatalogTalk(recommender)
    seen = talk.rows(history)
    profile = _profile(talk, seen)
    if candidates is None:
        (found,) = ground(
            [[Query(text, -float(place)) for place, text in enumerate(profile)]],
            talk.index.bm25,
            CANDIDATES,
            exclude=[np.array([*talk.index.removed.tolist(), *seen], np.int64)],
        )
        both = [*talk.retrieved(seen, CANDIDATES), *found.rows.tolist()]
        candidates = [talk.catalog.item_ids[row] for row in both]
    rows = talk.candidates(candidates, leave_out=seen)
    said = (Said("profile", tuple(profile)), Said("candidates", tuple(map(talk.title, rows))))
    if not talk.is_prose:
        ranked = talk.ranked(seen, rows)[:k]
        return RecipeAnswer(talk.items([row for row, _ in ranked], [score for _, score in ranked]), said)
    session = talk.open(question(talk, seen, profile, rows, min(k, len(rows))))
    return RecipeAnswer(talk.items(talk.pick_items(session, rows, k)), said)


def question(
    text: CatalogText, seen: Sequence[int], profile: Sequence[str], candidates: Sequence[int], k: int
) -> str:
    """The prompt of *Recommend_Retrieval*, up to the first number of the answer."""
    return (
        f"{_opening(text, seen)}Keywords of the user: {', '.join(profile)}\nCandidates:\n{text.listed(candidates)}\n"
        f"The {k} candidates the user will choose next, the likeliest first:\n1."
    )


def recommend_question(text: CatalogText, seen: Sequence[int]) -> str:
    """The prompt of *Recommend*: the history alone."""
    return f"{_opening(text, seen)}The items the user will choose next, the likeliest first:\n1."


def profile_question(text: CatalogText, seen: Sequence[int]) -> str:
    """The prompt for keywords."""
    return f"{_opening(text, seen)}Keywords of what the user likes:"


def _opening(text: CatalogText, seen: Sequence[int]) -> str:
    return f"A user chose these items, in this order:\n{text.shown(seen)}\n"


def _profile(talk: CatalogTalk, seen: Sequence[int]) -> list[str]:
    if talk.is_prose:
        written = talk.write(talk.open(profile_question(talk, seen)), 48)
        return [word.strip() for word in written.split(",") if word.strip()]
    if not isinstance(talk.recommender.modes.get("query"), QueryMode):
        return []
    ids = [talk.catalog.item_ids[row] for row in seen]
    return [query.text for query in talk.recommender.recommend(ids, CANDIDATES, mode="query").queries]


def check() -> list[Check]:
    """T0: an oracle that knows the next item: it comes first whenever it is a candidate, and no other item comes."""
    index = films()
    titles, ids = index.catalog.titles, index.catalog.item_ids
    wanted = titles[50]

    def says(before: str) -> dict[str, float]:
        if before.endswith("likes:"):
            return {wanted.split()[-1]: 1.0}
        return {title: 100.0 if title == wanted else 1.0 for title in titles}

    recommender, _ = planted_recommender(index, says)
    outside = sum(
        not set(palr(recommender, ids[:3], candidates=ids[start : start + 9]).ids)
        <= set(ids[start : start + 9])
        for start in range(0, 40, 8)
    )
    answer = palr(recommender, ids[:3])
    return [
        Check("answers with an item outside the candidates", outside, 0, "=="),
        Check(
            "place of the item that the profile finds",
            answer.ids.index(ids[50]) + 1 if ids[50] in answer.ids else 99,
            1,
            "==",
        ),
    ]
