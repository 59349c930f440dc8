from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GPTNeoConfig,
    GraniteConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from genrec.decoders.base import Items, Prompt, Tokens
from genrec.decoders.kv_cache import TorchState
from genrec.decoders.torch_decoder import TorchDecoder
from index.errors import DecoderError
from index.types import Float32Array, Int64Array
from tests.genrec import tiny_models
from tests.genrec.tiny_models import COMMON, ROTARY, VOCABULARY

EVERY_TOKEN = np.arange(VOCABULARY)


@pytest.fixture(scope="module", params=list(tiny_models.MODELS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_models.MODELS[request.param]()


@pytest.fixture(scope="module")
def decoder(model: PreTrainedModel) -> TorchDecoder:
    return TorchDecoder(model)


@pytest.fixture(scope="module")
def small() -> TorchDecoder:
    return TorchDecoder(tiny_models.gpt2(n_positions=8), token_offset=10)


def prompts_of(rng: np.random.Generator, lengths: Sequence[int]) -> list[Prompt]:
    return [(Tokens(rng.integers(0, VOCABULARY, length)),) for length in lengths]


def ints(*values: int) -> Int64Array:
    return np.array(values, np.int64)


def all_logits(decoder: TorchDecoder, hidden: Float32Array) -> Float32Array:
    """float32[R, V], through the edges."""
    row = np.repeat(np.arange(len(hidden)), VOCABULARY)
    logits = decoder.edge_logits(hidden, row, np.tile(EVERY_TOKEN, len(hidden))).reshape(-1, VOCABULARY)
    np.testing.assert_allclose(decoder.logits(hidden), logits, atol=1e-5)  # the same, all at once
    return logits


@torch.no_grad()
def flat_logits(model: PreTrainedModel, tokens: Sequence[int]) -> Float32Array:
    """float32[V]: the model's own next-token logits after one plain sequence."""
    logits: Float32Array = (
        model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0, -1].numpy()
    )
    return logits


class Tree:
    """What has been fed to a batch of requests, kept the slow way: every slot's whole token path."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts = [[int(t) for segment in prompt for t in segment.ids] for prompt in prompts]
        self.paths: list[list[list[int]]] = [[] for _ in prompts]

    def path(self, request: int, slot: int) -> list[int]:
        return self.paths[request][slot] if slot >= 0 else self.prompts[request]

    def draw(
        self, rng: np.random.Generator, counts: Sequence[int]
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Grow request b by counts[b] random tokens below random earlier slots, also of this very call."""
        rows = []
        for b, count in enumerate(counts):
            for _ in range(count):
                parent = int(rng.integers(-1, len(self.paths[b])))
                token = int(rng.integers(VOCABULARY))
                self.paths[b].append([*self.path(b, parent), token])
                rows.append((b, token, parent))
        columns = np.array(rows, np.int64).reshape(-1, 3).T
        return columns[0], columns[1], columns[2]


def test_prefill_gives_the_logits_of_the_model_on_left_padded_prompts(
    model: PreTrainedModel, decoder: TorchDecoder
) -> None:
    lengths = [5, 1, 9]
    prompts = prompts_of(np.random.default_rng(0), lengths)
    ids = torch.zeros((3, 9), dtype=torch.int64)
    mask = torch.zeros((3, 9), dtype=torch.int64)
    for b, length in enumerate(lengths):
        ids[b, 9 - length :] = torch.from_numpy(prompts[b][0].ids)
        mask[b, 9 - length :] = 1
    with torch.no_grad():
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        expected = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1].numpy()
    prefilled = decoder.prefill(prompts)
    np.testing.assert_allclose(all_logits(decoder, prefilled.hidden), expected, atol=1e-4)
    assert [state.slots for state in prefilled.states] == [0, 0, 0]


