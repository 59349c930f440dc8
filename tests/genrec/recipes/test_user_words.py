"""What people say, read against the fields and titles of a toy catalog."""

from __future__ import annotations

import pytest

from genrec.recipes.user_words import FieldWords, mentioned_rows, where_of
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from tests.toy import toy_catalog, toy_index
from tests.toy_text import toy_recommender

WORDS = FieldWords(toy_catalog())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Something with no horror, please", ["-horror"]),
        ("I don't like westerns", ["-western"]),
        ("no horror or drama", ["-horror", "-drama"]),
        ("only comedies!", ["+comedy"]),
        ("I like horror", []),
        ("no, I want a western", []),  # too far from the "no"
        ("a drama without horror", ["-horror"]),
        ("nothing", []),
        ("", []),
    ],
)
def test_wishes(text: str, expected: list[str]) -> None:
    assert [("-" if one.is_against else "+") + one.value for one in WORDS.wishes(text)] == expected


def test_wishes_are_a_filter_that_the_recommender_holds() -> None:
    recommender: Recommender = toy_recommender(toy_index())
    where = where_of(
        [*WORDS.wishes("no horror"), *WORDS.wishes("only dramas"), *WORDS.wishes("only western")]
    )
    answer = recommender.recommend_batch([["i1"]], Wishes(k=40, where=where))[0]
    assert {item.title.split()[-1] for item in answer.items} == {"drama", "western"}
    assert where_of([]) is None


def test_titles_are_found_in_what_is_said() -> None:
    index = toy_index()
    found = mentioned_rows(
        index, index.titles(), "I loved The river comedy, and also 'the night HORROR'! River?"
    )
    assert found == [0, 6]
