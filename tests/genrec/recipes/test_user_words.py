"""What people say, read against the fields and titles of a toy catalog."""

from __future__ import annotations

import polars as pl
import pytest

from genrec.recipes.user_words import FieldWords, mentioned_rows, where_of
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.catalog import Catalog
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


def test_a_field_of_long_texts_costs_nothing() -> None:
    """Nobody says a description of hundreds of words; each word was once looked at with all that may follow."""
    long = " ".join(f"word{place}" for place in range(400))
    frame = toy_catalog().frame.with_columns(story=pl.lit(long), note=pl.lit("very short"))
    words = FieldWords(Catalog(frame))
    assert words._longest <= 12
    assert [one.value for one in words.wishes(f"only very short, no {long}")] == ["very short"]


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
