"""Given texts, scored by definition."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders.base import Prompt, Tokens
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.grammars import Choice
from genrec.scoring import Scores, score
from genrec.text_search import Beams, write
from index.errors import RequestError
from tests.fake_decoder import FakeDecoder
from tests.fake_vocabulary import FakeVocabulary
from tests.genrec import tiny_models

ABC = FakeVocabulary("abc")
PROMPT: Prompt = (Tokens(np.array([1, 2])),)
OTHER: Prompt = (Tokens(np.array([3])),)
NULL: Prompt = (Tokens(np.array([2])),)
TEXTS = ["a", "ab", "abc", "abb", "c", "cab", "ab"]


def by_definition(decoder: FakeDecoder, prompt: Prompt, text: str, ended: bool = True) -> list[float]:
    ids = ABC.answers([text])[0][: None if ended else -1]
    result = []
    for place, token in enumerate(ids):
        logits = decoder.logits_after(decoder.prompt_seed(prompt), tuple(ids[:place])).astype(np.float64)
        result.append(float(logits[token] - np.log(np.exp(logits).sum())))
    return result


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("at_once", [1, 4, 512])
def test_every_token_of_every_text(ended: bool, at_once: int) -> None:
    """However many are fed together, and whatever they have in common."""
    decoder = FakeDecoder(ABC.size)
    with patch("genrec.scoring._FED_AT_ONCE", at_once):
        both = score(decoder, ABC, [PROMPT, OTHER], TEXTS, ended=ended)
    for prompt, scores in zip((PROMPT, OTHER), both, strict=True):
        expected = [by_definition(decoder, prompt, text, ended) for text in TEXTS]
        for got, own in zip(scores.log_probabilities, expected, strict=True):
            np.testing.assert_allclose(got, own, atol=1e-5)
        np.testing.assert_allclose(scores.sum, [sum(own) for own in expected], atol=1e-5)
        np.testing.assert_allclose(scores.mean, [np.mean(own) for own in expected], atol=1e-5)


def test_beginnings_in_common_are_run_once() -> None:
    decoder = FakeDecoder(ABC.size)
    score(decoder, ABC, [PROMPT], ["abc", "abb", "ab"])
    assert decoder.calls == 2
    assert decoder.tokens_fed == 4  # a, ab, abc, abb; the terminators are read, not fed


def test_pmi_takes_off_what_a_text_is_worth_by_itself() -> None:
    decoder = FakeDecoder(ABC.size)
    own = [["a", "cab"], ["cab", "b"]]
    for prompt, texts, scores in zip(
        (PROMPT, OTHER), own, score(decoder, ABC, [PROMPT, OTHER], own, null=NULL), strict=True
    ):
        for text, pmi in zip(texts, scores.pmi, strict=True):
            expected = sum(by_definition(decoder, prompt, text)) - sum(by_definition(decoder, NULL, text))
            assert pmi == pytest.approx(expected, abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_shares_are_what_a_choice_is_picked_by_under_vocabulary_scores(seed: int) -> None:
    decoder, options = FakeDecoder(ABC.size, seed), ["a", "ab", "c", "cab"]
    (scores,) = score(decoder, ABC, [PROMPT], options)
    assert scores.share.sum() == pytest.approx(1.0)
    (found,) = write(decoder, ABC, [PROMPT], Choice(options), Beams(8), max_tokens=9, normalize="vocabulary")
    assert [one.value for one in found] == [options[place] for place in np.argsort(-scores.share)]
    np.testing.assert_allclose([one.score for one in found], -np.sort(-scores.sum), atol=1e-5)


def test_two_answers_of_one_token_are_a_softmax_over_two_logits() -> None:
    """What TALLRec reads off a model that says yes or no."""
    decoder = FakeDecoder(ABC.size)
    (scores,) = score(decoder, ABC, [PROMPT], ["a", "c"], ended=False)
    logits = decoder.logits_after(decoder.prompt_seed(PROMPT), ())[[1, 3]].astype(np.float64)
    np.testing.assert_allclose(scores.share, np.exp(logits) / np.exp(logits).sum(), atol=1e-6)


def test_a_language_model_says_the_same_of_a_text_as_a_whole() -> None:
    model = tiny_models.llama()
    decoder, vocabulary = TorchDecoder(model), FakeVocabulary("".join(map(chr, range(65, 104))))
    texts = ["ABCD", "ABDE", "XY"]
    (scores,) = score(decoder, vocabulary, [PROMPT], texts)
    for text, got in zip(texts, scores.log_probabilities, strict=True):
        ids = vocabulary.answers([text])[0]
        filled = decoder.prefill([(Tokens(np.array([1, 2, *ids[:place]])),) for place in range(len(ids))])
        logits = decoder.logits(filled.hidden).astype(np.float64)
        expected = logits[np.arange(len(ids)), ids] - np.log(np.exp(logits).sum(1))
        np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "each of 1 prompts, got 0 lists"),
        ([["a"], ["b"]], "each of 1 prompts, got 2 lists"),
        ([[]], "at least one continuation"),
        (["a", " "], "none that is empty"),
    ],
)
def test_bad_continuations_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        score(FakeDecoder(4), ABC, [PROMPT], texts)


def test_pmi_without_a_null_prompt_is_refused() -> None:
    with pytest.raises(RequestError, match="expected a null prompt"):
        _ = Scores((np.zeros(1),)).pmi


def test_no_prompts_no_scores() -> None:
    assert score(FakeDecoder(4), ABC, [], ["a"]) == []
