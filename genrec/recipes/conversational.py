"""Zero-shot conversational recommendation (He et al. 2023, arXiv 2308.10053): a dialog in, twenty titles out.

::

    zero_shot_crs(recommender, ["User: I loved The Godfather and Barry Lyndon.", "System: And older ones?"]).ids

Faithful: the dialog is the whole prompt, the most probable list is taken, and items that were mentioned already
do not count: repeating them is a shortcut that makes evaluations look good.

Different: mentioned items are left out inside the search and titles are held to the catalog, so that no
post-filter and no edit distance is needed. A small model trained here reads the mentioned items as its history.
"""

from __future__ import annotations

from collections.abc import Sequence

from genrec.recipes.answers import RecipeAnswer, Said
from genrec.recipes.catalog_talk import CatalogTalk
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recipes.user_words import mentioned_rows
from genrec.recommender import Recommender
from genrec.wishes import Wishes


def zero_shot_crs(recommender: Recommender, dialog: Sequence[str], *, k: int = 20) -> RecipeAnswer:
    """The k best items for a dialog, none of which it mentions.

    Args:
        recommender: its model reads the dialog.
        dialog: turns, the first first, each with who speaks in front.
        k: items wanted.
    """
    talk = CatalogTalk(recommender)
    mentioned = mentioned_rows(talk.index, talk.index.titles(), "\n".join(dialog))
    said = (Said("mentioned", tuple(map(talk.title, mentioned))),)
    if not talk.is_prose:
        return RecipeAnswer(talk.items(talk.retrieved(mentioned, k, Wishes(k=k))), said)
    gone = set(mentioned)
    rows = [row for row in talk.nameable() if row not in gone]
    session = talk.open(
        "\n".join([*dialog, f"{k} titles to recommend now, the best first, none named above:\n1."])
    )
    return RecipeAnswer(talk.items(talk.pick_items(session, rows, k)), said)


def check() -> list[Check]:
    """T0: a model that would only repeat what was mentioned and make titles up: it can do neither."""
    index = films()
    titles, ids = index.catalog.titles, index.catalog.item_ids

    def says(before: str) -> dict[str, float]:
        mentioned = {title: 5.0 for title in titles[:6] if title in before}
        return {**dict.fromkeys(titles[:40], 1.0), **mentioned, "A Film Nobody Made": 9.0}

    recommender, _ = planted_recommender(index, says)
    unknown = repeated = missing = 0
    for first in range(0, 6, 2):
        dialog = [f"User: I loved {titles[first]}, and {titles[first + 1]}!", "System: Say more."]
        answer = zero_shot_crs(recommender, dialog, k=10)
        unknown += len(set(answer.ids) - set(ids))
        repeated += (
            len({ids[first], ids[first + 1]} & set(answer.ids)) + len(answer.ids) - len(set(answer.ids))
        )
        missing += 10 - len(answer.ids)
    return [
        Check("titles of no item", unknown, 0, "=="),
        Check("items mentioned before, or named twice", repeated, 0, "=="),
        Check("items missing of the list", missing, 0, "=="),
    ]
