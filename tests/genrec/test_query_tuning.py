"""k1 and b of query mode: the pair that finds most, on the cases given and no others."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import polars as pl
import pytest

from genrec.evaluation import query_tuning
from genrec.evaluation.query_tuning import shortest, tune_bm25
from genrec.generated_queries import generated_query_mode
from genrec.modes import QueryMode, query_mode
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import ModelQueries
from genrec.recommender import Recommender
from genrec.speech import Speech, SpeechForm
from genrec.tasks import QueryDefaults
from genrec.vocabulary import TextVocabulary
from index.build import IndexSettings, build_index
from index.catalog import Catalog
from index.errors import RequestError
from index.histories import Cases
from index.item_index import ItemIndex
from tests.genrec.test_generated_queries import Told
from tests.genrec.test_query_search import Scripted


def cases_of(histories: list[list[int]], targets: list[int]) -> Cases:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in histories])]).astype(np.int64)
    flat = np.array([row for one in histories for row in one], np.int32)
    count = len(targets)
    return Cases(
        user=np.arange(count, dtype=np.int32),
        history=flat,
        history_offsets=offsets,
        target=np.array(targets, np.int32),
    )


@pytest.fixture(scope="module")
def index() -> ItemIndex:
    """A long title with the word, then fifty short ones: how much length counts decides who is found."""
    titles = ["Night of the very long winter in the garden", *(f"Night {number}" for number in range(50))]
    frame = pl.DataFrame({"item_id": [str(row) for row in range(len(titles))], "title": titles})
    return build_index(Catalog(frame), None, IndexSettings(text_encoder="tfidf", levels=1, codebook_size=8))


@pytest.fixture(scope="module")
def mode(index: ItemIndex) -> QueryMode:
    vocabulary = TextVocabulary.train(index.catalog.titles, 300)
    speech = Speech(index, SpeechForm("compact"), vocabulary)
    search = CatalogQuerySearch(ModelQueries(Scripted(vocabulary, ["night"]), speech), index.bm25)
    return query_mode(speech, search, QueryDefaults(queries=1, beam=2))


def test_the_pair_that_finds_most_is_chosen(index, mode) -> None:
    stages = []
    tuned = tune_bm25(
        mode, index, cases_of([[1], [2], [3]], [0, 0, 0]), progress=lambda *told: stages.append(told)
    )
    assert tuned.b == 0.0  # all lengths alike: the long title stands first, by its row
    assert tuned.k1 == 1.2  # which k1 makes no difference, so it stays
    assert (tuned.recall, tuned.built, tuned.users) == (1.0, 0.0, 3)
    assert {(one.k1, one.b) for one in tuned.tried if not one.context} == {
        (k1, b) for k1 in query_tuning.K1 for b in query_tuning.B
    }
    chosen = tuned.defaults(QueryDefaults(queries=7))
    assert (chosen.k1, chosen.b, chosen.context, chosen.queries) == (1.2, 0.0, 0, 7)
    assert QueryDefaults.from_dict(chosen.to_dict()) == chosen
    assert stages[0] == ("writing queries", 0, 3)
    assert stages[-1][1] == stages[-1][2]


def test_what_makes_no_difference_stays_as_it_was_built(index, mode) -> None:
    tuned = tune_bm25(mode, index, cases_of([[9]], [1]))
    assert (tuned.k1, tuned.b) == (1.2, 0.75)
    assert tuned.recall == tuned.built == 1.0


def test_an_item_of_the_history_is_not_counted_as_found(index, mode) -> None:
    assert tune_bm25(mode, index, cases_of([[1]], [1])).recall == 0.0


def test_so_many_users_are_looked_at(index, mode) -> None:
    with mock.patch.object(query_tuning, "USERS", 5):
        tuned = tune_bm25(mode, index, cases_of([[1]] * 20, [2] * 20), k1=[0.9], b=[0.5])
    assert tuned.users == 5
    assert [(one.k1, one.b, one.context) for one in tuned.tried] == [
        *((1.2, 0.75, items) for items in query_tuning.CONTEXT),
        (0.9, 0.5, 0),
    ]


def test_titles_of_the_history_stand_behind_a_query_where_they_help() -> None:
    """The model can only say "night"; which of a hundred nights, the last item's title knows."""
    titles = [f"Night {word}" for word in ("river", "train", "lamp")] + [
        f"River house {n}" for n in range(60)
    ]
    titles += [f"Night house {n}" for n in range(60)]
    frame = pl.DataFrame({"item_id": [str(row) for row in range(len(titles))], "title": titles})
    index = build_index(Catalog(frame), None, IndexSettings(text_encoder="tfidf", levels=1, codebook_size=8))
    vocabulary = TextVocabulary.train(titles, 300)
    search = CatalogQuerySearch(
        ModelQueries(Scripted(vocabulary, ["night"]), Speech(index, SpeechForm("compact"), vocabulary)),
        index.bm25,
    )
    mode = query_mode(
        Speech(index, SpeechForm("compact"), vocabulary), search, QueryDefaults(queries=1, beam=2)
    )
    # The newest item is "River house" 50 or 51; the target, far behind by "night" alone, "Night house" 50 or 51.
    cases = cases_of([[0, 53], [1, 54]], [113, 114])
    tuned = tune_bm25(mode, index, cases, k1=[1.2], b=[0.75], context=[0, 1])
    assert tuned.context == 1
    assert tuned.recall > tuned.built
    recommender = Recommender(index, modes={"query": replace(mode, defaults=tuned.defaults(mode.defaults))})
    answer = recommender.recommend(["0", "53"], k=3)
    assert answer.items[0].title == "Night house 50"
    assert answer.queries[0].text == "night"
    assert answer.queries[0].matched_terms == ("night",)  # its own words
    terms = {part.term for part in answer.items[0].matched_terms}
    assert terms == {"night", "hous", "50"}
    assert sum(part.score for part in answer.items[0].matched_terms) == pytest.approx(answer.items[0].score)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({0: [1, 0, 0, 0], 1: [0, 1, 0, 0]}, 0),  # as good
        ({0: [0, 0, 0, 0], 1: [1, 1, 1, 0], 2: [1, 1, 1, 0]}, 1),  # .75 more, the error is .22
        ({0: [0] * 16, 1: [1] + [0] * 15, 2: [1] * 8 + [0] * 8}, 2),  # .5 and .44 more
        ({0: [1] + [0] * 15, 1: [0, 1, 1] + [0] * 13}, 0),  # .06 more, the error is .11
        ({0: [0] * 16, 1: [1, 1] + [0] * 14}, 1),  # .12 more, the error is .08
    ],
)
def test_more_titles_stand_behind_queries_only_where_they_surely_help(found, chosen) -> None:
    assert shortest({items: np.array(one, float) for items, one in found.items()}) == chosen


def test_nothing_to_look_at_is_refused(index, mode) -> None:
    with pytest.raises(RequestError, match="expected validation cases"):
        tune_bm25(mode, index, cases_of([], []))


def test_queries_of_an_endpoint_are_tuned_alike(index) -> None:
    told = generated_query_mode(index, Told("night"), QueryDefaults(queries=1))
    assert tune_bm25(told, index, cases_of([[1]], [0])).b == 0.0
