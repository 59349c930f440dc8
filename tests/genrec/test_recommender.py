from __future__ import annotations

import numpy as np
import pytest

from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes
from index.errors import FilterError, IndexFormatError, RequestError
from tests.fake_decoder import FakeDecoder
from tests.toy import ITEMS, toy_index


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    index = toy_index()
    return Recommender(index, FakeDecoder(sum(index.level_sizes)), TaskDefaults(beam=5))


def test_every_answer_is_an_item_and_seen_ones_are_left_out(recommender):
    history = ["i3", "i7", "i11"]
    answer = recommender.recommend(history, k=10)
    ids = [item.item_id for item in answer.items]
    assert len(set(ids)) == 10
    assert set(ids) <= set(recommender.index.catalog.item_ids) - set(history)
    assert [item.rank for item in answer.items] == list(range(1, 11))
    assert [item.score for item in answer.items] == sorted(
        (item.score for item in answer.items), reverse=True
    )
    for item in answer.items:
        assert recommender.index.catalog.titles[recommender.index.catalog.row_of(item.item_id)] == item.title
        assert item.probability == pytest.approx(np.exp(item.score))


def test_seen_items_can_be_allowed(recommender):
    answer = recommender.recommend(["i3"], k=ITEMS, exclude_seen=False)
    assert len(answer.items) == ITEMS
    assert sum(item.probability for item in answer.items) == pytest.approx(1, abs=1e-5)


def test_vocabulary_scores_are_no_share_of_the_catalog(recommender):
    answer = recommender.recommend(["i3"], normalize="vocabulary")
    assert {item.probability for item in answer.items} == {None}


def test_unknown_ids_are_reported_once_and_not_used(recommender):
    with_unknown = recommender.recommend(["i3", "nobody", "i7", "nobody"])
    without = recommender.recommend(["i3", "i7"])
    assert with_unknown.unknown_ids == ("nobody",)
    assert with_unknown.items == without.items


def test_an_empty_history_works_and_says_so(recommender):
    answer = recommender.recommend([], k=3)
    assert len(answer.items) == 3
    assert "empty history" in answer.notes[0]
    assert "no known item" in recommender.recommend(["nobody"], k=3).notes[0]
    assert recommender.recommend(["i1"], k=3).notes == ()


def test_fewer_answers_than_asked_say_so(recommender):
    answer = recommender.recommend(["i3"], k=100)
    assert len(answer.items) == ITEMS - 1
    assert f"{ITEMS - 1} of 100 items" in answer.notes[0]


def test_filters_and_lists_act_inside_the_search(recommender):
    by_id = dict(
        zip(recommender.index.catalog.item_ids, recommender.index.catalog.frame["genre"], strict=True)
    )
    answer = recommender.recommend(["i3"], k=10, where='genre == "western" and year >= 1990', exclude=["i11"])
    assert {by_id[item.item_id] for item in answer.items} == {"western"}
    assert len(answer.items) == 7  # westerns are i3, i7 … i39; i11 … i39 are from 1990 on; i11 is excluded
    only = recommender.recommend(["i3"], include=["i1", "i3", "i5", "nobody"])
    assert {item.item_id for item in only.items} == {"i1", "i5"}
    with pytest.raises(FilterError, match="got 'colour'"):
        recommender.recommend(["i3"], where="colour == 'red'")


def test_exact_answers_are_proven(recommender):
    everything = recommender.recommend(["i3"], k=ITEMS)
    exact = recommender.recommend(["i3"], k=7, beam=2, exact=True)
    assert exact.certified == 7
    assert [i.item_id for i in exact.items] == [i.item_id for i in everything.items[:7]]
    budget = recommender.recommend(["i3"], k=7, beam=1, exact=True, max_expansions=1)
    assert len(budget.items) == 7
    assert budget.certified < 7
    assert "the budget ended" in budget.notes[0]


def test_a_batch_answers_each_history_as_alone(recommender):
    histories = [["i1"], [], ["i3", "i9", "nobody"]]
    together = recommender.recommend_batch(histories, Wishes(k=4))
    for history, answer in zip(histories, together, strict=True):
        alone = recommender.recommend(history, k=4)
        assert [i.item_id for i in alone.items] == [i.item_id for i in answer.items]
        assert (alone.unknown_ids, alone.notes, alone.certified) == (
            answer.unknown_ids,
            answer.notes,
            answer.certified,
        )


def test_integer_ids_are_taken_as_written(recommender):
    assert recommender.recommend([3, 4]).unknown_ids == ("3", "4")


def test_bad_requests_are_refused(recommender):
    with pytest.raises(RequestError, match="single string 'i3'"):
        recommender.recommend("i3")
    with pytest.raises(RequestError, match="k >= 1"):
        recommender.recommend(["i3"], k=0)


def test_a_directory_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(IndexFormatError, match="make one with"):
        Recommender.load(tmp_path)
    toy_index().save(tmp_path / "toy.index")
    with pytest.raises(IndexFormatError, match="kind 'bundle', got kind 'index'"):
        Recommender.load(tmp_path / "toy.index")
