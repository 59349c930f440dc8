"""TALLRec (Bao et al. 2023, arXiv 2305.00447): will the user like this item? Yes or no, and how surely.

::

    answer = tall_rec(recommender, liked=["film-0003"], disliked=["film-0010"], targets=["film-0006", "film-0008"])
    [(item.title, item.score) for item in answer.items]     # score: the share of "Yes"

Tuned from K examples, and asked::

    genrec train --base ./Qwen3-0.6B --lora --lora-rank 8 --tasks yes_no --examples 64 --epochs 20 …
    genrec recipe run tallrec runs/tallrec --history 1,32,50

Faithful: liked titles, disliked titles, the target, "Yes" or "No"; the score is the softmax over the two
answers, one of several tokens counting as a whole. LoRA on K examples, the same in every epoch; the base may be
a bundle that was instructed before (the paper's first round).

Different: histories hold no ratings, so examples of the command line say "No" of drawn items; labels of your
own become the same prompts by :func:`tall_rec_examples`, for any trainer. Adapters lie on all linear layers,
not on two, and the last epoch is kept: with so few examples none is left to stop by. A small model of compact
prompts has no yes or no: the score is how much more probable the liked items make the target than nothing does, as a
share (logistic of the gain).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.recipes.answers import RecipeAnswer
from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.catalog_text import CatalogText
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recommender import Recommender
from genrec.session import score_all
from index.types import ItemId

ANSWERS = ("Yes", "No")


def tall_rec(
    recommender: Recommender,
    liked: Sequence[ItemId | int],
    targets: Sequence[ItemId],
    *,
    disliked: Sequence[ItemId | int] = (),
) -> RecipeAnswer:
    """How surely the user will like each target, the surest first; scores in [0, 1].

    Args:
        recommender: its model judges.
        liked: item ids, oldest first.
        targets: item ids to judge.
        disliked: item ids, oldest first.

    Raises:
        RequestError: no target is in the catalog.
    """
    talk = CatalogTalk(recommender)
    likes, dislikes, rows = talk.rows(liked), talk.rows(disliked), talk.candidates(targets)
    if talk.is_prose:
        sessions = [talk.open(question(talk, likes, dislikes, row)) for row in rows]
        share = [float(one.share[0]) for one in score_all(sessions, ANSWERS)]
    else:
        alone, behind = dict(talk.ranked([], rows)), dict(talk.ranked(likes, rows))
        rows = [row for row in rows if row in behind]
        share = [float(1 / (1 + np.exp(alone[row] - behind[row]))) for row in rows]
    order = np.argsort(-np.array(share), kind="stable").tolist()
    return RecipeAnswer(talk.items([rows[place] for place in order], [share[place] for place in order]))


def question(text: CatalogText, liked: Sequence[int], disliked: Sequence[int], target: int) -> str:
    """The prompt about one target."""
    return (
        f"Items a user liked:\n{text.shown(liked)}\nItems the user disliked:\n{text.shown(disliked)}\n"
        f"Will the user like {text.title(target)}? Answer Yes or No.\nAnswer:"
    )


def tall_rec_examples(
    recommender: Recommender, cases: Sequence[tuple[Sequence[ItemId], Sequence[ItemId], ItemId, bool]]
) -> list[tuple[str, str]]:
    """Prompts and their answers, for tuning: one for each (liked, disliked, target, whether it was liked)."""
    talk = CatalogTalk(recommender)
    return [
        (question(talk, talk.rows(liked), talk.rows(disliked), row), ANSWERS[not is_liked])
        for liked, disliked, target, is_liked in cases
        for row in talk.rows([target])
    ]


def check() -> list[Check]:
    """T0: an oracle with log-odds of its own for every item: scores are its probabilities, so its AUC is one."""
    index = films()
    titles, ids = index.catalog.titles, index.catalog.item_ids
    odds = dict(zip(titles, np.random.default_rng(5).normal(0, 2, len(titles)), strict=True))

    def says(before: str) -> dict[str, float]:
        asked = before[before.rfind("like ") + 5 : before.rfind("?")]
        return {"Yes": float(np.exp(odds[asked])), "No": 1.0}

    recommender, _ = planted_recommender(index, says)
    answer = tall_rec(recommender, ids[:3], ids[20:60], disliked=ids[3:5])
    found = {item.title: item.score or 0.0 for item in answer.items}
    off = max(abs(score - 1 / (1 + np.exp(-odds[title]))) for title, score in found.items())
    yes = [score for title, score in found.items() if odds[title] > 0]
    no = [score for title, score in found.items() if odds[title] <= 0]
    auc = float(np.mean([one > other for one in yes for other in no]))
    return [
        Check("largest distance of a score from the oracle's probability", float(off), 1e-5, "<="),
        Check("AUC of the scores", auc, 1.0),
    ]
