"""The trie of titles, with letters for tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from index.errors import IdentifierError
from index.title_paths import build_title_trie, untitled_rows


def letters(titles: Sequence[str]) -> list[list[int]]:
    """One token a letter; 0 ends a title."""
    return [[*map(ord, title), 0] for title in titles]


TITLES = ["Alien", "Aliens", "", "Dune", "Alien", "Dune 2"]


def test_every_row_has_the_path_of_its_title():
    trie = build_title_trie(TITLES, letters)
    assert [trie.path(int(trie.rank_of_item[row])) for row in range(6)] == letters(TITLES)


def test_equal_titles_share_a_path_and_stand_together():
    trie = build_title_trie(TITLES, letters)
    assert abs(int(trie.rank_of_item[0]) - int(trie.rank_of_item[4])) == 1


def test_an_untitled_item_keeps_its_rank_and_is_named():
    trie = build_title_trie(TITLES, letters)
    assert sorted(trie.item_at_rank.tolist()) == list(range(6))
    assert untitled_rows([*TITLES, " \t"]).tolist() == [2, 6]


def test_a_tokenizer_without_a_terminator_is_refused():
    with pytest.raises(IdentifierError, match="end every path in a terminator"):
        build_title_trie(["Dune", "Dune 2"], lambda titles: [[*map(ord, title)] for title in titles])


def test_one_path_a_title_is_expected():
    with pytest.raises(IdentifierError, match="one token path per title, 6, got 5"):
        build_title_trie(TITLES, lambda titles: letters(titles)[:-1])
