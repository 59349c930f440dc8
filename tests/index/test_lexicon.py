"""The lexicon against dictionaries and loops that say the same slowly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import IndexFormatError
from index.lexicon import Lexicon, folded
from index.spelling import WordList, edit_distances, slips_allowed

TITLES = ["Blade Runner", "Blade Runner 2049", "Amélie", "The Runner", "AMELIE", "", "Blades of Glory", "!!!"]

# Few letters, so that prefixes, equal titles and near words happen all the time.
words = st.text("abé", min_size=1, max_size=4)
titles = st.lists(st.lists(words, max_size=3).map(" ".join), max_size=25)
popularities = st.lists(st.integers(0, 3).map(float), min_size=25, max_size=25)


def test_folding_by_eye():
    assert folded("  Amélie! ") == "amelie"
    assert folded("Spider-Man: Homecoming") == "spider man homecoming"
    assert folded("STRASSE") == folded("Straße")
    assert folded("İstanbul") == folded("istanbul")
    assert folded("ﬁlm") == "film"
    assert folded("snake_case") == "snake case"
    assert folded("!!!") == "!!!"
    assert folded(" \t ") == ""
    assert folded("...\ud800") == "...?"


@settings(deadline=None)  # a shared machine's timings say nothing
@given(st.text())
def test_folding_twice_is_folding_once_and_can_always_be_stored(text):
    once = folded(text)
    assert folded(once) == once
    once.encode()


def test_completion_by_eye():
    lexicon = Lexicon.build(TITLES)
    assert lexicon.complete("blade") == [0, 1, 6]
    assert lexicon.complete("BLADE RU") == [0, 1]
    assert lexicon.complete("run") == [0, 1, 3]  # no title begins so, but words do
    assert lexicon.complete("runner blade") == [0, 1]
    assert lexicon.complete("the") == [3]
    assert lexicon.complete("amé") == [2, 4]
    assert lexicon.complete("!!") == [7]
    assert lexicon.complete("dune") == []
    assert lexicon.complete("blade", 2) == [0, 1]
    assert lexicon.complete("") == [7, 2, 4, 0, 1, 6, 3]  # all with a title, by title


def test_the_popular_come_first_and_titles_decide_ties():
    popularity = np.array([1, 5, 0, 2, 0, 9, 1, 0], float)
    lexicon = Lexicon.build(TITLES, popularity)
    assert lexicon.complete("blade") == [1, 0, 6]
    assert lexicon.complete("blade", 1) == [1]
    assert lexicon.complete("run") == [1, 3, 0]
    assert lexicon.complete("", 3) == [1, 3, 0]


def test_items_left_out_are_found_by_nothing():
    lexicon = Lexicon.build(TITLES, skip=np.array([0, 3]))
    assert lexicon.complete("blade") == [1, 6]
    assert lexicon.rows_of("Blade Runner") == []
    assert lexicon.complete("the") == []


def test_an_empty_catalog_of_titles():
    lexicon = Lexicon.build(["", ""])
    assert lexicon.complete("a") == []
    assert lexicon.rows_of("") == []
    assert lexicon.did_you_mean("anything") == []


def test_other_spellings_by_eye():
    lexicon = Lexicon.build(TITLES)
    assert lexicon.did_you_mean("blede runer") == ["blade runner"]
    assert lexicon.did_you_mean("balde") == ["blade"]  # two letters swapped
    assert lexicon.did_you_mean("blade runn") == []  # nothing is misspelt: the last word is not finished
    assert lexicon.did_you_mean("blade amelie") == []  # known words that no title has together
    assert lexicon.did_you_mean("xx") == []  # too short to guess at
    assert lexicon.did_you_mean("glorry of bladse") == ["glory of blade", "glory of blades"]
    assert lexicon.did_you_mean("q" * 200) == []
    assert lexicon.did_you_mean(" ".join(["blede"] * 50)) == []


@settings(deadline=None)
@given(titles, st.lists(words, max_size=3).map(" ".join))
def test_titles_find_their_items(catalog, wanted):
    lexicon = Lexicon.build(catalog)
    for title in (*catalog, wanted):
        expected = [row for row, one in enumerate(catalog) if folded(title) and folded(one) == folded(title)]
        assert lexicon.rows_of(title) == expected


@settings(deadline=None)
@given(titles, popularities, st.lists(words, max_size=2).map(" ".join), st.integers(1, 30), st.booleans())
def test_completion_equals_a_loop_over_all_titles(catalog, popularity, typed, limit, is_popular):
    lexicon = Lexicon.build(catalog, np.array(popularity[: len(catalog)]) if is_popular else None)
    wanted = folded(typed)

    def order(row: int) -> tuple[float, str, int]:
        return (-popularity[row] if is_popular else 0.0, folded(catalog[row]), row)

    def has_words(row: int) -> bool:
        *whole, last = wanted.split()
        found = folded(catalog[row]).split()
        return set(whole) <= set(found) and any(one.startswith(last) for one in found)

    titled = [row for row, title in enumerate(catalog) if folded(title)]
    begin = sorted((row for row in titled if folded(catalog[row]).startswith(wanted)), key=order)
    rest = [row for row in titled if row not in begin and wanted and has_words(row)]
    assert lexicon.complete(typed, limit) == (begin + sorted(rest, key=order))[:limit]


@settings(deadline=None)
@given(titles, st.lists(st.text("abcé", min_size=1, max_size=8), min_size=1, max_size=2).map(" ".join))
def test_every_suggestion_finds_something_and_is_near(catalog, typed):
    lexicon = Lexicon.build(catalog)
    suggestions = lexicon.did_you_mean(typed)
    assert len(set(suggestions)) == len(suggestions) <= 3
    for one in suggestions:
        assert lexicon.complete(one)
        for wrong, right in zip(folded(typed).split(), one.split(), strict=True):
            assert slow_distance(wrong, right) <= slips_allowed(wrong)


def slow_distance(a: str, b: str) -> int:
    """Optimal string alignment, from its recursive definition."""
    table = {(-1, j): j + 1 for j in range(-1, len(b))} | {(i, -1): i + 1 for i in range(-1, len(a))}
    for i in range(len(a)):
        for j in range(len(b)):
            ways = [
                table[i - 1, j] + 1,
                table[i, j - 1] + 1,
                table[i - 1, j - 1] + (a[i] != b[j]),
            ]
            if i and j and a[i] == b[j - 1] and a[i - 1] == b[j]:
                ways.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(ways)
    return table[len(a) - 1, len(b) - 1]


@settings(deadline=None)
@given(st.text("abc", max_size=7), st.lists(st.text("abc", min_size=1, max_size=7), min_size=1, max_size=6))
def test_distances_equal_the_recursion(word, others):
    letters = np.array(others, "U9").view(np.uint32).reshape(len(others), 9)
    assert edit_distances(word, letters).tolist() == [slow_distance(word, other) for other in others]


@settings(deadline=None)
@given(
    st.lists(st.text("abc", min_size=1, max_size=7), unique=True, max_size=20),
    st.text("abc", max_size=7),
    st.integers(1, 5),
)
def test_the_nearest_words_equal_a_loop(known, word, limit):
    counts = [len(one) % 3 for one in known]
    near = sorted(
        (slow_distance(word, one), -count, one)
        for one, count in zip(known, counts, strict=True)
        if 0 < slips_allowed(word) >= slow_distance(word, one)
    )
    assert WordList(known, np.array(counts, int)).near(word, limit) == [one for _, _, one in near[:limit]]


@pytest.mark.parametrize("word", ["", "a", "b" * 24, "b" * 25, "b" * 1000])
def test_words_of_any_length_can_be_asked(word):
    known = ["b" * 24, "b" * 23, "c" * 40]
    expected = ["b" * 24, "b" * 23] if len(word) == 24 else []
    assert WordList(known, np.ones(3, int)).near(word, 3) == expected


@settings(deadline=None)
@given(titles, words, st.lists(st.integers(0, 24), max_size=8))
def test_a_saved_lexicon_finds_the_same_and_hides_what_it_is_told(tmp_path_factory, catalog, typed, hidden):
    hidden = np.unique([row for row in hidden if row < len(catalog)]).astype(np.int64)
    folder = tmp_path_factory.mktemp("lexicon")
    Lexicon.build(catalog).save(folder)
    loaded, built = Lexicon.load(folder, len(catalog)).without(hidden), Lexicon.build(catalog, skip=hidden)
    for limit in (1, 3, 30):
        assert loaded.complete(typed, limit) == built.complete(typed, limit)
    for title in [*catalog, typed]:
        assert loaded.rows_of(title) == built.rows_of(title)
    found = loaded.did_you_mean(
        typed
    )  # may lack one, never holds one more: near words of hidden titles take places
    assert set(found) <= set(Lexicon.build(catalog).did_you_mean(typed)) | set(built.did_you_mean(typed))
    assert all(built.complete(one, 1) for one in found)


def test_files_that_are_no_lexicon_are_refused(tmp_path):
    Lexicon.build(TITLES).save(tmp_path)
    with pytest.raises(IndexFormatError, match="the titles of 3 items"):
        Lexicon.load(tmp_path, 3)
    np.save(tmp_path / "words_starts.npy", np.zeros(2, np.int64))
    with pytest.raises(IndexFormatError, match="arrays that do not fit"):
        Lexicon.load(tmp_path, len(TITLES))
    (tmp_path / "words_text.npy").unlink()
    with pytest.raises(IndexFormatError, match="rebuild the artifact"):
        Lexicon.load(tmp_path, len(TITLES))
