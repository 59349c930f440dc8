"""The prompt cache: it hands over the state that knows most, stays within its limit and changes no answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders import prompt_cache
from genrec.decoders.base import Items, Prefilled, Prompt, ReusesPrompts, ScoresVocabulary, State
from genrec.decoders.prompt_cache import BLOCK, PromptCache
from genrec.search import SearchRequest, search
from index.errors import RequestError
from index.trie import build_trie
from tests.fake_decoder import FakeDecoder, FakeState, FakeTextDecoder


class FakeReuser(FakeDecoder):
    """Notes how many positions it had to run; a state weighs eight bytes a position."""

    def __init__(self, vocabulary: int = 6) -> None:
        super().__init__(vocabulary)
        self.ran: list[int] = []

    def prompt_key(self, prompt: Prompt) -> np.ndarray:
        return np.concatenate([part.rows for part in prompt])

    def prefill(self, prompts: Sequence[Prompt], kept: Sequence[State | None] | None = None) -> Prefilled:
        filled = super().prefill(prompts)
        states: list[State] = []
        for prompt, old, state in zip(prompts, kept or [None] * len(prompts), filled.states, strict=True):
            key = self.prompt_key(prompt).tolist()
            known = old.key if isinstance(old, KeyedState) else []
            shared = 0
            while shared < min(len(known), len(key) - 1) and known[shared] == key[shared]:
                shared += 1
            self.ran.append(len(key) - shared)
            states.append(KeyedState(state.seed, [], key))
        return Prefilled(states, filled.hidden)


class KeyedState(FakeState):
    def __init__(self, seed: int, paths: list, key: list[int]) -> None:
        super().__init__(seed, paths)
        self.key = key

    @property
    def nbytes(self) -> int:
        return 8 * len(self.key) + super().nbytes

    def fork(self) -> KeyedState:
        return KeyedState(self.seed, list(self.paths), self.key)


def prompt(*rows: int) -> Prompt:
    return (Items(np.array(rows, np.int64)),)


def test_it_is_a_decoder_for_decoders_that_reuse() -> None:
    assert isinstance(FakeReuser(), ReusesPrompts)
    assert not isinstance(FakeDecoder(6), ReusesPrompts)


def test_free_text_is_scored_as_without_it() -> None:
    """All logits at once; asked edge by edge, every token of the vocabulary would be gathered for every beam."""

    class Writer(FakeReuser):
        def logits(self, hidden: np.ndarray) -> np.ndarray:
            return FakeTextDecoder.logits(self, hidden)

    writer = Writer()
    hidden = writer.prefill([prompt(1)]).hidden
    cache = prompt_cache.prompt_cache_of(writer)
    assert isinstance(cache, ScoresVocabulary)
    assert cache.logits(hidden).tolist() == writer.logits(hidden).tolist()
    assert not isinstance(prompt_cache.prompt_cache_of(FakeReuser()), ScoresVocabulary)


def test_a_history_that_grew_by_an_item_costs_that_item() -> None:
    decoder = FakeReuser()
    cache = PromptCache(decoder)
    cache.prefill([prompt(*range(10)), prompt(5, 5)])
    cache.prefill([prompt(*range(11)), prompt(5, 5), prompt(7), prompt()])
    assert decoder.ran == [10, 2, 1, 1, 1, 0]
    counts = cache.counts
    assert (counts.prompts, counts.hits, counts.positions, counts.reused) == (6, 2, 26, 11)
    assert counts.entries == 4  # 0..9, 0..10, (5, 5) and (7)


def test_prompts_that_part_in_the_middle_share_whole_blocks() -> None:
    decoder = FakeReuser()
    cache = PromptCache(decoder)
    first = list(range(3 * BLOCK))
    second = [*first[: 2 * BLOCK + 5], 999, 998]
    cache.prefill([prompt(*first)])
    cache.prefill([prompt(*second)])
    assert decoder.ran[1] == 2  # found by its first two blocks; the decoder goes on to where they part


def test_a_collision_of_hashes_costs_time_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "_prefix_hashes", lambda key: np.zeros(len(key), np.uint64))
    decoder = FakeReuser()
    cache = PromptCache(decoder)
    cache.prefill([prompt(1, 2, 3)])
    filled = cache.prefill([prompt(4, 5, 6)])
    assert decoder.ran == [3, 3]
    np.testing.assert_array_equal(
        decoder._rows[int(filled.hidden[0, 0])],
        decoder.logits_after(decoder.prompt_seed(prompt(4, 5, 6)), ()),
    )
    assert cache.counts.hits == 0


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    decoder = FakeReuser()
    weight = 2 * 8 * 4  # a state and its key
    cache = PromptCache(decoder, most_bytes=2 * weight)
    one, two, three = prompt(1, 1, 1, 1), prompt(2, 2, 2, 2), prompt(3, 3, 3, 3)
    cache.prefill([one])
    cache.prefill([two])
    cache.prefill([one])
    cache.prefill([three])
    assert (cache.counts.entries, cache.counts.nbytes) == (2, 2 * weight)
    decoder.ran.clear()
    cache.prefill([one])
    cache.prefill([two])
    assert decoder.ran == [1, 4]
    cache.prefill([prompt(*range(1000))])  # heavier than the limit: not kept, and nobody has to go for it
    assert cache.counts.entries == 2
    cache.clear()
    assert (cache.counts.entries, cache.counts.nbytes, cache._owner) == (0, 0, {})
    with pytest.raises(RequestError, match="got 0"):
        PromptCache(decoder, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), max_size=70), min_size=1, max_size=30),
    st.integers(1, 5000),
)
def test_whatever_is_asked_the_books_are_right(prompts: list[list[int]], limit: int) -> None:
    decoder = FakeReuser()
    cache = PromptCache(decoder, limit)
    for rows in prompts:
        cache.prefill([prompt(*rows)])
    counts = cache.counts
    assert counts.nbytes == sum(entry.nbytes for entry in cache._entries.values()) <= limit
    assert set(cache._owner.values()) <= set(cache._entries)
    assert counts.positions == sum(map(len, prompts))
    assert counts.positions - counts.reused == sum(decoder.ran)


def test_a_search_finds_the_same_with_and_without_it() -> None:
    decoder = FakeReuser()
    trie = build_trie([[a, b] for a in range(6) for b in range(6)])
    requests = [SearchRequest(prompt(*rows), k=5, beam=4) for rows in ([1, 2], [1, 2, 3], [4], [1, 2])]
    cache = PromptCache(decoder)
    for _ in range(2):
        for got, expected in zip(
            search(cache, trie, requests), search(FakeDecoder(6), trie, requests), strict=True
        ):
            assert got.ranks.tolist() == expected.ranks.tolist()
            assert got.scores.tolist() == expected.scores.tolist()
    assert (
        cache.counts.hits == 3
    )  # all of the second round but the one-item prompt, whose last position is run anyway
