"""Queries become items: shares, refills and what must never come back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.grounding import Grounded, Query, ground, matched_terms
from index.bm25.bm25s_index import Bm25sIndex
from index.errors import RequestError

CREAMS = [
    "Day Cream",  # 0
    "Night Cream",  # 1
    "Hand Cream",  # 2
    "Foot Cream",  # 3
    "Night Lamp",  # 4
    "Desk Lamp",  # 5
    "",  # 6: an item without a word is never found
]


def of(*texts: str) -> list[Query]:
    """Queries in falling order of score."""
    return [Query(text, -float(place)) for place, text in enumerate(texts)]


def grounded(
    queries: list[Query], k: int, exclude: Sequence[int] = (), only: Sequence[int] | None = None
) -> Grounded:
    mask = None if only is None else np.isin(np.arange(len(CREAMS)), list(only))
    bm25 = Bm25sIndex.build(CREAMS)
    (result,) = ground([queries], bm25, k, [mask], [np.array(exclude, np.int64)])
    return result


def test_each_query_fills_its_share_in_order() -> None:
    result = grounded(of("lamp", "cream"), 4)
    assert result.rows.tolist() == [4, 5, 0, 1]
    assert result.query.tolist() == [0, 0, 1, 1]
    assert result.shared == 4


def test_the_better_query_speaks_first_whatever_the_order_given() -> None:
    result = grounded([Query("cream", -2.0), Query("lamp", -1.0)], 4)
    assert result.rows.tolist() == [4, 5, 0, 1]
    assert result.query.tolist() == [1, 1, 0, 0]  # places in the list that was given


def test_a_place_that_does_not_divide_goes_to_the_better_query() -> None:
    assert grounded(of("cream", "lamp"), 3).query.tolist() == [0, 0, 1]
    assert grounded(of("cream", "lamp"), 1).query.tolist() == [0]


def test_what_an_earlier_query_brought_is_passed_over() -> None:
    # "night" finds 1 and 4, "cream" 0 to 3: the second query's share is its best two others.
    result = grounded(of("night", "cream"), 4)
    assert result.rows.tolist() == [1, 4, 0, 2]
    assert result.query.tolist() == [0, 0, 1, 1]


def test_a_short_query_leaves_its_places_to_the_others() -> None:
    # "desk" has one hit of its share of two; the place left over is refilled at the end, by "cream".
    result = grounded(of("desk", "cream"), 4)
    assert result.rows.tolist() == [5, 0, 1, 2]
    assert result.query.tolist() == [0, 1, 1, 1]
    assert result.shared == 3


def test_a_query_without_a_hit_costs_nothing() -> None:
    assert grounded(of("submarine", "", "the", "cream"), 4).rows.tolist() == [0, 1, 2, 3]


def test_nothing_is_made_up_where_the_queries_match_less() -> None:
    assert grounded(of("lamp"), 7).rows.tolist() == [4, 5]
    assert grounded(of("submarine"), 3).rows.tolist() == []
    assert grounded([], 3).rows.tolist() == []
    assert grounded([], 3).shared == 0


def test_history_and_filter_act_inside_retrieval() -> None:
    # Without 0 and 1 the best two creams are 2 and 3; they are not lost to a cut made before the filter.
    assert grounded(of("cream"), 2, exclude=[0, 1]).rows.tolist() == [2, 3]
    assert grounded(of("cream", "lamp"), 4, only=[3, 5]).rows.tolist() == [3, 5]


def test_terms_say_why_an_item_came() -> None:
    queries = of("night lamp", "creams for the hand")
    result = grounded(queries, 2)
    assert result.rows.tolist() == [4, 2]
    first, second = matched_terms(result, queries, Bm25sIndex.build(CREAMS))
    assert {part.term for part in first} == {"night", "lamp"}
    assert [part.term for part in second] == ["hand", "cream"]  # the rarer term says more
    assert sum(part.score for part in first) == pytest.approx(result.scores[0])


def test_users_do_not_mix() -> None:
    bm25 = Bm25sIndex.build(CREAMS)
    lists = [of("lamp"), [], of("cream", "night")]
    each = [ground([own], bm25, k)[0] for own, k in zip(lists, (1, 2, 4), strict=True)]
    together = ground(lists, bm25, [1, 2, 4])
    assert [one.rows.tolist() for one in together] == [one.rows.tolist() for one in each]


WORDS = ["red", "blue", "green", "gold", "the"]
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)


@settings(deadline=None, max_examples=200)
@given(
    catalog=st.lists(texts, min_size=1, max_size=12),
    queries=st.lists(texts, max_size=5),
    k=st.integers(1, 15),
    data=st.data(),
)
def test_answers_are_distinct_allowed_and_as_long_as_can_be(
    catalog: list[str], queries: list[str], k: int, data: st.DataObject
) -> None:
    rows = st.integers(0, len(catalog) - 1)
    seen = data.draw(st.lists(rows, max_size=4))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(catalog), max_size=len(catalog))))
    bm25 = Bm25sIndex.build(catalog)
    own = of(*queries)
    (result,) = ground([own], bm25, k, [mask], [np.array(seen, np.int64)])
    every = bm25.search(queries, len(catalog), [np.array(seen, np.int64)] * len(own), [mask] * len(own))
    reachable = {row for hits in every for row in hits.rows.tolist()}
    found = result.rows.tolist()
    assert len(set(found)) == len(found) == min(k, len(reachable))
    assert set(found) <= reachable
    assert (np.diff(result.query[: result.shared]) >= 0).all()  # beam order
    for row, score, place in zip(found, result.scores.tolist(), result.query.tolist(), strict=True):
        hits = every[place]
        assert score == pytest.approx(float(hits.scores[hits.rows.tolist().index(row)]))
    # Within a query items come best first, and nobody takes more than a fair share while another waits.
    for place in range(len(own)):
        order = [
            every[place].rows.tolist().index(row)
            for row, one in zip(found, result.query, strict=True)
            if one == place
        ]
        assert order == sorted(order)
    speaking = sum(len(hits.rows) > 0 for hits in every)
    counts = np.bincount(result.query[: result.shared], minlength=1)
    assert counts.max(initial=0) <= -(-k // max(speaking, 1))


def test_bad_wishes_are_named() -> None:
    bm25 = Bm25sIndex.build(CREAMS)
    with pytest.raises(RequestError, match="expected k >= 1, got 0"):
        ground([of("cream")], bm25, 0)
    with pytest.raises(RequestError, match="expected one k per user, 1, got 2"):
        ground([of("cream")], bm25, [1, 2])
    with pytest.raises(RequestError, match="expected one exclude per user, 1, got 0"):
        ground([of("cream")], bm25, 1, exclude=[])
    with pytest.raises(RequestError, match=r"expected a mask bool\[7\]"):
        ground([of("cream")], bm25, 1, allowed=[np.ones(3, bool)])
