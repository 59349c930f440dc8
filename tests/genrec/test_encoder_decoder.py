"""EncoderDecoder: a tree of tokens behind an encoded prompt scores as each path alone, through the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM, PegasusConfig, PreTrainedModel

from genrec.bundle import load_bundle, save_bundle
from genrec.decoders.base import Items, Prompt, ReusesPrompts, Tokens
from genrec.decoders.encoder_decoder import EncoderDecoder
from genrec.decoders.exported import ENCODER_DECODER
from genrec.decoders.onnx_export import export_bundle
from genrec.decoders.prompt_reader import HistoryForm
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.recommender import Recommender
from genrec.tasks import TaskDefaults
from index.errors import DecoderError
from index.item_index import SEMANTIC_ID
from index.types import Float32Array, Int64Array
from tests.genrec import tiny_models
from tests.genrec.test_torch_decoder import Tree, all_logits, ints, prompts_of
from tests.genrec.tiny_models import BART_LIKE, VOCABULARY
from tests.toy import toy_index


@pytest.fixture(scope="module", params=list(tiny_models.ENCODER_DECODERS))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_models.ENCODER_DECODERS[request.param]()


@pytest.fixture(scope="module")
def decoder(model: PreTrainedModel) -> EncoderDecoder:
    return EncoderDecoder(model)


@torch.no_grad()
def flat_logits(model: PreTrainedModel, prompt: Sequence[int], path: Sequence[int]) -> Float32Array:
    """float32[V]: the model's own next-token logits after one plain answer to one plain prompt."""
    answer = torch.tensor([[model.config.decoder_start_token_id, *path]])
    output = model(input_ids=torch.tensor([list(prompt)]), decoder_input_ids=answer, use_cache=False)
    logits: Float32Array = output.logits[0, -1].numpy()
    return logits


def flat(model: PreTrainedModel, tree: Tree, request: int, slot: int) -> Float32Array:
    prompt = tree.prompts[request]
    return flat_logits(model, prompt, tree.path(request, slot)[len(prompt) :])


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 20), min_size=3, max_size=3),
    calls=st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=4),
)
def test_any_tree_in_any_calls_scores_as_flat_answers(
    model: PreTrainedModel,
    decoder: EncoderDecoder,
    seed: int,
    lengths: list[int],
    calls: list[tuple[int, int, int]],
) -> None:
    rng = np.random.default_rng(seed)
    prompts = prompts_of(rng, lengths)
    tree = Tree(prompts)
    prefilled = decoder.prefill(prompts)
    expected = np.array([flat(model, tree, b, -1) for b in range(3)])
    np.testing.assert_allclose(all_logits(decoder, prefilled.hidden), expected, atol=1e-4)
    for counts in calls:
        request, token, parent = tree.draw(rng, counts)
        hidden = decoder.extend(prefilled.states, request, token, parent)
        fed = [
            (b, slot) for b, n in enumerate(counts) for slot in range(len(tree.paths[b]))[-n or None :] if n
        ]
        expected = np.array([flat(model, tree, b, slot) for b, slot in fed]).reshape(-1, VOCABULARY)
        np.testing.assert_allclose(all_logits(decoder, hidden), expected, atol=1e-4)
        normalizer = np.log(np.exp(expected.astype(np.float64)).sum(axis=1))
        np.testing.assert_allclose(
            decoder.log_normalizer(hidden, np.ones(len(hidden))), normalizer, atol=1e-4
        )