def test_segments_of_a_prompt_are_joined(decoder: TorchDecoder) -> None:
    whole = decoder.prefill([(Tokens(ints(3, 1, 4)),)])
    parts = decoder.prefill([(Tokens(ints(3)), Tokens(ints(1, 4)))])
    np.testing.assert_array_equal(parts.hidden, whole.hidden)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 8), min_size=3, max_size=3),
    calls=st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=4),
)
def test_any_tree_in_any_calls_scores_as_flat_sequences(
    model: PreTrainedModel,
    decoder: TorchDecoder,
    seed: int,
    lengths: list[int],
    calls: list[tuple[int, int, int]],
) -> None:
    rng = np.random.default_rng(seed)
    prompts = prompts_of(rng, lengths)
    tree = Tree(prompts)
    states = decoder.prefill(prompts).states
    for counts in calls:
        request, token, parent = tree.draw(rng, counts)
        hidden = decoder.extend(states, request, token, parent)
        assert hidden.shape == (sum(counts), 32)
        assert hidden.dtype == np.float32
        fed = [path for b, count in enumerate(counts) for path in tree.paths[b][len(tree.paths[b]) - count :]]
        expected = np.array([flat_logits(model, path) for path in fed]).reshape(-1, VOCABULARY)
        np.testing.assert_allclose(all_logits(decoder, hidden), expected, atol=1e-4)
        normalizer = np.log(np.exp(expected.astype(np.float64)).sum(axis=1))
        np.testing.assert_allclose(
            decoder.log_normalizer(hidden, np.ones(len(hidden))), normalizer, atol=1e-4
        )
    assert [state.slots for state in states] == [sum(call[b] for call in calls) for b in range(3)]


def test_a_chain_in_one_call_equals_one_token_a_call(decoder: TorchDecoder) -> None:
    prompt = prompts_of(np.random.default_rng(1), [4])
    tokens = ints(7, 7, 2, 30, 11)
    at_once = decoder.prefill(prompt).states
    chain = decoder.extend(at_once, ints(0, 0, 0, 0, 0), tokens, np.arange(-1, 4))
    one_by_one = decoder.prefill(prompt).states
    for slot, token in enumerate(tokens):
        hidden = decoder.extend(one_by_one, ints(0), ints(token), ints(slot - 1))
        np.testing.assert_allclose(chain[slot], hidden[0], atol=1e-5)


def test_results_do_not_depend_on_batch_mates(decoder: TorchDecoder) -> None:
    rng = np.random.default_rng(2)
    prompts = prompts_of(rng, [3, 40, 1])
    together = decoder.prefill(prompts)
    calls = [Tree(prompts).draw(rng, [4, 0, 9])]
    calls.append((ints(0, 1, 1, 1, 2), ints(5, 6, 7, 8, 9), ints(2, -1, 0, 1, 8)))
    alone = [decoder.prefill([prompt]) for prompt in prompts]
    np.testing.assert_allclose(together.hidden, np.concatenate([one.hidden for one in alone]), atol=1e-5)
    for request, token, parent in calls:
        hidden = decoder.extend(together.states, request, token, parent)
        for b in range(3):
            own = request == b
            expected = decoder.extend(alone[b].states, 0 * request[own], token[own], parent[own])
            np.testing.assert_allclose(hidden[own], expected, atol=1e-5)


def test_a_fork_and_its_origin_go_their_own_ways(model: PreTrainedModel, decoder: TorchDecoder) -> None:
    (state,) = decoder.prefill([(Tokens(ints(1, 2, 3)),)]).states
    decoder.extend([state], ints(0, 0), ints(4, 5), ints(-1, 0))
    fork = state.fork()
    decoder.extend([state], ints(0, 0), ints(20, 21), ints(1, 1))
    forked = decoder.extend([fork], ints(0), ints(30), ints(1))
    kept = decoder.extend([state], ints(0), ints(22), ints(2))
    assert (state.slots, fork.slots) == (5, 3)
    np.testing.assert_allclose(
        all_logits(decoder, forked)[0], flat_logits(model, [1, 2, 3, 4, 5, 30]), atol=1e-4
    )
    np.testing.assert_allclose(
        all_logits(decoder, kept)[0], flat_logits(model, [1, 2, 3, 4, 5, 20, 22]), atol=1e-4
    )


