"""What token-synchronous search does its own way. That it is Hugging Face's search: see test_hf_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec import token_search
from genrec.search import SearchRequest, SearchResult, search
from index.trie import TokenTrie, build_trie
from tests.fake_decoder import FakeDecoder, item_prompt

VOCABULARY = 6
long_titles = st.lists(
    st.lists(st.integers(1, 5), max_size=12).map(lambda path: [*path, 0]), min_size=1, max_size=30
)


def found(trie: TokenTrie, decoder: FakeDecoder, beams: list[int], normalize: str) -> list[SearchResult]:
    requests = [SearchRequest(item_prompt(number), beam, beam) for number, beam in enumerate(beams)]
    return search(decoder, trie, requests, normalize=normalize, synchronize="token")


class Told(FakeDecoder):
    """Logits by path, -50 where nothing is said; remembers the size of every call."""

    def __init__(self, said: dict[tuple[int, ...], dict[int, float]]) -> None:
        super().__init__(VOCABULARY)
        self.said = said
        self.fed: list[int] = []

    def logits_after(self, prompt_seed, path):
        logits = np.full(VOCABULARY, -50, np.float32)
        for token, logit in self.said.get(tuple(path), {}).items():
            logits[token] = logit
        return logits

    def extend(self, states, request, token, parent):
        self.fed.append(len(token))
        return super().extend(states, request, token, parent)


def test_tails_are_fed_in_one_call_once_nothing_competes():
    """Three titles in four slots: no prefix can be displaced, so all their tails are known to be needed."""
    decoder = Told({(): {1: 1.0, 2: 0.0, 3: -1.0}})
    (result,) = found(
        build_trie([[1, 2, 3, 4, 5, 0], [2, 2, 3, 4, 5, 0], [3, 0]]), decoder, [4], "vocabulary"
    )
    assert len(result.ranks) == 3
    assert decoder.fed == [5 + 5 + 1]  # all but the last of each


def test_where_prefixes_compete_one_token_is_fed_a_step():
    decoder = Told({(): {1: 1.0, 2: 0.0, 3: -1.0}})
    found(build_trie([[1, 2, 3, 4, 5, 0], [2, 2, 3, 4, 5, 0], [3, 0]]), decoder, [1], "vocabulary")
    assert decoder.fed == [1, 4]  # the winner of three; behind it nothing competes any more


def test_a_prefix_below_the_worst_finished_item_is_not_fed_on():
    """Hugging Face runs it on as long as another is above; the answer is the same."""
    trie = build_trie([[1], [2, 0], [3, 1, 4, 0], [3, 2, 4, 4, 0]])
    #                        two finish by step 2;  [3, 1] is above them, [3, 2] is below
    decoder = Told(
        {(): {1: 0.0, 2: -1.0, 3: -0.1}, (2,): {0: 0.0}, (3,): {1: 0.0, 2: -8.0}, (3, 1): {4: 0.0}}
    )
    (result,) = found(trie, decoder, [2], "vocabulary")
    assert [trie.path(int(rank)) for rank in result.ranks] == [[1], [2, 0]]
    assert decoder.fed == [2, 1, 1]


@settings(max_examples=150, deadline=None)
@given(
    long_titles,
    st.integers(0, 999),
    st.sampled_from(["catalog", "vocabulary"]),
    st.lists(st.integers(1, 8), min_size=1, max_size=3),
    st.sampled_from([2, 16]),
)
def test_feeding_ahead_changes_no_answer(paths, seed, normalize, beams, at_once):
    trie = build_trie(paths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_search, "_FED_AT_ONCE", 1)
        slow = FakeDecoder(VOCABULARY, seed)
        expected = found(trie, slow, beams, normalize)
        patch.setattr(token_search, "_FED_AT_ONCE", at_once)
        fast = FakeDecoder(VOCABULARY, seed)
        got = found(trie, fast, beams, normalize)
    assert fast.calls <= slow.calls
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.ranks.tolist() == theirs.ranks.tolist()
        np.testing.assert_array_equal(mine.scores, theirs.scores)
        assert (mine.certified, mine.expansions) == (theirs.certified, theirs.expansions)
