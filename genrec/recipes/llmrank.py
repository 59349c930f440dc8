"""Zero-shot rankers, LLMRank (Hou et al. 2023, arXiv 2305.08845): a model ranks candidates behind a history.

::

    llm_rank(recommender, history, candidates, prompt="recency", passes=3).ids

Faithful: numbered history, numbered candidates, "rank by likelihood of being next"; the three prompts
*sequential*, *recency* (the newest item is said again) and *in_context* (all but the newest item, and that the
newest was right); an item at place r of m is worth m − r; *bootstrapping*: several passes over the candidates
in other orders, summed.

Different: the ranking is a list of the candidates, none twice and none else, so there is nothing to parse.
``by="score"`` ranks by the log-probability of every title instead. ``genrec train --tasks rank`` teaches the
prompt. The released code shuffles all passes by one permutation, so a bias for places is hardly averaged out;
here the passes are cyclic shifts of one random order, evenly apart. With as many passes as candidates every
candidate stands at every place once, and an additive bias for places cancels exactly from mean scores. A small
model trained here reads no candidates, so it knows no places: it ranks by its own probability, and passes
change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from genrec.recipes.answers import RecipeAnswer
from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.catalog_text import CatalogText
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender, prose_text
from genrec.recommender import Recommender
from index.errors import RequestError
from index.types import ItemId

RankPrompt: TypeAlias = Literal["sequential", "recency", "in_context"]


def llm_rank(
    recommender: Recommender,
    history: Sequence[ItemId | int],
    candidates: Sequence[ItemId],
    *,
    prompt: RankPrompt = "sequential",
    passes: int = 1,
    by: Literal["list", "score"] = "list",
    seed: int = 0,
) -> RecipeAnswer:
    """Rank candidates.

    Args:
        recommender: its model ranks.
        history: item ids, oldest first.
        candidates: item ids; those of no item are left out, those that were seen are ranked like others.
        prompt: how the history is put.
        passes: B, of bootstrapping.
        by: ``"list"``: the model lists them, scores are m − r, summed; ``"score"``: mean log-probability.
        seed: of the random order that the passes shift.

    Raises:
        RequestError: no candidate is in the catalog, or passes below 1.
    """
    if passes < 1:
        raise RequestError(f"expected passes >= 1, got {passes}")
    talk = CatalogTalk(recommender)
    seen, rows = talk.rows(history), talk.candidates(candidates)
    if not talk.is_prose:
        ranked = talk.ranked(seen, rows)
        return RecipeAnswer(talk.items([row for row, _ in ranked], [score for _, score in ranked]))
    start = np.random.default_rng(seed).permutation(rows)
    worth = dict.fromkeys(rows, 0.0)
    for shift in np.arange(passes) * len(rows) // passes:
        order = np.roll(start, -int(shift)).tolist()
        session = talk.open(question(talk, seen, order, prompt))
        if by == "list":
            for place, row in enumerate(talk.pick_items(session, order)):
                worth[row] += len(rows) - place
        else:
            scores = session.score([talk.title(row) for row in order])
            for row, score in zip(order, scores.sum.tolist(), strict=True):
                worth[row] += score / passes
    best = sorted(rows, key=lambda row: -worth[row])
    return RecipeAnswer(talk.items(best, [worth[row] for row in best]))


def question(text: CatalogText, history: Sequence[int], order: Sequence[int], prompt: RankPrompt) -> str:
    """The prompt of one pass, up to the first number of the ranking."""
    newest = text.title(history[-1]) if history else ""
    shown = history[:-1] if prompt == "in_context" else history
    parts = [f"A user chose these items, in this order:\n{text.shown(shown)}"]
    if prompt == "recency" and history:
        parts.append(f"Note that the most recent item is {newest}.")
    if prompt == "in_context" and history:
        parts.append(f"The right item to recommend was then {newest}. The user has chosen it now.")
    parts.append(f"There are {len(order)} candidates to choose next:\n{text.listed(order)}")
    parts.append("All candidates, ranked by how likely the user chooses them next, the likeliest first.\n1.")
    return "\n".join(parts)


PLACES = np.array([1.2 * np.exp(-place / 6) - 0.6 * (place > 16) for place in range(20)])
"""A bias for places in a list of twenty, in nats: the first are liked, the last are lost."""


def planted_worth(noise: float, user: int) -> tuple[Recommender, np.ndarray, list[ItemId]]:
    """A model with a preference of its own for twenty items (standard normal), a bias for places, and noise."""
    index = films()
    relevance = np.random.default_rng([1, user]).standard_normal(20)
    # A list is written token by token: titles that begin alike would be liked together.
    spoken = prose_text(index).vocabulary.answers(index.catalog.titles)
    first = {ids[0]: row for row, ids in reversed(list(enumerate(spoken)))}
    rows = sorted(first.values())[:20]
    titles = [index.catalog.titles[row] for row in rows]

    def says(before: str) -> dict[str, float]:
        listed = before[before.find("There are") :].split("\n")[1:21]
        order = [titles.index(line.split(". ", 1)[1]) for line in listed]
        noisy = np.random.default_rng([2, user, *order]).normal(0, noise, 20) if noise else np.zeros(20)
        return {
            titles[row]: float(np.exp(relevance[row] + PLACES[p] + noisy[p])) for p, row in enumerate(order)
        }

    return planted_recommender(index, says)[0], relevance, [index.catalog.item_ids[row] for row in rows]


def check(users: int = 24) -> list[Check]:
    """T0: a planted bias for places: two runs agree with three passes as they do not with one; m passes cancel it.

    The mean tau of so many users stands .013 around .74 (of 240): far enough from the threshold to mean something.
    """
    from scipy.stats import kendalltau  # half a second that no ranking needs

    tau: dict[int, list[float]] = {1: [], 3: []}
    for user in range(users):
        recommender, _, ids = planted_worth(0.3, user)
        for passes, found in tau.items():
            runs = [
                llm_rank(recommender, ids[:1], ids, passes=passes, seed=seed).ids
                for seed in (2 * user, 2 * user + 1)
            ]
            places = [[run.index(one) for one in ids] for run in runs]
            found.append(float(kendalltau(*places).statistic))
    recommender, relevance, ids = planted_worth(0.0, 0)
    answer = llm_rank(recommender, ids[:1], ids, passes=20, by="score")
    score = {item.item_id: item.score or 0.0 for item in answer.items}
    off = np.array([score[one] for one in ids]) - relevance
    agreement = {passes: float(np.mean(found)) for passes, found in tau.items()}
    return [
        Check("Kendall's tau between two runs, 3 passes", agreement[3], 0.70),
        Check("the same less that of 1 pass", agreement[3] - agreement[1], 0.15),
        Check("what is left of the bias after m passes, nats", float(np.ptp(off)), 1e-4, "<="),
    ]
