"""Text modes over the toy catalog: its own vocabulary, a decoder without weights, queries without a model."""

from __future__ import annotations

from collections.abc import Sequence

from genrec.bundle_text import BundleText
from genrec.decoders.base import Items
from genrec.grounding import Query, ground, matched_terms
from genrec.modes import QueryMode, TrieMode, codes_mode, query_mode, title_mode
from genrec.queries import QueryRequest, QueryResult, UsedQuery
from genrec.recommender import Recommender
from genrec.speech import Speech, SpeechForm
from genrec.tasks import QueryDefaults, TaskDefaults
from genrec.vocabulary import TextVocabulary
from index.item_index import ItemIndex
from tests.fake_decoder import FakeDecoder

BEAM = 5


def toy_text(index: ItemIndex, size: int = 300, *, plan: bool = False) -> BundleText:
    """The text part of a bundle over an index; of a native model with ``plan``."""
    vocabulary = TextVocabulary.train(index.catalog.titles, size, plan=index.level_sizes if plan else ())
    return BundleText.of(index, vocabulary, SpeechForm("compact"))


def toy_title_mode(index: ItemIndex, text: BundleText, seed: int = 0) -> TrieMode:
    """A model that writes titles at random."""
    speech = Speech(index, text.form, text.vocabulary)
    return title_mode(speech, text.titles, FakeDecoder(text.vocabulary.size, seed), TaskDefaults(beam=BEAM))


def toy_recommender(index: ItemIndex, seed: int = 0) -> Recommender:
    """Codes, titles and queries of one catalog."""
    text = toy_text(index)
    return Recommender(
        index,
        modes={
            "semantic_id": codes_mode(
                index, FakeDecoder(sum(index.level_sizes), seed), TaskDefaults(beam=BEAM)
            ),
            "title": toy_title_mode(index, text, seed),
            "query": toy_query_mode(index, text),
        },
    )


class ToyQueries:
    """Queries that are the last words of the newest titles, and BM25 as the index has it."""

    def __init__(self, index: ItemIndex) -> None:
        self._index = index
        self.batches: list[int] = []  # requests of each call

    def search(self, requests: Sequence[QueryRequest]) -> list[QueryResult]:
        self.batches.append(len(requests))
        return [self._one(request) for request in requests]

    def _one(self, request: QueryRequest) -> QueryResult:
        (items, *_) = request.prompt
        assert isinstance(items, Items)
        titles = [self._index.catalog.titles[row] for row in items.rows[::-1].tolist()] or ["The river"]
        written = [Query(title.split()[-1], -1.0 - place) for place, title in enumerate(titles)]
        written = written[: request.queries]
        (found,) = ground([written], self._index.bm25, request.k, [request.allowed], [request.exclude])
        used = [
            UsedQuery(query.text, query.score, int((found.query == place).sum()), (query.text,))
            for place, query in enumerate(written)
        ]
        terms = tuple(matched_terms(found, written, self._index.bm25))
        scores = found.scores.astype(float)
        return QueryResult(found.rows, scores, found.query, terms, tuple(used), model_calls=1)


def toy_query_mode(index: ItemIndex, text: BundleText) -> QueryMode:
    """A model that writes what :class:`ToyQueries` does."""
    return query_mode(
        Speech(index, text.form, text.vocabulary), ToyQueries(index), QueryDefaults(beam=BEAM, queries=2)
    )
