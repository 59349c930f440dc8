"""Narratives, after GNR (Gao et al. 2024, arXiv 2403.03424): a text for a user in which every mention is an item.

::

    answer = narrative(recommender, ["film-0003", "film-0006"], mentions=4)
    print(answer.text)       # … [The Shining](film-0008) …
    answer.ids               # the items in the order of their mentions

Faithful: a focal item (the recommender's first), up to four related ones that the model picks of the best N, a
theme for each, and a text over them in which each is cited, theme by theme, the focal item's first.

Different: free text flows until a ``[``, then only titles of that theme's items can follow; a paragraph cannot
end before each of its items is cited, and none twice. Themes are chosen among what the catalog says of an item
(its kinds: genres, attributes), not written, and a catalog without such a field has none. They order the text;
they do not change which items are found. Nothing is fine-tuned on narratives. A small model of compact prompts
writes no prose: its mentions stand in a skeleton of plain sentences, under the kind that most of the slate
share. A mention is what stands in brackets: what a model says between them is its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from genrec.grammars import Choice, Marked, Markup
from genrec.recipes.answers import RecipeAnswer, Said
from genrec.recipes.catalog_talk import LONG, CatalogTalk
from genrec.recipes.check import Check
from genrec.recipes.planted import films, planted_recommender
from genrec.recommender import Recommender
from genrec.text_search import Beams, Samples
from genrec.wishes import Wishes
from index.errors import RequestError
from index.types import ItemId

NEAREST = 20
"""N, the items that related ones are picked of."""
_SKELETON = ("You might begin with {0}.", "From there it is not far to {0}.", "Then there is {0}.")


def narrative(
    recommender: Recommender,
    history: Sequence[ItemId | int],
    *,
    mentions: int = 4,
    wishes: Wishes | None = None,
    words: int = 120,
    method: Beams | Samples | None = None,
) -> RecipeAnswer:
    """A text that mentions items, each once and each with its id.

    Args:
        recommender: retrieves the slate; its model picks and writes.
        history: item ids, oldest first.
        mentions: items in the text, the focal one included.
        wishes: what may be mentioned (filters, caps …).
        words: most tokens of the text beyond what its mentions take.
        method: how the text is found; None takes the most probable step each time.

    Raises:
        RequestError: mentions below 1, or nothing may be mentioned.
    """
    if mentions < 1:
        raise RequestError(f"expected mentions >= 1, got {mentions}")
    talk = CatalogTalk(recommender)
    seen = talk.rows(history)
    nearest = talk.candidates([talk.catalog.item_ids[row] for row in talk.retrieved(seen, NEAREST, wishes)])
    focal, others = nearest[0], _other_titles(talk, nearest)
    opening = f"A user chose these items, in this order:\n{talk.shown(seen)}\n"
    slate = [focal, *others[: mentions - 1]]
    if talk.is_prose and others and mentions > 1:
        talked = talk.open(
            f"{opening}A newsletter for the user is about {talk.title(focal)}. Items that go with it:\n"
            f"{talk.listed(others)}\nThe ones that belong into the same story, best first:\n1."
        )
        slate = [focal, *talk.pick_items(talked, others, mentions - 1)]
    themes = _themes(talk, opening, slate)
    paragraphs: list[str] = []
    cited: list[int] = []
    if talk.is_prose:
        writer = talk.open(
            f"{opening}A short newsletter for the user, about these items:\n{talk.listed(slate)}\nNewsletter:"
        )
    for theme, rows in themes.items():
        if not talk.is_prose:
            links = [_link(talk, row, talk.title(row)) for row in rows]
            parts = [_SKELETON[min(len(cited) + n, 2)].format(link) for n, link in enumerate(links)]
            text, named = " ".join(parts), rows
        else:
            if theme:
                writer.say(f"\nNow about {theme}:")
            allowed = talk.naming(rows)
            grammar = Markup(allowed.trie, allowed.allowed, must_cite=rows, cite_once=True)
            mentioned = sum(
                len(talk.title(row).encode()) + 8 for row in rows
            )  # tokens at most, marks included
            room = min(LONG, words // len(themes) + mentioned)
            text, named = _with_ids(talk, writer.pick(grammar, method, max_tokens=room).value)
        paragraphs.append(f"{theme}: {text.strip()}" if theme else text)
        cited += named
    said = (Said("related", tuple(map(talk.title, slate[1:]))), Said("themes", tuple(filter(None, themes))))
    return RecipeAnswer(talk.items(cited), said, "\n".join(paragraphs))


def _themes(talk: CatalogTalk, opening: str, slate: Sequence[int]) -> dict[str, list[int]]:
    """The slate by theme, in the order of their first items; the theme of an item without kinds says nothing."""
    shared = Counter(kind for row in slate for kind in talk.kinds[row])
    found: dict[str, list[int]] = {}
    for row in slate:
        kinds = list(talk.kinds[row])
        if len(kinds) > 1 and talk.is_prose:
            asked = talk.open(f"{opening}What {talk.title(row)} is to the user, of {', '.join(kinds)}:")
            theme = str(asked.pick(Choice(kinds)).value)
        else:
            theme = max(kinds, key=lambda kind: shared[kind], default="")
        found.setdefault(theme, []).append(row)
    return found


def _with_ids(talk: CatalogTalk, marked: Marked) -> tuple[str, list[int]]:
    """The text with an id behind every mention, and the rows mentioned."""
    text, end, cited = "", 0, []
    for mention in marked.mentions:
        text += marked.text[end : mention.start - 1] + _link(talk, mention.rows[0], mention.title)
        cited.append(mention.rows[0])
        end = mention.end + 1
    return text + marked.text[end:], cited


def _link(talk: CatalogTalk, row: int, title: str) -> str:
    return f"[{title}]({talk.catalog.item_ids[row]})"


def _other_titles(talk: CatalogTalk, nearest: Sequence[int]) -> list[int]:
    """All but the first, one of each title: two that read alike could not both be cited once."""
    kept: dict[str, int] = {}
    for row in nearest:
        kept.setdefault(talk.title(row), row)
    return [row for row in kept.values() if row != nearest[0]]


def check() -> list[Check]:
    """T0: a model that likes to end and names films at random: all of the slate is cited once, by ids that exist."""
    index = films()

    def says(before: str) -> dict[str, float]:
        return dict.fromkeys(index.catalog.titles[:40], 1.0) if before.endswith("1.") else {"a story of": 1.0}

    recommender, _ = planted_recommender(index, says)
    wrong = apart = 0
    kinds = index.catalog.frame["genres"].to_list()
    for first in range(0, 40, 8):
        answer = narrative(recommender, index.catalog.item_ids[first : first + 4], words=30)
        wrong += len(answer.items) != 4 or len(set(answer.ids)) != 4
        wrong += sum(answer.text.count(f"[{one.title}]({one.item_id})") != 1 for one in answer.items)
        wrong += answer.text.count("[") != 4
        themes = dict(line.split(": ", 1) for line in answer.text.split("\n"))
        apart += tuple(themes) != answer.said_at("themes")
        for theme, text in themes.items():
            named = [one for one in answer.items if f"({one.item_id})" in text]
            apart += sum(theme not in kinds[index.catalog.row_of(one.item_id) or 0] for one in named)
    return [
        Check("mentions outside the slate, missing or repeated", wrong, 0, "=="),
        Check("mentions under a theme that is not theirs", apart, 0, "=="),
    ]
