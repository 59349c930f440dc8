"""Free text by beams and by sampling, against all texts there are."""

from __future__ import annotations

import itertools
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders.base import Prompt, Tokens
from genrec.grammars import Text
from genrec.text_search import Beams, Samples, Written, write
from genrec.token_scores import largest
from index.errors import RequestError
from tests.fake_decoder import FakeDecoder, FakeTextDecoder
from tests.fake_vocabulary import FakeVocabulary

AB = FakeVocabulary("ab")
PROMPT: Prompt = (Tokens(np.array([1, 2])),)
OTHER: Prompt = (Tokens(np.array([2])),)


def log_probabilities(decoder: FakeDecoder, prompt: Prompt, ids: tuple[int, ...]) -> list[float]:
    """Of each token over the whole vocabulary, by definition."""
    seed = decoder.prompt_seed(prompt)
    result = []
    for place, token in enumerate(ids):
        logits = decoder.logits_after(seed, ids[:place]).astype(np.float64)
        result.append(logits[token] - np.log(np.exp(logits).sum()))
    return result


def all_texts(decoder: FakeDecoder, prompt: Prompt, most: int) -> dict[tuple[int, ...], float]:
    """Every text over "ab" that ends within ``most`` tokens or is cut there, and its score."""
    cut = itertools.product((1, 2), repeat=most)
    ended = ((*ids, 0) for length in range(most) for ids in itertools.product((1, 2), repeat=length))
    return {ids: sum(log_probabilities(decoder, prompt, ids)) for ids in itertools.chain(cut, ended)}


def as_pairs(found: list[Written]) -> list[tuple[tuple[int, ...], float]]:
    return [(tuple(one.ids.tolist()), one.score) for one in found]


@pytest.mark.parametrize("kind", [FakeDecoder, FakeTextDecoder])
@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.0])
def test_a_beam_that_loses_nothing_finds_every_text_in_order(kind: type[FakeDecoder], penalty: float) -> None:
    decoder = kind(3, seed=5)
    (found,) = write(decoder, AB, [PROMPT], Text(), Beams(16, length_penalty=penalty), max_tokens=3)
    expected = {ids: score / len(ids) ** penalty for ids, score in all_texts(decoder, PROMPT, 3).items()}
    assert len(found) == len(expected) == 15
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for ids, score in as_pairs(found):
        assert score == pytest.approx(expected[ids], abs=1e-4)


def test_a_text_says_what_each_token_was_worth() -> None:
    decoder = FakeTextDecoder(3)
    (found,) = write(decoder, AB, [PROMPT], Text(), Beams(3), max_tokens=5)
    for one in found:
        expected = log_probabilities(decoder, PROMPT, tuple(one.ids.tolist()))
        np.testing.assert_allclose(one.log_probabilities, expected, atol=1e-5)
        assert one.score == pytest.approx(sum(expected), abs=1e-4)
        assert one.value == AB.decoded(one.ids.tolist())


def test_one_beam_takes_the_best_token_each_time_and_a_cold_sample_too() -> None:
    decoder = FakeTextDecoder(3, seed=2)
    ids: tuple[int, ...] = ()
    while len(ids) < 8 and 0 not in ids:
        ids = (*ids, int(decoder.logits_after(decoder.prompt_seed(PROMPT), ids).argmax()))
    (greedy,), (cold,) = (
        write(decoder, AB, [PROMPT], Text(), method, max_tokens=8)
        for method in (None, Samples(temperature=0.0))
    )
    assert [tuple(one.ids.tolist()) for one in (*greedy, *cold)] == [ids, ids]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), width=st.integers(1, 5), groups=st.integers(1, 3), draws=st.booleans())
