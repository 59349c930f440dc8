"""GenRec (Ji et al. 2023, arXiv 2307.00457): titles of the history in, the title of the next item out.

::

    answer = gen_rec(recommender, ["film-0003", "film-0006"], k=10)
    gen_rec(recommender, history, constrained=False)     # the paper's way, kept as the baseline

Faithful: beam search over titles behind "titles chosen → the title of the next", 10 beams; the model is a
fine-tuned one (``genrec train --base`` for a language model; ``genrec train`` for a small one of its own).

Different: a beam walks the trie of titles, so that every one is an item. The paper writes freely and looks
titles up by exact comparison; ``constrained=False`` does that, and says what it wrote in vain under the step
``not in the catalog``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.grammars import Text
from genrec.grammars.planned import freely
from genrec.modes import TrieMode
from genrec.recipes.answers import NamedItem, RecipeAnswer, Said
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recommender import Recommender
from genrec.session import Session
from genrec.text_search import Beams
from genrec.vocabulary import one_line
from index.errors import RequestError
from index.types import ItemId

BEAMS = 10
TITLE_TOKENS = 64


def gen_rec(
    recommender: Recommender,
    history: Sequence[ItemId | int],
    *,
    k: int = 10,
    beam: int | None = None,
    constrained: bool = True,
) -> RecipeAnswer:
    """The k items whose titles the model holds most probable next.

    Args:
        recommender: with the mode ``title``.
        history: item ids, oldest first.
        k: items wanted; unconstrained there may be fewer.
        beam: beams; at least 10 and k where not given.
        constrained: hold titles to the catalog; False writes freely and drops what names no item.

    Raises:
        RequestError: the recommender writes no titles, or see :meth:`Recommender.recommend`.
    """
    mode = recommender.modes.get("title")
    if not isinstance(mode, TrieMode):
        raise RequestError(
            f"expected a model that writes titles (genrec train --tasks semantic_id,title), got one with "
            f"{', '.join(recommender.modes)}"
        )
    width = beam or max(BEAMS, k)
    if constrained:
        answer = recommender.recommend(history, k, mode="title", beam=width)
        return RecipeAnswer(tuple(NamedItem(one.item_id, one.title, one.score) for one in answer.items))
    rows = recommender.history_rows(history)
    prompt = mode.spec.prompt(mode.speech, np.asarray(rows, np.int64))
    vocabulary = mode.speech.vocabulary
    session = Session(mode.decoder, vocabulary, prompt)
    grammar = freely(Text(without="\n"), vocabulary)
    most = TITLE_TOKENS + len(vocabulary.facts.plan)
    written = session.propose(grammar, Beams(width), max_tokens=most)
    seen, catalog = set(rows.tolist()), recommender.index.catalog
    row_of = {one_line(title): row for row, title in reversed(list(enumerate(catalog.titles))) if title}
    gone = set(recommender.index.removed.tolist())
    items, unknown = [], []
    for text in written:
        row = row_of.get(text.value)
        if row is None or row in gone:
            unknown.append(str(text.value))
        elif row not in seen:
            items.append(NamedItem(catalog.item_ids[row], catalog.titles[row], text.score))
    return RecipeAnswer(tuple(items[:k]), (Said("not in the catalog", tuple(unknown)),))


def check() -> list[Check]:
    """T0: of what a model writes freely that misspells every other title some is no item; constrained, nothing is."""
    index = films()
    titles = index.catalog.titles

    def says(before: str) -> dict[str, float]:
        misspelt = [f"{title} Two" for title in titles[:60:2]]
        return dict.fromkeys(titles[1:60:2], 1.0) | dict.fromkeys(misspelt, 2.0)

    recommender, _ = planted_recommender(index, says)
    history = index.catalog.item_ids[100:103]
    free = gen_rec(recommender, history, constrained=False)
    held = gen_rec(recommender, history)
    wrong = len(free.said_at("not in the catalog"))
    invalid = sum(one not in set(index.catalog.item_ids) for one in held.ids)
    return [
        Check("titles of no item, written freely", wrong, 0, ">"),
        Check("titles of no item, constrained", invalid, 0, "=="),
        Check("items, constrained", len(held.items), 10, "=="),
    ]