def test_compacting_renumbers_what_lives_and_frees_the_rest(
    model: PreTrainedModel, decoder: TorchDecoder
) -> None:
    (state,) = decoder.prefill([(Tokens(ints(1, 2, 3)),)]).states
    #               slot:                0   1   2   3   4
    decoder.extend([state], ints(*[0] * 5), ints(10, 11, 12, 13, 14), ints(-1, -1, 0, 1, 2))
    before = state.nbytes
    state.compact(ints(0, 2, 4))
    assert state.slots == 3
    assert state.nbytes < before
    hidden = decoder.extend([state], ints(0, 0), ints(20, 21), ints(2, 0))
    logits = all_logits(decoder, hidden)
    np.testing.assert_allclose(logits[0], flat_logits(model, [1, 2, 3, 10, 12, 14, 20]), atol=1e-4)
    np.testing.assert_allclose(logits[1], flat_logits(model, [1, 2, 3, 10, 21]), atol=1e-4)


def test_compacting_to_nothing_leaves_the_prompt(model: PreTrainedModel, decoder: TorchDecoder) -> None:
    (state,) = decoder.prefill([(Tokens(ints(1, 2, 3)),)]).states
    decoder.extend([state], ints(0), ints(10), ints(-1))
    state.compact(ints())
    assert state.slots == 0
    hidden = decoder.extend([state], ints(0), ints(20), ints(-1))
    np.testing.assert_allclose(all_logits(decoder, hidden)[0], flat_logits(model, [1, 2, 3, 20]), atol=1e-4)


@pytest.mark.parametrize(
    ("live", "message"),
    [
        ([1], "slot 1 without its parent 0"),
        ([0, 2], "ascending slots below 2"),
        ([1, 0], "ascending"),
        ([-1, 0], "ascending"),
    ],
)
def test_compacting_refuses_a_broken_choice(live: list[int], message: str) -> None:
    decoder = TorchDecoder(tiny_models.llama())
    (state,) = decoder.prefill([(Tokens(ints(1)),)]).states
    decoder.extend([state], ints(0, 0), ints(2, 3), ints(-1, 0))
    with pytest.raises(DecoderError, match=message):
        state.compact(ints(*live))
    assert state.slots == 2


def test_one_request_is_extended_in_place(decoder: TorchDecoder) -> None:
    (state,) = decoder.prefill([(Tokens(ints(1, 2, 3)),)]).states
    assert isinstance(state, TorchState)
    buffers = [buffer.data_ptr() for buffer in state.keys + state.values]
    for slot in range(8):
        decoder.extend([state], ints(0), ints(slot), ints(slot - 1))
    assert [buffer.data_ptr() for buffer in state.keys + state.values] == buffers


def test_buffers_grow_past_their_spare_room(model: PreTrainedModel, decoder: TorchDecoder) -> None:
    (state,) = decoder.prefill([(Tokens(ints(1, 2, 3)),)]).states
    for slot in range(90):  # more than the room for 64 that a prefill leaves
        hidden = decoder.extend([state], ints(0), ints(slot % VOCABULARY), ints(slot - 1))
    path = [1, 2, 3, *(slot % VOCABULARY for slot in range(90))]
    np.testing.assert_allclose(all_logits(decoder, hidden)[0], flat_logits(model, path), atol=1e-4)


