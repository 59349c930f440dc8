"""Wishes: one for all or one each, resolved against the bundle's defaults, refused where they make no sense."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest

import genrec
from genrec.prior import Prior
from genrec.recommender import Recommendation, Recommender
from genrec.search import Diversity, search
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes, resolve
from index.errors import FilterError, RequestError
from tests.fake_decoder import FakeDecoder
from tests.toy import toy_index

DEFAULTS = TaskDefaults(normalize="vocabulary", beam=7)


class CountingDecoder(FakeDecoder):
    """Counts searches: each begins with one prefill."""

    prefills = 0

    def prefill(self, prompts):
        self.prefills += 1
        return super().prefill(prompts)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    index = toy_index()
    return Recommender(index, CountingDecoder(sum(index.level_sizes)), TaskDefaults(beam=5))


def assert_same(one: Recommendation, other: Recommendation) -> None:
    assert [i.item_id for i in one.items] == [i.item_id for i in other.items]
    assert [i.score for i in one.items] == pytest.approx([i.score for i in other.items], abs=1e-5)
    for field in ("certified", "unknown_ids", "notes", "normalize", "beam"):
        assert getattr(one, field) == getattr(other, field)


def test_every_wish_is_a_keyword_of_recommend_with_the_same_default():
    keywords = inspect.signature(Recommender.recommend).parameters
    for field in fields(Wishes):
        default = () if field.name == "exclude" else field.default
        assert keywords[field.name].default == default, field.name
        assert keywords[field.name].annotation == field.type, field.name
    assert set(keywords) == {"self", "history"} | {field.name for field in fields(Wishes)}


def test_wishes_are_frozen_and_named():
    assert genrec.Wishes is Wishes
    with pytest.raises(FrozenInstanceError):
        Wishes().k = 3
    with pytest.raises(TypeError):
        Wishes(3)


def test_what_is_left_open_takes_the_defaults():
    assert resolve(Wishes(), DEFAULTS) == Wishes(beam=10, normalize="vocabulary")  # never below k
    assert resolve(Wishes(k=3), DEFAULTS) == Wishes(k=3, beam=7, normalize="vocabulary")
    chosen = Wishes(k=3, beam=20, normalize="catalog")
    assert resolve(chosen, DEFAULTS) == chosen


def additive() -> Prior:
    return Prior([1.0, 2.0], 1.0, "additive")


def mixture() -> Prior:
    return Prior([1.0, 2.0], 0.5)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(k=0), "expected k >= 1 and beam >= 1, got k=0"),
        (Wishes(beam=0), "got k=10, beam=0"),
        (Wishes(max_expansions=0), "max_expansions >= 1, got 0"),
        (Wishes(normalize="sum"), "one of catalog, vocabulary, got 'sum'"),
        (Wishes(synchronize="word"), "one of leaf, token, got 'word'"),
        (Wishes(synchronize="token", exact=True), "exact search to be leaf-synchronous"),
        (Wishes(synchronize="token", max_per={"genre": 1}), "caps to be leaf-synchronous"),
        (Wishes(synchronize="token", sample=True), "sampling to be leaf-synchronous"),
        (Wishes(synchronize="token", prior=mixture()), "priors to be leaf-synchronous"),
        (Wishes(synchronize="token", diversity=Diversity(2)), "diverse search to be leaf-synchronous"),
        (Wishes(diversity=Diversity(2), exact=True), "diversity or exact search, got both"),
        (Wishes(diversity=Diversity(2), max_per={"genre": 1}), "diversity or caps, got both"),
        (Wishes(normalize="vocabulary", sample=True), "catalog scores for a sample"),
        (Wishes(normalize="vocabulary", prior=mixture()), "catalog scores for a mixture prior"),
        (Wishes(normalize="catalog", sample=True, prior=additive()), "expected a mixture prior for a sample"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(wishes, message):
    with pytest.raises(RequestError, match=message):
        resolve(wishes, DEFAULTS)


def test_each_history_may_have_its_own_wishes(recommender):
    histories = [["i1"], [], ["i3", "i9", "nobody"], ["i4"], ["i5"]]
    wishes = [
        Wishes(k=3, where='genre == "western"'),
        Wishes(k=6, normalize="vocabulary"),
        Wishes(k=4, exclude_seen=False, include=["i3", "i9", "i5"]),
        Wishes(k=5, synchronize="token"),
        Wishes(k=2, exact=True, max_per={"genre": 1}, exclude=["i6"]),
    ]
    recommender.decoder.prefills = 0
    together = recommender.recommend_batch(histories, wishes)
    assert recommender.decoder.prefills == 3  # one search per normalisation and synchronisation asked for
    for history, one, answer in zip(histories, wishes, together, strict=True):
        assert_same(
            answer, recommender.recommend(history, **{f.name: getattr(one, f.name) for f in fields(one)})
        )


def test_one_for_all_is_the_same_as_the_same_for_each(recommender):
    histories, one = [["i1"], ["i2"], []], Wishes(k=4, where="year > 1985", max_per={"genre": 2})
    for shared, each in zip(
        recommender.recommend_batch(histories, one),
        recommender.recommend_batch(histories, [one] * 3),
        strict=True,
    ):
        assert_same(shared, each)
    assert recommender.recommend_batch([], one) == []
    assert recommender.recommend_batch([], []) == []
    with pytest.raises(RequestError, match="one per history, 3, got 2"):
        recommender.recommend_batch(histories, [one] * 2)


def test_nothing_is_searched_where_one_of_many_is_refused(recommender):
    recommender.decoder.prefills = 0
    with pytest.raises(FilterError, match="got 'colour'"):
        recommender.recommend_batch([["i1"], ["i2"]], [Wishes(), Wishes(where="colour == 'red'")])
    with pytest.raises(RequestError, match="k >= 1"):
        recommender.recommend_batch([["i1"], ["i2"]], [Wishes(normalize="vocabulary"), Wishes(k=0)])
    assert recommender.decoder.prefills == 0


def test_whoever_runs_the_search_gets_the_same_answer(recommender):
    histories = [["i1", "nobody"], ["i7", "i3"]]
    wishes = [Wishes(k=3), Wishes(k=5, where="year < 2000")]
    rows = [recommender.history_rows(history) for history in histories]
    assert [one.tolist() for one in rows] == [[1], [7, 3]]
    results = search(recommender.decoder, recommender.index.trie, recommender.requests(rows, wishes))
    for history, one, result in zip(histories, wishes, results, strict=True):
        expected = recommender.recommend(history, one.k, where=one.where)
        assert_same(recommender.recommendation(history, one, result), expected)


def test_caps_are_made_once_for_requests_that_share_their_wishes(recommender):
    rows = [recommender.history_rows([f"i{one}"]) for one in range(3)]
    first, *others = recommender.requests(rows, Wishes(max_per={"genre": 1}))
    assert all(one.caps is first.caps for one in others)
    seen = {int(one.allowed.excluded[0]) for one in (first, *others)}
    assert seen == set(recommender.index.trie.rank_of_item[:3].tolist())
