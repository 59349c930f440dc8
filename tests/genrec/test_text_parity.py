"""Beams over free text are Hugging Face's beam search: same texts, order and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from genrec.decoders.base import Tokens
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.grammars import Text
from genrec.text_search import Beams, write
from tests.fake_vocabulary import FakeVocabulary
from tests.genrec import tiny_models
from tests.genrec.test_hf_parity import PAD, Found, assert_same, greedy_scores
from tests.genrec.tiny_models import VOCABULARY

LETTERS = "".join(chr(ord("A") + number) for number in range(VOCABULARY - 1))
# A token that each model likes now and then behind the prompts below; else no text would end before it is cut.
ENDS = {"gpt2": 6, "llama": 14}


@dataclass(frozen=True)
class Writer:
    model: PreTrainedModel
    end: int


@pytest.fixture(scope="module", params=list(ENDS))
def writer(request: pytest.FixtureRequest) -> Writer:
    return Writer(tiny_models.MODELS[request.param](), ENDS[request.param])


def hugging_face(
    writer: Writer, prompts: Sequence[list[int]], beams: int, penalty: float, most: int
) -> list[list[Found]]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output = writer.model.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=beams,
        num_return_sequences=beams,
        **({} if beams == 1 else {"length_penalty": penalty, "early_stopping": False}),
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=writer.end,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    scores = (
        greedy_scores(output.logits, output.sequences[:, width:], writer.end)
        if beams == 1
        else output.sequences_scores
    )
    results: list[list[Found]] = [[] for _ in prompts]
    for number, (sequence, score) in enumerate(zip(output.sequences, scores, strict=True)):
        tokens = sequence[width:].tolist()
        if writer.end in tokens:
            tokens = tokens[: tokens.index(writer.end) + 1]
        results[number // beams].append(Found(tuple(tokens), float(score)))
    return results


def ours(
    writer: Writer, prompts: Sequence[list[int]], beams: int, penalty: float, most: int
) -> list[list[Found]]:
    given = [(Tokens(np.array(prompt)),) for prompt in prompts]
    method = Beams(beams, length_penalty=penalty)
    answers = write(
        TorchDecoder(writer.model),
        FakeVocabulary(LETTERS, end=writer.end),
        given,
        Text(),
        method,
        max_tokens=most,
    )
    return [[Found(tuple(one.ids.tolist()), one.score) for one in found] for found in answers]


def random_prompts(seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, VOCABULARY, length).tolist() for length in (5, 2, 9)]


@pytest.mark.parametrize(
    ("beams", "penalty", "most"),
    [(1, 0.0, 12), (2, 1.0, 12), (3, 1.0, 40), (5, 0.0, 40), (5, 1.0, 12), (8, -0.5, 4), (8, 2.0, 12)],
)
def test_free_text(writer: Writer, beams: int, penalty: float, most: int) -> None:
    prompts = random_prompts(beams)
    expected = hugging_face(writer, prompts, beams, penalty, most)
    assert_same(ours(writer, prompts, beams, penalty, most), expected)


def test_texts_that_end_early_and_texts_that_are_cut_are_among_those_compared(writer: Writer) -> None:
    """Without both kinds the test above would say little."""
    found = [one.path for text in ours(writer, random_prompts(5), 5, 1.0, 12) for one in text]
    assert any(path[-1] == writer.end and len(path) < 12 for path in found)
    assert any(path[-1] != writer.end and len(path) == 12 for path in found)
