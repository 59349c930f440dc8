"""What is remembered of a trie goes with it, and what is remembered of a filter is bounded."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from genrec.grammars import paths
from genrec.grammars.paths import Paths, Span
from index.item_filter import Allowed
from index.trie import build_trie

END = 0
TITLES = [[3, 4, END], [3, END], [5, 6, 7, END], [END]]


def test_a_trie_that_nobody_uses_is_let_go():
    """Tries of earlier reloads stayed in memory, some forty bytes a title each."""
    trie = build_trie(TITLES)
    some = Paths(trie, END, Allowed())
    assert some.count == 3  # the one without a title cannot be written
    assert some.span_of_row(1) == Span(1, 2)
    assert trie in paths._KNOWN_RANKS
    assert trie in paths._KNOWN_FACTS
    gone = weakref.ref(trie)
    del trie, some
    gc.collect()
    assert gone() is None


def test_both_ends_of_one_trie_are_known_apart():
    trie = build_trie([[1, 2], [1, 3]])
    assert not Paths(trie, 9, Allowed()).terminated
    assert Paths(build_trie([[1, 9], [2, 9]]), 9, Allowed()).terminated


def test_fewer_rules_are_kept_of_a_large_trie(monkeypatch):
    small = build_trie(TITLES)
    assert Paths(small, END, Allowed()).rule.cache_info().maxsize == 256
    monkeypatch.setattr(paths, "_RULE_BYTES", 8 * len(small) * 5)
    assert Paths(small, END, Allowed()).rule.cache_info().maxsize == 5
    monkeypatch.setattr(paths, "_RULE_BYTES", 0)
    few = Paths(small, END, Allowed())
    assert few.rule.cache_info().maxsize == 4
    taken = [(Span(first, first + 1),) for first in range(3)]
    assert all(
        not few.rule(one).any_below(np.array([one[0].first]), np.array([one[0].end]))[0] for one in taken
    )
