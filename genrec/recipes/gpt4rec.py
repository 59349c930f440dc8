"""GPT4Rec (Li et al. 2023, arXiv 2304.03879): the model writes search queries, BM25 finds the items.

::

    answer = gpt4_rec(recommender, ["film-0003", "film-0006"], k=10, queries=5)
    answer.said_at("queries")       # what the model takes the user to want: the explanation
    answer.ids

Faithful: m queries by beams from the history's titles (or codes), the K/m best unseen items of each by BM25, in
the order of the queries, none twice, refilled to K; k1 and b chosen on validation (``genrec tune``).

Different: ``constraint="catalog_ngrams"`` writes only words that stand together in the catalog, so that no
query finds nothing. The paper fine-tunes GPT-2; here any bundle with the mode ``query``, or any text generator
(:func:`genrec.generated_queries.generated_query_mode`, an endpoint included), writes them. A query is a title's
first words, not the whole title: what follows them (size, count) parts items that a search should find
together.
"""

from __future__ import annotations

from collections.abc import Sequence

from genrec.generated_queries import generated_query_mode
from genrec.recipes.answers import NamedItem, RecipeAnswer, Said
from genrec.recipes.catalog_talk import needs_query_mode
from genrec.recipes.check import Check
from genrec.recipes.planted import films
from genrec.recommender import Recommender
from genrec.tasks import QueryConstraint
from genrec.text_generator import GeneratedText
from index.types import ItemId


def gpt4_rec(
    recommender: Recommender,
    history: Sequence[ItemId | int],
    *,
    k: int = 10,
    queries: int | None = None,
    constraint: QueryConstraint | None = None,
) -> RecipeAnswer:
    """The k items that m written queries find.

    Args:
        recommender: with the mode ``query``.
        history: item ids, oldest first.
        k: items wanted.
        queries: m; the bundle's default where not given.
        constraint: ``"free"`` or ``"catalog_ngrams"``; the bundle's default.

    Raises:
        RequestError: the recommender writes no queries, or see :meth:`Recommender.recommend`.
    """
    needs_query_mode(recommender)
    answer = recommender.recommend(history, k, mode="query", queries=queries, constraint=constraint)
    return RecipeAnswer(
        items=tuple(NamedItem(one.item_id, one.title, one.score) for one in answer.items),
        said=(Said("queries", tuple(query.text for query in answer.queries)),),
    )


class _LastWords:
    """A text generator that writes the last words of the catalog's first titles: any queries do for the check."""

    def __init__(self, titles: Sequence[str]) -> None:
        self._words = [title.split()[-1] for title in titles]

    def generate(
        self,
        prompts: Sequence[str],
        n: int = 1,
        *,
        max_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
    ) -> list[list[GeneratedText]]:
        return [[GeneratedText(word, "stop") for word in self._words[:n]] for _ in prompts]


def check() -> list[Check]:
    """T0: for any m the answer is distinct, unseen and as long as the queries' hits allow."""
    index = films()
    titles, ids = index.catalog.titles, index.catalog.item_ids
    mode = generated_query_mode(index, _LastWords(titles))
    recommender = Recommender(index, modes={"query": mode})
    bad = 0
    for m in (1, 2, 5, 10):
        queries = [title.split()[-1] for title in titles[:m]]
        hits = {ids[row] for found in index.bm25.search(queries, len(ids)) for row in found.rows.tolist()}
        for k in (1, 3, 10):
            answer = gpt4_rec(recommender, ids[:3], k=k, queries=m).ids
            bad += len(answer) != min(k, len(hits - set(ids[:3])))
            bad += len(set(answer)) != len(answer) or bool(set(answer) & set(ids[:3]))
    return [Check("answers with a repeated, a seen or a missing item, m = 1, 2, 5, 10", bad, 0, "==")]
