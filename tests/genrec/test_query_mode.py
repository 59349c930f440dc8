"""Query mode as a recommender offers it. How queries are written is not looked at here: a toy writes them."""

from __future__ import annotations

import pytest

from genrec.recommender import Recommender
from genrec.search import Diversity
from genrec.wishes import Wishes
from index.errors import RequestError
from index.maintenance import remove_items
from tests.toy import toy_index
from tests.toy_text import toy_query_mode, toy_recommender, toy_text


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return toy_recommender(toy_index())


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


def test_each_query_brings_its_share_and_says_why(recommender):
    answer = recommender.recommend(["i0", "i5"], k=4, mode="query")  # a comedy, then a drama
    assert ids(answer) == ["i1", "i9", "i4", "i8"]
    assert [item.generated for item in answer.items] == ["drama", "drama", "comedy", "comedy"]
    assert [query.text for query in answer.queries] == ["drama", "comedy"]
    assert [query.found for query in answer.queries] == [2, 2]
    for item in answer.items:
        assert sum(term.score for term in item.matched_terms) == pytest.approx(item.score, rel=1e-5)
        assert item.probability is None
    assert answer.certified == 0
    assert (answer.mode, answer.normalize, answer.beam) == ("query", "vocabulary", 5)


def test_filters_lists_and_seen_items(recommender):
    assert ids(recommender.recommend(["i1"], k=3, mode="query", where="year > 2000")) == ["i21", "i25", "i29"]
    assert ids(recommender.recommend(["i1"], k=9, mode="query", include=["i1", "i5", "i9"])) == ["i5", "i9"]
    assert ids(recommender.recommend(["i1"], k=1, mode="query", exclude=["i5"])) == ["i9"]
    assert ids(recommender.recommend(["i1"], k=1, mode="query", exclude_seen=False)) == ["i1"]
    few = recommender.recommend(["i1"], k=20, mode="query")
    assert "9 of 20 items: the queries find no others" in few.notes[0]


def test_removed_items_are_never_found(recommender):
    less = remove_items(recommender.index, ["i5"])
    asked = Recommender(less, modes={"query": toy_query_mode(less, toy_text(less))})
    assert ids(asked.recommend(["i1"], k=2)) == ["i9", "i13"]
    assert ids(asked.recommend(["i1"], k=2, where="year < 1990")) == ["i9"]


def test_a_batch_may_mix_all_modes(recommender):
    histories = [["i0", "i5"], ["i3"], ["i1"], ["i7"]]
    wishes = [
        Wishes(k=4, mode="query"),
        Wishes(k=3),
        Wishes(k=2, mode="query", queries=1),
        Wishes(mode="title"),
    ]
    queries = recommender.modes["query"].search
    queries.batches.clear()
    together = recommender.recommend_batch(histories, wishes)
    assert queries.batches == [2]  # both in one call
    for history, one, answer in zip(histories, wishes, together, strict=True):
        assert ids(answer) == ids(recommender.recommend_batch([history], one)[0])


def test_what_a_request_may_say_of_queries(recommender):
    one = recommender.recommend(["i0", "i5"], k=4, mode="query", queries=1)
    assert [query.text for query in one.queries] == ["drama"]
    (request,) = recommender._requests(
        [recommender.history_rows(["i0"])],
        [
            Wishes(
                mode="query",
                queries=9,
                constraint="catalog_ngrams",
                diversity=Diversity(3),
                exclude=["i7", "x"],
            )
        ],
    )
    assert (request.queries, request.beam, request.constraint) == (9, 9, "catalog_ngrams")
    assert request.diversity == Diversity(3)
    assert request.exclude.tolist() == [7, 0]
    assert request.allowed is None
    assert request.sample_seed is None


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"exact": True}, "expected exact search with a mode that searches the items themselves"),
        ({"max_per": {"genre": 1}}, "expected caps with a mode"),
        ({"synchronize": "token"}, "expected token-synchronous search with a mode"),
        ({"normalize": "catalog"}, "expected catalog scores with a mode"),
        ({"max_expansions": 3}, "expected a budget of expansions with a mode"),
        ({"queries": 0}, "expected queries >= 1, got 0"),
        ({"constraint": "rhyme"}, "one of free, catalog_ngrams, got 'rhyme'"),
        ({"sample": True, "diversity": Diversity(2)}, "diversity or sampling, got both"),
    ],
)
def test_what_queries_cannot_do_is_refused(recommender, wishes: dict[str, object], message: str):
    with pytest.raises(RequestError, match=message):
        recommender.recommend(["i1"], mode="query", **wishes)
    with pytest.raises(RequestError, match="expected priors with a mode"):
        recommender.recommend(["i1"], mode="query", prior=recommender.prior({"i1": 1.0}, 0.5))


def test_a_caller_that_walks_tries_is_told_so(recommender):
    with pytest.raises(RequestError, match="a mode that searches a trie, got 'query'"):
        recommender.requests([recommender.history_rows(["i1"])], Wishes(mode="query"))
