"""360Brew (Firooz et al. 2025, arXiv 2501.16450): one text interface for many ranking and recommendation tasks.

::

    task = BrewTask("Will the member like the item?", labels=("yes", "no"))
    past = [("film-0003", "yes"), ("film-0010", "no")]
    brew(recommender, task, past, ["film-0006"], profile="likes slow science fiction")[0].share_of("yes")

Faithful: one template for every task: the instruction, the member's profile in words, past interactions with
their labels in the order of time (many-shot in-context learning), the item in question; the answer is the
probability of each label.

Different: a task is data (:class:`BrewTask`), so a new one costs no code, and labels may be several tokens
long. The 150-billion-parameter model is not here: any language model that reads prose is asked as it is, or after
one round of the mixture (``genrec train --base DIR --lora --tasks brew_like,brew_next,brew_known,brew_kind``),
whose past items are up to sixteen, none among them. A small model of compact prompts reads no labels, and the
recipe says so instead of guessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.recipes.answers import NamedItem
from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.catalog_text import SHOWN_ITEMS, CatalogText
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recommender import Recommender
from genrec.session import score_all
from index.errors import RequestError
from index.types import ItemId


@dataclass(frozen=True, slots=True)
class BrewTask:
    """A question about an item, and the labels that answer it."""

    instruction: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """An item, and how probable each label is for it."""

    item: NamedItem
    shares: tuple[tuple[str, float], ...]  # they sum to one

    def share_of(self, label: str) -> float:
        """The probability of one label."""
        return dict(self.shares)[label]


TASKS = {
    "like": BrewTask("Will the member like the item?", ("yes", "no")),
    "rating": BrewTask("How will the member rate the item, from 1 to 5?", ("1", "2", "3", "4", "5")),
    "finish": BrewTask(
        "Will the member finish the item, leave it, or never start it?", ("finish", "leave", "ignore")
    ),
    "again": BrewTask("Will the member come back to the item?", ("again", "once")),
    "next": BrewTask("Is this well-known item the one the member chooses next?", ("next", "other")),
    "known": BrewTask("Do many members know the item, or few?", ("many", "few")),
    "kind": BrewTask("Is the item of the kind {kind}?", ("Yes", "No")),
}
"""Tasks to begin with; :func:`kind_task` says which kind the last one is about."""


def kind_task(kind: str) -> BrewTask:
    """Whether an item is of a kind."""
    task = TASKS["kind"]
    return BrewTask(task.instruction.replace("{kind}", kind), task.labels)


def brew(
    recommender: Recommender,
    task: BrewTask,
    past: Sequence[tuple[ItemId, str]],
    items: Sequence[ItemId],
    *,
    profile: str = "",
) -> list[Judged]:
    """The probability of every label for every item, in the order of the items.

    Args:
        recommender: its model reads prose.
        task: the question.
        past: (item id, label) of what is known, oldest first; the newest are shown.
        items: item ids to judge; those of no item are left out.
        profile: the member, in words.

    Raises:
        RequestError: a label that the task does not have, no known item, or a model of compact prompts.
    """
    strange = {label for _, label in past}.difference(task.labels)
    if strange or len(set(task.labels)) < 2:
        raise RequestError(f"expected labels among {task.labels}, at least two, got {sorted(strange)}")
    talk = CatalogTalk(recommender)
    known = [(row, label) for one, label in past for row in talk.rows([one])]
    rows = talk.candidates(items)
    sessions = [talk.open(question(talk, task, known, row, profile)) for row in rows]
    shares = [one.share.tolist() for one in score_all(sessions, task.labels)]
    return [
        Judged(item, tuple(zip(task.labels, own, strict=True)))
        for item, own in zip(talk.items(rows), shares, strict=True)
    ]


def question(
    text: CatalogText, task: BrewTask, past: Sequence[tuple[int, str]], row: int, profile: str = ""
) -> str:
    """The one template: the prompt about an item, up to the label."""
    lines = [f"{text.title(one)} -> {label}" for one, label in past[-SHOWN_ITEMS:]]
    return (
        f"{task.instruction}\nThe member: {' '.join(profile.split()) or 'nothing is known'}\n"
        f"Past items and answers:\n{chr(10).join(lines) or '(nothing yet)'}\n"
        f"The item in question:\n{text.title(row)} ->"
    )


def check() -> list[Check]:
    """T0: a model that learns in context (what shares a genre with a past item gets its label), asked four tasks."""
    index = films()
    ids, titles = index.catalog.item_ids, index.catalog.titles
    genres = dict(zip(titles, map(set, index.catalog.frame["genres"].to_list()), strict=True))

    def says(before: str) -> dict[str, float]:
        lines = [line.split(" -> ") for line in before.split("\n") if " -> " in line]
        asked = before[before.rfind("\n") + 1 : before.rfind(" ->")]
        task = next(one for one in TASKS.values() if before.startswith(one.instruction))
        votes = dict.fromkeys(task.labels, 1.0)
        for title, label in lines:
            votes[label] += 3.0 * len(genres[title] & genres[asked])
        return votes

    recommender, _ = planted_recommender(index, says)
    loved = [row for row in range(60) if "drama" in genres[titles[row]]]
    other = [row for row in range(60) if "drama" not in genres[titles[row]]]
    test = [*loved[-8:], *other[-8:]]

    def auc(task: BrewTask, shots: int) -> float:
        past = [
            (ids[row], task.labels[not is_first])
            for pair in zip(loved, other, strict=False)
            for row, is_first in zip(pair, (True, False), strict=True)
        ]
        judged = brew(recommender, task, past[:shots], [ids[row] for row in test])
        scores = [one.share_of(task.labels[0]) for one in judged]
        pairs = [(a, b) for a in scores[:8] for b in scores[8:]]
        return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))

    found = {name: [auc(task, shots) for shots in (0, 4, 16)] for name, task in TASKS.items()}
    return [
        Check("tasks asked by the one template", len(found), 4),
        Check("worst AUC of a task with 16 past items", min(one[2] for one in found.values()), 0.8),
        Check(
            "least gain in AUC from 0 to 16 past items",
            min(one[2] - one[0] for one in found.values()),
            0.0,
            ">",
        ),
    ]