def test_the_token_offset_moves_the_search_and_not_the_prompt() -> None:
    model = tiny_models.qwen3()
    plain, shifted = TorchDecoder(model), TorchDecoder(model, token_offset=30)
    prompt: list[Prompt] = [(Tokens(ints(1, 2, 35)),)]
    expected, got = plain.prefill(prompt), shifted.prefill(prompt)
    np.testing.assert_array_equal(got.hidden, expected.hidden)
    deeper = plain.extend(expected.states, ints(0), ints(34), ints(-1))
    np.testing.assert_array_equal(shifted.extend(got.states, ints(0), ints(4), ints(-1)), deeper)
    edges = shifted.edge_logits(deeper, ints(0, 0), ints(9, 0))
    np.testing.assert_array_equal(edges, plain.edge_logits(deeper, ints(0, 0), ints(39, 30)))
    np.testing.assert_array_equal(shifted.logits(deeper), plain.logits(deeper)[:, 30:])


def test_scoring_in_chunks_changes_nothing(decoder: TorchDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(7, 32)).astype(np.float32)
    hidden.flags.writeable = False  # as an array that came from a file would be
    row, token = rng.integers(0, 7, 50), rng.integers(0, VOCABULARY, 50)
    edges, normalizer = (
        decoder.edge_logits(hidden, row, token),
        decoder.log_normalizer(hidden, ints(*range(7))),
    )
    monkeypatch.setattr("genrec.decoders.output_head._CHUNK_FLOATS", 100)
    np.testing.assert_allclose(decoder.edge_logits(hidden, row, token), edges, atol=1e-5)
    np.testing.assert_allclose(decoder.log_normalizer(hidden, ints(*range(7))), normalizer, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "tokens"), [([0] * 6, [1, 2, 3, 4, 5, 6]), ([3, 1, 6, 6], [9, 9, 9, 9]), ([2], [39])]
)
def test_shared_and_distinct_tokens_score_alike(
    model: PreTrainedModel, decoder: TorchDecoder, rows: list[int], tokens: list[int]
) -> None:
    hidden = np.random.default_rng(4).normal(size=(7, 32)).astype(np.float32)
    with torch.no_grad():
        expected = model.get_output_embeddings()(torch.from_numpy(hidden)).numpy()[rows, tokens]
    np.testing.assert_allclose(decoder.edge_logits(hidden, ints(*rows), ints(*tokens)), expected, atol=1e-5)


def test_nothing_in_gives_nothing_out(decoder: TorchDecoder) -> None:
    prefilled = decoder.prefill([])
    assert (prefilled.states, prefilled.hidden.shape) == ([], (0, 32))
    states = decoder.prefill([(Tokens(ints(1)),)]).states
    assert decoder.extend(states, ints(), ints(), ints()).shape == (0, 32)
    assert decoder.edge_logits(prefilled.hidden, ints(), ints()).shape == (0,)
    assert decoder.log_normalizer(prefilled.hidden, ints()).shape == (0,)


def test_a_saved_model_is_loaded(tmp_path: Path) -> None:
    model = tiny_models.llama()
    model.save_pretrained(tmp_path)
    prompt: list[Prompt] = [(Tokens(ints(1, 2, 3)),)]
    loaded = TorchDecoder.load(tmp_path, token_offset=2)
    assert loaded.token_offset == 2
    np.testing.assert_array_equal(loaded.prefill(prompt).hidden, TorchDecoder(model).prefill(prompt).hidden)


def test_a_model_in_half_precision_scores_within_its_rounding() -> None:
    prompt: list[Prompt] = [(Tokens(ints(1, 2, 3)),)]
    exact = TorchDecoder(tiny_models.qwen3()).prefill(prompt).hidden
    half = TorchDecoder(tiny_models.qwen3().bfloat16()).prefill(prompt).hidden
    assert half.dtype == np.float32
    assert 0 < np.abs(half - exact).max() < 0.1