def test_a_long_answer_goes_beyond_all_distances_told_apart(
    model: PreTrainedModel, decoder: EncoderDecoder
) -> None:
    """T5 tells distances up to 12 apart here; a chain of 30 in one call, and a branch at its end, cross that."""
    tokens = np.arange(30) % VOCABULARY
    (state,) = decoder.prefill([(Tokens(ints(3, 1, 4)),)]).states
    chain = decoder.extend([state], ints(*[0] * 30), tokens, np.arange(-1, 29))
    branch = decoder.extend([state], ints(0, 0), ints(7, 8), ints(20, 29))
    got = all_logits(decoder, np.concatenate([chain[[5, 29]], branch]))
    paths = [tokens[:6], tokens, [*tokens[:21], 7], [*tokens, 8]]
    expected = [flat_logits(model, [3, 1, 4], path) for path in paths]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_positions_matter_in_these_models(model: PreTrainedModel) -> None:
    """Otherwise the tests above would pass with none, or with the columns' own."""
    one, other = flat_logits(model, [3, 1], [5, 6, 7]), flat_logits(model, [3, 1], [6, 5, 7])
    assert np.abs(one - other).max() > 0.01


def test_what_is_read_of_the_prompt_is_kept_once(decoder: EncoderDecoder) -> None:
    (state,) = decoder.prefill([(Tokens(np.arange(40)),)]).states
    before = state.nbytes
    decoder.extend([state], ints(*[0] * 20), ints(*range(20)), ints(*[-1] * 20))
    fork = state.fork()
    assert state.nbytes < 2 * before, "twenty prefixes do not copy forty positions"
    assert fork.cross is state.cross  # type: ignore[attr-defined]
    decoder.extend([fork], ints(0), ints(1), ints(3))
    assert (fork.slots, state.slots) == (21, 20)


def test_compacted_states_go_on_where_they_were(model: PreTrainedModel, decoder: EncoderDecoder) -> None:
    (state,) = decoder.prefill([(Tokens(ints(1, 2, 3)),)]).states
    decoder.extend([state], ints(*[0] * 5), ints(10, 11, 12, 13, 14), ints(-1, -1, 0, 1, 2))
    state.compact(ints(0, 2, 4))
    hidden = decoder.extend([state], ints(0, 0), ints(20, 21), ints(2, 0))
    expected = [flat_logits(model, [1, 2, 3], path) for path in ([10, 12, 14, 20], [10, 21])]
    np.testing.assert_allclose(all_logits(decoder, hidden), expected, atol=1e-4)


def test_a_kept_state_serves_the_same_prompt_only(decoder: EncoderDecoder) -> None:
    assert isinstance(decoder, ReusesPrompts)
    prompts: list[Prompt] = [(Tokens(ints(1, 2, 3)),), (Tokens(ints(1, 2, 3, 4)),)]
    fresh = decoder.prefill(prompts)
    decoder.extend(fresh.states, ints(0, 1), ints(5, 6), ints(-1, -1))
    again = decoder.prefill(prompts, [fresh.states[0], fresh.states[0]])
    np.testing.assert_allclose(again.hidden, fresh.hidden, atol=1e-5)
    assert again.states[0].cross is fresh.states[0].cross  # type: ignore[attr-defined]
    assert again.states[1].cross is not fresh.states[0].cross  # type: ignore[attr-defined]
    assert [state.slots for state in again.states] == [0, 0]


def test_a_saved_model_is_loaded(tmp_path: Path) -> None:
    model = tiny_models.t5()
    model.save_pretrained(tmp_path)
    prompt: list[Prompt] = [(Tokens(ints(1, 2, 3)),)]
    loaded = EncoderDecoder.load(tmp_path, token_offset=2)
    assert loaded.token_offset == 2
    expected = EncoderDecoder(model).prefill(prompt).hidden
    np.testing.assert_array_equal(loaded.prefill(prompt).hidden, expected)