def test_a_batch_is_its_requests_alone(seed: int, width: int, groups: int, draws: bool) -> None:
    """Together, states are rid of given-up tokens every few tokens; alone, not before all is over."""
    vocabulary, decoder = FakeVocabulary("abcdef"), FakeTextDecoder(9, seed)  # two rows nobody can read
    method = Samples(width, seed) if draws else Beams(width * groups, groups=groups, length_penalty=0.7)
    prompts: list[Prompt] = [PROMPT, OTHER, (Tokens(np.array([3, 1, 1])),)]
    with patch("genrec.text_batch._TIDY_EVERY", 8):
        together = write(decoder, vocabulary, prompts, Text(), method, max_tokens=25)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = write(decoder, vocabulary, [prompt], Text(), method, max_tokens=25)
        assert as_pairs(found) == as_pairs(alone)
        assert all(one.ids.max() < vocabulary.size for one in found)


def test_groups_pay_for_the_tokens_that_others_took() -> None:
    """Two groups of one beam: the second takes its best token, the first one's made dearer, at every step."""
    decoder, strength = FakeTextDecoder(3, seed=11), 0.8
    ended: list[float] = []
    beams: list[tuple[int, ...]] = [(), ()]
    done: list[set[tuple[int, ...]]] = [set(), set()]
    running = [True, True]
    for _ in range(6):
        times = np.zeros(3)
        for group in range(2):
            if not running[group]:
                continue
            path = beams[group]
            score = [sum(log_probabilities(decoder, PROMPT, (*path, token))) for token in range(3)]
            order = np.argsort(-(np.array(score) - strength * times), kind="stable")[:2].tolist()
            if order[0] == 0:
                done[group].add((*path, 0))
            best = next(token for token in order if token != 0)
            beams[group] = (*path, best)
            times[best] += 1
            worst = [sum(log_probabilities(decoder, PROMPT, one)) for one in done[group]]
            running[group] = not worst or score[best] > max(worst)
            if not running[group]:
                times[best] -= 1
    expected = done[0] | done[1] | {beams[group] for group in range(2) if running[group] and not done[group]}
    ended = [sum(log_probabilities(decoder, PROMPT, one)) for one in expected]
    (found,) = write(decoder, AB, [PROMPT], Text(), Beams(2, groups=2, diversity=strength), max_tokens=6)
    assert {ids for ids, _ in as_pairs(found)} == expected
    np.testing.assert_allclose([one.score for one in found], sorted(ended, reverse=True), atol=1e-4)


class TestSamples:
    def test_are_drawn_from_the_model(self) -> None:
        decoder = FakeTextDecoder(3, seed=3, spread=1.0)
        count = 4000
        (found,) = write(decoder, AB, [PROMPT], Text(), Samples(count, seed=1), max_tokens=2)
        drawn = Counter(tuple(one.ids.tolist()) for one in found)
        for ids, score in all_texts(decoder, PROMPT, 2).items():
            share = np.exp(score)
            assert abs(drawn[ids] / count - share) < 4 * np.sqrt(share / count) + 1e-3

    def test_of_one_number_are_the_same_however_many_are_drawn(self) -> None:
        decoder = FakeTextDecoder(3)
        few, many = (
            write(decoder, AB, [PROMPT], Text(), Samples(count, seed=4), max_tokens=30)[0] for count in (2, 9)
        )
        assert as_pairs(few) == as_pairs(many)[:2]
        assert as_pairs(many) != as_pairs(
            write(decoder, AB, [PROMPT], Text(), Samples(9, seed=5), max_tokens=30)[0]
        )

    def test_of_prompts_with_seeds_of_their_own_are_those_of_each_alone(self) -> None:
        decoder, seeds = FakeTextDecoder(3), (4, 9, 4)
        prompts: list[Prompt] = [PROMPT, OTHER, PROMPT]
        together = write(decoder, AB, prompts, Text(), Samples(6, seeds=seeds), max_tokens=30)
        for prompt, seed, found in zip(prompts, seeds, together, strict=True):
            (alone,) = write(decoder, AB, [prompt], Text(), Samples(6, seed=seed), max_tokens=30)
            assert as_pairs(found) == as_pairs(alone)
        with pytest.raises(RequestError, match="a seed for each of 1 prompts, got 3"):
            write(decoder, AB, [PROMPT], Text(), Samples(6, seeds=seeds), max_tokens=30)

    def test_top_k_and_top_p_leave_the_rest_out(self) -> None:
        decoder = FakeTextDecoder(3, seed=8)
        logits = decoder.logits_after(decoder.prompt_seed(PROMPT), ()).astype(np.float64)
        order = np.argsort(-logits).tolist()
        share = np.exp(logits) / np.exp(logits).sum()
        for method, expected in (
            (Samples(200, top_k=1), order[:1]),
            (Samples(200, top_k=2), order[:2]),
            (Samples(200, top_p=float(share[order[0]]) - 1e-6), order[:1]),
            (Samples(200, top_p=float(share[order[0]]) + 1e-6), order[:2]),
            (Samples(200, temperature=0.05), order[:1]),
        ):
            (found,) = write(decoder, AB, [PROMPT], Text(), method, max_tokens=1)
            assert {int(one.ids[0]) for one in found} == set(expected)
            assert found[0].score == pytest.approx(np.log(share[found[0].ids[0]]), abs=1e-4)