class TestRefusals:
    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ((), "at least one token"),
            ((Tokens(ints()),), "at least one token"),
            ((Tokens(ints(1)), Items(ints(4))), "got Items"),
            ((Tokens(ints(1, VOCABULARY)),), "0 .. 39, got 1 .. 40"),
            ((Tokens(ints(-1)),), "0 .. 39, got -1"),
            ((Tokens(ints(*range(9))),), "at most 8 tokens of prompt and answer, got 9"),
        ],
    )
    def test_prompts(self, small: TorchDecoder, prompt: Prompt, message: str) -> None:
        with pytest.raises(DecoderError, match=message):
            small.prefill([(Tokens(ints(1)),), prompt])

    @pytest.mark.parametrize(
        ("token", "parent", "message"),
        [
            ([30], [-1], "got 40 .. 40 .token_offset 10"),
            ([1], [0], "parent of slot 0 .* got 0"),
            ([1], [-2], "got -2"),
            ([1, 2], [1, -1], "parent of slot 0 .* got 1"),
            ([1, 2, 3], [-1, 0, 1], "at most 8 tokens of prompt and answer, got 9"),
        ],
    )
    def test_rows(self, small: TorchDecoder, token: list[int], parent: list[int], message: str) -> None:
        states = small.prefill([(Tokens(ints(*range(6))),)]).states
        with pytest.raises(DecoderError, match=message):
            small.extend(states, ints(*[0] * len(token)), ints(*token), ints(*parent))
        assert states[0].slots == 0

    def test_edges(self, small: TorchDecoder) -> None:
        with pytest.raises(DecoderError, match="use the tokenizer"):
            small.edge_logits(np.zeros((1, 32), np.float32), ints(0), ints(30))

    def test_one_state_for_two_requests(self, small: TorchDecoder) -> None:
        (state,) = small.prefill([(Tokens(ints(1)),)]).states
        with pytest.raises(DecoderError, match="fork it"):
            small.extend([state, state], ints(0, 1), ints(1, 2), ints(-1, -1))

    def test_rows_out_of_order(self, small: TorchDecoder) -> None:
        states = small.prefill([(Tokens(ints(1)),), (Tokens(ints(1)),)]).states
        with pytest.raises(DecoderError, match="order of their requests"):
            small.extend(states, ints(1, 0), ints(1, 2), ints(-1, -1))

    def test_states_of_another_decoder(self, small: TorchDecoder) -> None:
        with pytest.raises(DecoderError, match="another decoder"):
            small.extend([None], ints(0), ints(1), ints(-1))  # type: ignore[list-item]

    @pytest.mark.parametrize("offset", [-1, VOCABULARY])
    def test_offsets(self, offset: int) -> None:
        with pytest.raises(DecoderError, match="0 <= token_offset < 40"):
            TorchDecoder(tiny_models.gpt2(), token_offset=offset)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (GraniteConfig(**ROTARY, logits_scaling=3.0), "hidden @ head.T . bias"),
            (Gemma2Config(**ROTARY, final_logit_softcapping=2.0), "hidden @ head.T . bias"),
            (BloomConfig(**COMMON, n_layer=1, n_head=4), "takes position_ids"),
            (
                GPTNeoConfig(**COMMON, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]),
                "'local'",
            ),
        ],
    )
    def test_architectures(self, config: PreTrainedConfig, message: str) -> None:
        with pytest.raises(DecoderError, match=message):
            TorchDecoder(AutoModelForCausalLM.from_config(config))

    def test_a_body_without_a_head(self) -> None:
        with pytest.raises(DecoderError, match="load it with AutoModelForCausalLM"):
            TorchDecoder(tiny_models.llama().base_model)

    def test_more_than_the_window_of_sliding_attention(self) -> None:
        config = MistralConfig(**ROTARY, num_key_value_heads=2, sliding_window=6)
        decoder = TorchDecoder(AutoModelForCausalLM.from_config(config))
        decoder.prefill([(Tokens(ints(*range(6))),)])
        with pytest.raises(DecoderError, match="at most 6 tokens"):
            decoder.prefill([(Tokens(ints(*range(7))),)])
