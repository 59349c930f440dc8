"""Query mode with any text generator: a model behind an endpoint writes the queries, and no model is needed here.

::

    endpoint = OpenAiGenerator("my-model")
    recommender = Recommender(index, modes={"query": generated_query_mode(index, endpoint)})
    recommender.recommend(["1", "32", "50"], k=10)

A prompt lists the titles of the history; m queries are the m most frequent of its completions, by their words.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from genrec.decoders.base import Items, Prompt
from genrec.modes import QueryMode
from genrec.queries import QueryRequest
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import WrittenQuery
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TASKS, QueryDefaults
from genrec.text_generator import TextGenerator
from genrec.vocabulary import one_line
from index.bm25.analyzer import analyze
from index.errors import RequestError
from index.item_index import ItemIndex
from index.types import Int64Array

PromptText: TypeAlias = Callable[[Sequence[str]], str]
"""Titles of a history, oldest first, to what the generator reads."""

MAX_ITEMS = 20
"""Items of a history that are shown, the newest."""
MAX_TOKENS = 32
"""Of a query."""


def query_prompt(titles: Sequence[str]) -> str:
    """What an instructed model is asked; a plain one goes on behind it as well."""
    shown = [TASKS["query"].opening, *(f"- {title}" for title in titles)] if titles else []
    closing = "One short search query, and nothing else, that finds the item this user will choose next:"
    return "\n".join([*shown, closing])


class GeneratorQueries:
    """Queries from a text generator; see :class:`genrec.query_writers.QueryWriter`.

    Args:
        generator: asked for m completions of each prompt.
        titles: N, in row order.
        prompt: from titles to what it reads.
        temperature: of the completions; with 0 they are all the same, and m is 1.
    """

    finds_always = False

    def __init__(
        self,
        generator: TextGenerator,
        titles: Sequence[str],
        prompt: PromptText = query_prompt,
        temperature: float = 1.0,
    ) -> None:
        self._generator = generator
        self._titles = titles
        self._prompt = prompt
        self._temperature = temperature
        self._calls = 0

    @property
    def calls(self) -> int:
        """Batches that the generator was asked for so far."""
        return self._calls

    def write(
        self, requests: Sequence[QueryRequest], found: Sequence[Int64Array]
    ) -> list[list[WrittenQuery]]:
        """See :meth:`genrec.query_writers.QueryWriter.write`."""
        for request in requests:
            if request.constraint != "free" or request.diversity is not None:
                raise RequestError(
                    "expected free queries of a text generator, which nothing here can hold to n-grams or keep "
                    f"apart, got constraint={request.constraint!r}, diversity={request.diversity}; leave them out"
                )
        queries: list[list[WrittenQuery]] = [[] for _ in requests]
        by_number: dict[int, list[int]] = {}
        for place, request in enumerate(requests):
            by_number.setdefault(request.queries, []).append(place)
        for number, places in by_number.items():
            self._calls += 1
            texts = self._generator.generate(
                [self._prompt(self._shown(requests[place].prompt)) for place in places],
                number,
                max_tokens=MAX_TOKENS,
                temperature=self._temperature,
                stop=["\n"],
            )
            for place, own in zip(places, texts, strict=True):
                queries[place] = _most_frequent([one.text for one in own])
        return queries

    def _shown(self, prompt: Prompt) -> list[str]:
        rows = [row for part in prompt if isinstance(part, Items) for row in part.rows.tolist()]
        lines = [one_line(self._titles[row]) for row in rows[-MAX_ITEMS:]]
        return [line for line in lines if line]


def _most_frequent(texts: Sequence[str]) -> list[WrittenQuery]:
    """Texts of different words; what was written often counts as probable, the first of its spellings is shown."""
    words = [tuple(sorted(terms)) for terms in analyze(texts)]
    count = Counter(one for one in words if one)
    scores = {one: math.log(number / len(texts)) for one, number in count.items()}
    return [
        WrittenQuery(texts[words.index(one)], scores[one], scores[one])
        for one in sorted(scores, key=lambda one: (-scores[one], words.index(one)))
    ]


def generated_query_mode(
    index: ItemIndex,
    generator: TextGenerator,
    defaults: QueryDefaults | None = None,
    prompt: PromptText = query_prompt,
    temperature: float = 1.0,
) -> QueryMode:
    """The query mode of a text generator over an index.

    Args:
        index: the items.
        generator: writes the queries.
        defaults: m, and ``k1`` and ``b`` of BM25 where they are not those of the index.
        prompt: see :class:`GeneratorQueries`.
        temperature: see there.
    """
    defaults = defaults or QueryDefaults()
    search = CatalogQuerySearch(
        GeneratorQueries(generator, index.catalog.titles, prompt, temperature),
        index.bm25_scored_by(defaults.k1, defaults.b),
    )
    # Without a mark a prompt is the history's rows: whose text is made here.
    spec = replace(TASKS["query"], mark=None)
    return QueryMode(spec, Speech(index, SpeechForm("compact")), search, index.rules, defaults)