def test_a_bundle_of_one_recommends_and_says_what_it_cannot(tmp_path: Path) -> None:
    index = toy_index()
    form, offset = HistoryForm(start=(1,), max_items=4, end=(2,)), 5
    model = tiny_models.t5(vocab_size=offset + sum(index.level_sizes))
    save_bundle(
        tmp_path / "bundle",
        index,
        model.save_pretrained,
        family=ENCODER_DECODER,
        tasks={SEMANTIC_ID: TaskDefaults(beam=10)},
        trained_events=np.zeros(0, np.uint64),
        facts={"token_offset": offset, "history": form.to_dict()},
    )
    recommender = Recommender.load(tmp_path / "bundle")
    answer = recommender.recommend(["i0", "i4"], k=len(index.catalog), exclude_seen=False)
    assert {item.item_id for item in answer.items} == set(index.catalog.item_ids)
    assert sum(np.exp(item.score) for item in answer.items) == pytest.approx(1.0)
    codes = index.level_tokens + offset
    prompt = [1, *codes[0].tolist(), *codes[4].tolist(), 2]
    path = codes[int(index.catalog.rows_of([answer.items[0].item_id])[0])].tolist()
    expected, alike = 0.0, np.ones(len(codes), bool)
    for depth, code in enumerate(path):
        logits = flat_logits(model, prompt, path[:depth]).astype(np.float64)
        expected += logits[code] - np.log(np.exp(logits[np.unique(codes[alike, depth])]).sum())
        alike &= codes[:, depth] == code
    assert answer.items[0].score == pytest.approx(expected, abs=1e-4)
    with pytest.raises(DecoderError, match="to export, got EncoderDecoder, which torch runs"):
        export_bundle(tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").export is None


def test_nothing_in_gives_nothing_out(decoder: EncoderDecoder) -> None:
    assert decoder.prefill([]).states == []
    states = decoder.prefill([(Tokens(ints(1)),)]).states
    assert decoder.extend(states, ints(), ints(), ints()).shape == (0, 32)


class TestRefusals:
    def test_a_causal_model(self, tmp_path: Path) -> None:
        tiny_models.gpt2().save_pretrained(tmp_path)
        with pytest.raises(DecoderError, match=r"encoder-decoder such as T5 in .*, got 'gpt2'"):
            EncoderDecoder.load(tmp_path)

    def test_an_unknown_kind(self) -> None:
        config = PegasusConfig(**BART_LIKE)
        with pytest.raises(DecoderError, match="T5ForConditionalGeneration, got PegasusFor"):
            EncoderDecoder(AutoModelForSeq2SeqLM.from_config(config))

    def test_no_start_token(self) -> None:
        with pytest.raises(DecoderError, match="decoder_start_token_id"):
            EncoderDecoder(tiny_models.t5(decoder_start_token_id=None))

    def test_layers_that_are_not_the_models(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The probe at the door: were T5's distances taken by column, every search would be off."""
        from genrec.decoders.cross_body import T5Body

        def by_column(self: T5Body, position: Int64Array, sees: np.ndarray) -> torch.Tensor:
            attention = self._decoder.block[0].layer[0].SelfAttention
            return attention.compute_bias(sees.shape[1], sees.shape[2])  # type: ignore[no-any-return]

        monkeypatch.setattr(T5Body, "_bias", by_column)
        with pytest.raises(DecoderError, match="layers run one by one"):
            EncoderDecoder(tiny_models.t5())

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ((), "at least one token"),
            ((Items(ints(4)),), "got Items"),
            ((Tokens(ints(VOCABULARY)),), "0 .. 39, got 40"),
            ((Tokens(ints(*range(9))),), "at most 8 tokens of prompt and answer, got 9"),
        ],
    )
    def test_prompts(self, prompt: Prompt, message: str) -> None:
        decoder = EncoderDecoder(tiny_models.bart(max_position_embeddings=8))
        with pytest.raises(DecoderError, match=message):
            decoder.prefill([(Tokens(ints(1)),), prompt])

    def test_states_of_another_decoder(self, decoder: EncoderDecoder) -> None:
        states = TorchDecoder(tiny_models.gpt2()).prefill([(Tokens(ints(1)),)]).states
        with pytest.raises(DecoderError, match=r"EncoderDecoder.prefill, got those of another"):
            decoder.extend(states, ints(0), ints(1), ints(-1))
        with pytest.raises(DecoderError, match=r"EncoderDecoder.prefill, got those of another"):
            decoder.prefill([(Tokens(ints(1)),)], states)
