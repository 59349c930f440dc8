"""NIR, zero-shot next-item recommendation (Wang & Lim 2023, arXiv 2304.03153): three chained prompts.

::

    candidates = user_filtering(histories, rows, items=len(recommender.index.catalog))
    answer = nir(recommender, history, [recommender.index.catalog.item_ids[row] for row in candidates])
    answer.said_at("representatives"), answer.ids

Faithful: candidates by *user filtering* (the twelve most overlapping users, weighted by overlap, their items
summed, the best nineteen); one conversation: (1) preferences in a sentence, (2) at most five representative
watched items, (3) ten pairs "watched -> candidate"; the candidates stand in every prompt.

Different: (2) is a list of items of the history and (3) a form of pairs, so that nothing is parsed and no
answer stands outside the candidates. Each of the ten pairs names another candidate. A small model trained here
takes the items of the history that it holds most probable for representative, and ranks the candidates by its
own probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.grammars import Schema
from genrec.recipes.answers import RecipeAnswer, Said
from genrec.recipes.catalog_talk import LONG, CatalogTalk
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recommender import Recommender
from index.histories import Histories
from index.types import IntArray, ItemId

SHOWN = 8
REPRESENTATIVES = 5


def user_filtering(
    histories: Histories, history: IntArray | Sequence[int], *, items: int, users: int = 12, count: int = 19
) -> list[int]:
    """Candidate rows: what the most similar users chose, none of it seen.

    Args:
        histories: of all users, by which they are compared as sets.
        history: rows of the user.
        items: N.
        users: neighbours, the most overlapping.
        count: candidates wanted.
    """
    seen = np.zeros(items, bool)
    seen[np.asarray(history, np.int64)] = True
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    shared = seen[histories.items]
    pairs = np.unique(np.stack([user[shared], histories.items[shared].astype(np.int64)]), axis=1)
    overlap = np.bincount(pairs[0], minlength=len(histories)).astype(np.float64)
    nearest = np.argsort(-overlap, kind="stable")[:users]
    worth = np.zeros(items)
    for one in nearest.tolist():
        worth[np.unique(histories.events(one))] += overlap[one] / max(overlap[nearest].sum(), 1.0)
    worth[seen] = 0.0
    best = np.argsort(-worth, kind="stable")[:count]
    return [int(row) for row in best if worth[row] > 0]


def nir(
    recommender: Recommender,
    history: Sequence[ItemId | int],
    candidates: Sequence[ItemId],
    *,
    k: int = 10,
) -> RecipeAnswer:
    """The k best candidates, each beside the item of the history that speaks for it.

    Args:
        recommender: its model ranks.
        history: item ids, oldest first; at least one.
        candidates: item ids, of :func:`user_filtering` or any retriever.
        k: pairs.

    Raises:
        RequestError: no candidate is in the catalog, or all have been seen.
    """
    talk = CatalogTalk(recommender)
    seen = talk.rows(history)
    rows = talk.candidates(candidates, leave_out=seen)
    shown = list(dict.fromkeys(row for row in seen if talk.title(row)))[-SHOWN:]
    if not talk.is_prose or not shown:
        return _by_probability(talk, seen, shown, rows, k)
    talked = talk.open(
        f"Candidates:\n{talk.listed(rows)}\nThe user chose, in this order:\n{talk.listed(shown)}\n"
        "The features that matter most to the user, in a few words:"
    )
    preferences = talk.write(talked, 48)
    talked.say("\nThe chosen items that show these preferences best:\n1.")
    chosen = talk.pick_items(talked, shown, REPRESENTATIVES)
    talked.say("\nCandidates like the chosen items, each as chosen -> candidate:")
    pairs: list[tuple[int, int]] = []
    left = list(rows)
    while left and len(pairs) < k:
        talked.say(f"\n{len(pairs) + 1}.")
        form = Schema("{chosen} ->{candidate}", chosen=talk.naming(chosen), candidate=talk.naming(left))
        said = talked.pick(form, max_tokens=LONG).value
        pairs.append((said["chosen"][0], said["candidate"][0]))
        left = [row for row in left if row not in said["candidate"]]
    reasons = tuple(f"{talk.title(watched)} -> {talk.title(row)}" for watched, row in pairs)
    said_steps = (
        Said("preferences", (preferences,)),
        Said("representatives", tuple(map(talk.title, chosen))),
        Said("pairs", reasons),
    )
    return RecipeAnswer(talk.items([row for _, row in pairs]), said_steps, evidence=talk.items(chosen))


def _by_probability(
    talk: CatalogTalk, seen: Sequence[int], shown: Sequence[int], rows: Sequence[int], k: int
) -> RecipeAnswer:
    ranked = talk.ranked(seen, rows)[:k]
    chosen = [row for row, _ in talk.ranked(seen, shown)[:REPRESENTATIVES]] if shown else []
    items = talk.items([row for row, _ in ranked], [score for _, score in ranked])
    return RecipeAnswer(
        items, (Said("representatives", tuple(map(talk.title, chosen))),), evidence=talk.items(chosen)
    )


def check() -> list[Check]:
    """T0: user filtering is what its definition says; an oracle's pairs find the truth; nothing stands outside."""
    rng = np.random.default_rng(4)
    events = [rng.choice(40, rng.integers(3, 12), replace=False) for _ in range(30)]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in events])]).astype(np.int64)
    histories = Histories([str(u) for u in range(30)], offsets, np.concatenate(events).astype(np.int32))
    differing = 0
    for own in events:
        overlap = np.array([len(set(own) & set(other)) for other in events])
        nearest = sorted(range(30), key=lambda user: -overlap[user])[:12]
        total = sum(overlap[user] for user in nearest)
        worth = [sum(overlap[user] / total for user in nearest if row in events[user]) for row in range(40)]
        expected = sorted(
            (row for row in range(40) if row not in own and worth[row] > 0), key=lambda row: -worth[row]
        )
        found = user_filtering(histories, own, items=40)
        differing += not np.allclose([worth[row] for row in found], [worth[row] for row in expected[:19]])
    index = films()
    titles, ids = index.catalog.titles, index.catalog.item_ids
    recommender, _ = planted_recommender(index, lambda _: {**dict.fromkeys(titles, 1.0), titles[12]: 50.0})
    answer = nir(recommender, ids[:6], ids[6:25])
    outside = len(set(answer.ids) - set(ids[6:25])) + len(answer.ids) - len(set(answer.ids))
    return [
        Check("users whose candidates differ from the definition", differing, 0, "=="),
        Check("pairs outside the candidates, or a candidate twice", outside, 0, "=="),
        Check("pairs of an oracle that name the truth", answer.ids.count(ids[12]), 1, "=="),
    ]