class TestText:
    def test_cannot_hold_forbidden_characters_whatever_the_tokens(self) -> None:
        vocabulary = FakeVocabulary("abc", pieces=["ab", "cab", "bc"])
        (found,) = write(
            FakeTextDecoder(vocabulary.size),
            vocabulary,
            [PROMPT],
            Text(without="c"),
            Samples(300),
            max_tokens=8,
        )
        texts = [one.value for one in found]
        assert not any("c" in text for text in texts)
        assert any("ab" in text for text in texts)

    def test_ends_after_so_many_tokens(self) -> None:
        (found,) = write(FakeTextDecoder(3), AB, [PROMPT], Text(max_tokens=2), Samples(100), max_tokens=9)
        lengths = {len(one.ids) for one in found}
        assert lengths == {1, 2, 3}
        assert all(one.ids[-1] == 0 for one in found)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), columns=st.integers(1, 1000), most=st.integers(1, 4))
def test_the_largest_are_found_in_blocks(seed: int, columns: int, most: int) -> None:
    values = np.random.default_rng(seed).integers(0, 50, (3, columns)).astype(np.float32)
    values[0, seed % columns] = -np.inf
    got = np.take_along_axis(values, largest(values, most), 1)
    np.testing.assert_array_equal(-np.sort(-got, 1), -np.sort(-values, 1)[:, :most])


class TestRefuses:
    @pytest.mark.parametrize("wish", [{"width": 0}, {"width": 4, "groups": 3}, {"width": 2, "answers": 3}])
    def test_beams(self, wish: dict[str, int]) -> None:
        with pytest.raises(RequestError, match="expected"):
            Beams(**wish)

    @pytest.mark.parametrize(
        "wish", [{"count": 0}, {"temperature": -1.0}, {"temperature": np.nan}, {"top_k": 0}, {"top_p": 0.0}]
    )
    def test_samples(self, wish: dict[str, float]) -> None:
        with pytest.raises(RequestError, match="expected"):
            Samples(**wish)  # type: ignore[arg-type]

    def test_no_room(self) -> None:
        with pytest.raises(RequestError, match="max_tokens of at least 1"):
            write(FakeTextDecoder(3), AB, [PROMPT], Text(), max_tokens=0)

    def test_grammars_that_are_not_one_each(self) -> None:
        with pytest.raises(RequestError, match="each of 1 prompts, got 2"):
            write(FakeTextDecoder(3), AB, [PROMPT], [Text(), Text()], max_tokens=3)


def test_no_prompts_no_texts() -> None:
    assert write(FakeTextDecoder(3), AB, [], Text(), max_tokens=3) == []
