"""Token-synchronous search is Hugging Face's constrained beam search: same items, order and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from genrec.decoders.base import Tokens
from genrec.decoders.encoder_decoder import EncoderDecoder
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.search import SearchRequest, search
from index.trie import TokenTrie, build_trie
from tests.genrec import tiny_models
from tests.genrec.tiny_models import VOCABULARY

EOS = VOCABULARY - 1
PAD = 0
BEAMS = (1, 3, 5, 8)
TIE = 1e-4


@dataclass(frozen=True)
class Found:
    """One path and its score."""

    path: tuple[int, ...]
    score: float


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen3"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_models.MODELS[request.param]()


def hugging_face(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    paths: Sequence[tuple[int, ...]],
    beams: int,
    eos: int | None,
    length_penalty: float = 0.0,
) -> list[list[Found]]:
    """``generate`` under a dict trie, on the left-padded batch; an encoder-decoder writes behind its start token."""
    allowed: dict[tuple[int, ...], set[int]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            allowed.setdefault(path[:depth], set()).add(token)
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    if model.config.is_encoder_decoder:
        ids, mask = right_padded(prompts)
        width = 1

    def next_tokens(_: int, sequence: torch.Tensor) -> list[int]:
        # Beams that have run out of paths go on at a score of -1e9; they must be given something.
        return sorted(allowed.get(tuple(sequence[width:].tolist()), {PAD if eos is None else eos}))

    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        num_beams=beams,
        num_return_sequences=beams,
        prefix_allowed_tokens_fn=next_tokens,
        length_penalty=length_penalty,
        early_stopping=False,
        do_sample=False,
        max_new_tokens=max(len(path) for path in paths),
        eos_token_id=eos,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    # With one beam `generate` searches greedily and gives no score: the sum of the chosen log-probabilities.
    scores = (
        greedy_scores(output.logits, output.sequences[:, width:], eos)
        if beams == 1
        else output.sequences_scores
    )
    results: list[list[Found]] = [[] for _ in prompts]
    for number, (sequence, score) in enumerate(zip(output.sequences, scores, strict=True)):
        tokens = sequence[width:].tolist()
        if eos in tokens:
            tokens = tokens[: tokens.index(eos) + 1]
        if score > -1e8:  # below: slots that no path could fill
            results[number // beams].append(Found(tuple(tokens), float(score)))
    return results


def right_padded(prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """An encoder counts positions from its first column on."""
    parts = [torch.tensor(prompt) for prompt in prompts]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(parts, batch_first=True), pad([torch.ones_like(part) for part in parts], batch_first=True)


def greedy_scores(logits: Sequence[torch.Tensor], tokens: torch.Tensor, eos: int | None) -> torch.Tensor:
    """float[B]: log-probability of each sequence, up to and with its first EOS."""
    chosen = torch.stack(list(logits), dim=1).log_softmax(-1).gather(2, tokens[:, :, None])[:, :, 0]
    after_eos = (tokens == (-1 if eos is None else eos)).cumsum(1).roll(1, dims=1)
    after_eos[:, 0] = 0
    return chosen.masked_fill(after_eos > 0, 0.0).sum(1)


def ours(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    trie: TokenTrie,
    beams: int,
    offset: int = 0,
    length_penalty: float = 0.0,
) -> list[list[Found]]:
    requests = [SearchRequest((Tokens(np.array(prompt)),), k=beams, beam=beams) for prompt in prompts]
    kind = EncoderDecoder if model.config.is_encoder_decoder else TorchDecoder
    decoder = kind(model, token_offset=offset)
    results = search(
        decoder, trie, requests, normalize="vocabulary", synchronize="token", length_penalty=length_penalty
    )
    assert not length_penalty or all(result.certified == 0 for result in results)
    return [
        [
            Found(tuple(token + offset for token in trie.path(int(rank))), float(score))
            for rank, score in zip(result.ranks, result.scores, strict=True)
        ]
        for result in results
    ]


def assert_same(got: Sequence[list[Found]], expected: Sequence[list[Found]]) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        assert len(mine) == len(theirs)
        np.testing.assert_allclose([f.score for f in mine], [f.score for f in theirs], atol=TIE)
        for found in mine:
            twins = {other.path for other in theirs if abs(other.score - found.score) < TIE}
            assert found.path in twins


def random_prompts(rng: np.random.Generator) -> list[list[int]]:
    return [rng.integers(0, VOCABULARY, length).tolist() for length in (6, 1, 11)]


def random_codes(rng: np.random.Generator, length: int) -> list[tuple[int, ...]]:
    """Distinct codes of one length, some prefixes crowded and some alone."""
    codes = np.minimum(rng.geometric(0.25, (60, length)) - 1, 25)
    return sorted({tuple(code) for code in codes.tolist()})


def random_titles(rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Titles that end in EOS: families with long common openings, titles that go on where another ends, and
    loners of up to nine tokens without a choice after the first."""
    titles = set()

    def words(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, EOS, rng.integers(low, high)).tolist())

    for _ in range(4):
        opening = words(1, 6)
        for _ in range(4):
            ending = words(0, 5)
            titles.update((*opening, *ending[:cut], EOS) for cut in {0, len(ending) // 2, len(ending)})
    for _ in range(6):
        titles.add((*words(1, 10), EOS))
    return sorted(titles)


@pytest.mark.parametrize("beams", BEAMS)
@pytest.mark.parametrize("length", [2, 4])
def test_codes_of_one_length(model: PreTrainedModel, beams: int, length: int) -> None:
    rng = np.random.default_rng([1, beams, length])
    offset = 10  # codes stand behind a text vocabulary of ten
    codes, prompts = random_codes(rng, length), random_prompts(rng)
    in_vocabulary = [tuple(code + offset for code in path) for path in codes]
    expected = hugging_face(model, prompts, in_vocabulary, beams, eos=None)
    assert_same(ours(model, prompts, build_trie(np.array(codes)), beams, offset), expected)


@pytest.mark.parametrize("beams", [3, 8])
@pytest.mark.parametrize("length_penalty", [0.5, 1.0, 2.0])
def test_titles_ranked_by_their_length_too(model: PreTrainedModel, beams: int, length_penalty: float) -> None:
    rng = np.random.default_rng([3, beams])
    titles, prompts = random_titles(rng), random_prompts(rng)
    expected = hugging_face(model, prompts, titles, beams, EOS, length_penalty)
    assert_same(ours(model, prompts, build_trie(titles), beams, length_penalty=length_penalty), expected)


@pytest.mark.parametrize("beams", BEAMS)
@pytest.mark.parametrize("seed", range(3))
def test_titles_of_any_length(model: PreTrainedModel, beams: int, seed: int) -> None:
    rng = np.random.default_rng([2, beams, seed])
    titles, prompts = random_titles(rng), random_prompts(rng)
    expected = hugging_face(model, prompts, titles, beams, eos=EOS)
    assert_same(ours(model, prompts, build_trie(titles), beams), expected)


@pytest.mark.parametrize("beams", [3, 8])
def test_fewer_paths_than_beams(model: PreTrainedModel, beams: int) -> None:
    titles = [(5, EOS), (5, 6, 7, 8, EOS)]
    expected = hugging_face(model, [[1, 2], [3]], titles, beams, eos=EOS)
    assert [len(found) for found in expected] == [2, 2]
    assert_same(ours(model, [[1, 2], [3]], build_trie(titles), beams), expected)


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("beams", [1, 5])
def test_encoder_decoders(family: str, beams: int) -> None:
    """Codes at an offset, and titles that end where they like: TIGER's shape and GENRE's."""
    model = tiny_models.ENCODER_DECODERS[family]()
    rng = np.random.default_rng([3, beams])
    codes, prompts, offset = random_codes(rng, 3), random_prompts(rng), 10
    in_vocabulary = [tuple(code + offset for code in path) for path in codes]
    expected = hugging_face(model, prompts, in_vocabulary, beams, eos=None)
    assert_same(ours(model, prompts, build_trie(np.array(codes)), beams, offset), expected)
    titles = random_titles(rng)
    expected = hugging_face(model, prompts, titles, beams, eos=EOS)
    assert_same(ours(model, prompts, build_trie(titles), beams), expected)
