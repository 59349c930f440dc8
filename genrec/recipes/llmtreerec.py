"""LLMTreeRec (Zhang et al. 2024, arXiv 2404.00702): a model goes down a tree of categories to the items.

::

    tree = CategoryTree.of(recommender, ["kind", "genres"])
    answer = llm_tree_rec(recommender, ["film-0003"], tree=tree)
    answer.said_at("categories"), answer.ids

Faithful: one conversation: the interests in a sentence, the best five categories, the best five of their
subcategories, four items of each leaf; leaves of at most 50 items.

Different: every step is a choice among what exists, so that no name has to be guessed back. A leaf with more
items is split by the items' codes, so that each part holds like items, and named by three of them. The final
rerank for diversity is left out (``max_per`` of a recommender does it). ``genrec train --tasks tree`` teaches the
steps, which the paper asks for zero-shot. A small model trained here has no words
for categories: it goes by the probability of the best items below a node, found by one search of its own; that
shows the path, but saves nothing over recommending directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.grammars import Choice, Distinct
from genrec.recipes.answers import RecipeAnswer, Said
from genrec.recipes.catalog_talk import LONG, CatalogTalk
from genrec.recipes.catalog_text import CatalogText
from genrec.recommender import Recommender
from index.errors import RequestError
from index.types import ItemId

LEAF = 50
"""Most items of a leaf."""
BRANCHES = 5
"""Nodes kept of each level."""


@dataclass(frozen=True, slots=True)
class CategoryTree:
    """Items by category and subcategory."""

    leaves: dict[str, dict[str, tuple[int, ...]]]  # category → name of a leaf → catalog rows

    @classmethod
    def of(cls, recommender: Recommender, fields: Sequence[str], leaf: int = LEAF) -> CategoryTree:
        """From two catalog fields, or two places of one list field (the first value, and the last).

        Raises:
            RequestError: no such field, or not one or two.
        """
        frame = recommender.index.catalog.frame
        if not 1 <= len(fields) <= 2 or not set(fields) <= set(frame.columns):
            raise RequestError(f"expected one or two fields of {frame.columns[2:]}, got {list(fields)}")
        values = [frame[name].to_list() for name in fields]
        return cls.over(CatalogTalk(recommender), values[0], values[-1], leaf)

    @classmethod
    def over(
        cls, text: CatalogText, firsts: Sequence[object], lasts: Sequence[object], leaf: int = LEAF
    ) -> CategoryTree:
        """From the category and the subcategory of every row; of a list the first value, and the last."""
        tree: dict[str, dict[str, list[int]]] = {}
        for row in text.nameable():
            category, name = _value(firsts[row], 0), _value(lasts[row], -1)
            tree.setdefault(category, {}).setdefault(name, []).append(row)
        return cls({one: _split(text, below, leaf) for one, below in tree.items()})


def llm_tree_rec(
    recommender: Recommender,
    history: Sequence[ItemId | int],
    *,
    tree: CategoryTree,
    branches: int = BRANCHES,
    leaf_items: int = 4,
) -> RecipeAnswer:
    """The best items of the best leaves.

    Args:
        recommender: its model goes down the tree.
        history: item ids, oldest first; they are not recommended.
        tree: of categories.
        branches: nodes kept of each level.
        leaf_items: items of each leaf.

    Raises:
        RequestError: branches or leaf_items below 1.
    """
    if min(branches, leaf_items) < 1:
        raise RequestError(f"expected branches and leaf_items >= 1, got {branches} and {leaf_items}")
    talk = CatalogTalk(recommender)
    seen = talk.rows(history)
    open_leaves = {
        category: {name: left for name, rows in below.items() if (left := [r for r in rows if r not in seen])}
        for category, below in tree.leaves.items()
    }
    open_leaves = {category: below for category, below in open_leaves.items() if below}
    if not talk.is_prose:
        return _by_probability(talk, seen, open_leaves, branches, leaf_items)
    talked = talk.open(interests_question(talk, seen))
    interests = talk.write(talked, 48)

    def pick(what: str, names: Sequence[str]) -> list[str]:
        talked.say(options(what, names))
        grammar = Distinct(Choice(names), min(branches, len(names)), "\n{number}.")
        return list(talked.pick(grammar, max_tokens=LONG).value)

    categories = pick("Categories", list(open_leaves))
    below = {name: rows for one in categories for name, rows in open_leaves[one].items()}
    subcategories = pick("Subcategories", list(below))
    rows: list[int] = []
    for name in subcategories:
        told = talked.fork().say(leaf_question(talk, name, below[name]))
        rows += talk.pick_items(told, below[name], leaf_items)
    steps = (("interests", (interests,)), ("categories", categories), ("subcategories", subcategories))
    return RecipeAnswer(talk.items(rows), tuple(Said(step, tuple(values)) for step, values in steps))


def interests_question(text: CatalogText, seen: Sequence[int]) -> str:
    """What the conversation begins with."""
    return (
        f"A user chose these items, in this order:\n{text.shown(seen)}\nThe user's interests in a few words:"
    )


def options(what: str, names: Sequence[str]) -> str:
    """What is said next, about one level of the tree."""
    return f"\n{what} to choose from: {'; '.join(names)}\nThe best of them for the user, best first:\n1."


def leaf_question(text: CatalogText, name: str, rows: Sequence[int]) -> str:
    """What is said about the items of a leaf."""
    return f"\nItems of {name}:\n{text.listed(rows)}\nThe best of them:\n1."


def _by_probability(
    talk: CatalogTalk,
    seen: Sequence[int],
    leaves: dict[str, dict[str, list[int]]],
    branches: int,
    leaf_items: int,
) -> RecipeAnswer:
    """The tree by the probability of a node's items among the 200 most probable ones."""
    worth = dict(talk.scored(seen, 200))

    def mass(rows: Sequence[int]) -> float:
        return float(np.exp([worth[row] for row in rows if row in worth]).sum())

    def keep(nodes: dict[str, float]) -> list[str]:
        return sorted(nodes, key=lambda name: -nodes[name])[:branches]

    categories = keep(
        {one: mass([r for rows in below.values() for r in rows]) for one, below in leaves.items()}
    )
    below = {name: rows for one in categories for name, rows in leaves[one].items()}
    subcategories = keep({name: mass(rows) for name, rows in below.items()})
    ranked = [talk.ranked(seen, below[name])[:leaf_items] for name in subcategories]
    rows = [row for one in ranked for row, _ in one]
    scores = [score for one in ranked for _, score in one]
    said = (Said("categories", tuple(categories)), Said("subcategories", tuple(subcategories)))
    return RecipeAnswer(talk.items(rows, scores), said)


def _value(value: object, place: int) -> str:
    one = (value[place] if value else None) if isinstance(value, (list, tuple)) else value
    return str(one).strip() or "other" if one is not None else "other"


def _split(text: CatalogText, below: dict[str, list[int]], leaf: int) -> dict[str, tuple[int, ...]]:
    """Leaves of at most so many items, in the order of their codes."""
    result: dict[str, tuple[int, ...]] = {}
    for name, rows in below.items():
        ordered = sorted(rows, key=lambda row: int(text.index.trie.rank_of_item[row]))
        for start in range(0, len(ordered), leaf):
            part = ordered[start : start + leaf]
            label = name if len(ordered) <= leaf else f"{name} such as {', '.join(map(text.title, part[:3]))}"
            while label in result:
                label += " "
            result[label] = tuple(part)
    return result
