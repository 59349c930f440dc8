from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.trie import build_trie
from index.walk import TrieWalk

# The example drawn in index/trie.py: a=1 b=2 c=3 x=4 y=5 d=6 e=7.
DRAWN = [[1, 2, 4], [1, 2, 5], [1, 3], [3, 6, 7]]


def test_a_step_goes_down_the_trie_then_down_the_tail_then_out():
    walk = TrieWalk(build_trie(DRAWN))
    #          a b y .    a c .    c d e .    c e (no such tail)
    words = [[1, 2, 5, 5], [1, 3, 0, 3], [3, 6, 7, 0], [3, 7, 7, 6]]
    places = walk.root(4)
    nodes, ends = [], []
    for column in np.array(words).T:
        places = walk.step(places, column)
        nodes.append(places.node.tolist())
        ends.append(places.end[places.node >= 0].tolist())
    assert nodes == [[1, 1, 2, 2], [3, 4, 2, -1], [6, -1, 2, -1], [-1, -1, -1, -1]]
    assert ends == [[3, 3, 4, 4], [2, 3, 4], [2, 4], []]
    assert places.depth.tolist() == [4, 4, 4, 4]


def test_nothing_can_be_stepped_into_in_an_empty_trie():
    walk = TrieWalk(build_trie(np.zeros((0, 3), np.int32)))
    assert walk.step(walk.root(2), np.array([0, 1])).node.tolist() == [-1, -1]


ragged = st.lists(
    st.lists(st.integers(1, 4), max_size=5).map(lambda path: [*path, 0]), min_size=1, max_size=30
)


@settings(max_examples=200, deadline=None)
@given(
    ragged, st.lists(st.lists(st.integers(-1, 5), min_size=6, max_size=6), min_size=1, max_size=12), st.data()
)
def test_steps_find_what_lies_below_every_prefix(paths, words, data):
    # Random words leave the trie early: half of the rows follow a path for a while.
    for word in words[::2]:
        path = data.draw(st.sampled_from(paths))
        word[: len(path)] = path
    trie = build_trie(paths)
    walk = TrieWalk(trie)
    places = walk.root(len(words))
    ordered = [paths[row] for row in trie.item_at_rank]
    for depth in range(1, 7):
        places = walk.step(places, np.array(words)[:, depth - 1])
        for row, word in enumerate(words):
            below = [rank for rank, path in enumerate(ordered) if path[:depth] == word[:depth]]
            if not below:
                assert places.node[row] == -1
                continue
            place = places.take(np.array([row]))
            assert list(range(int(walk.start(place)[0]), int(place.end[0]))) == below
            assert int(place.depth[0]) == depth
