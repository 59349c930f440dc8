"""The exported language model against the same one in torch: every logit, tree and answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders.base import Decoder, Items, Prompt, ReusesPrompts, Tokens
from genrec.decoders.body_shape import BodyShape
from genrec.decoders.onnx_decoder import OnnxDecoder, OnnxState
from genrec.decoders.prompt_reader import HistoryForm, PromptReader
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.search import SearchRequest, search
from index.errors import DecoderError, IndexFormatError
from index.item_filter import Allowed
from index.trie import build_trie
from index.types import Float32Array
from tests.genrec import tiny_models
from tests.genrec.onnx_models import FAMILIES, exported
from tests.genrec.test_torch_decoder import Tree, all_logits, ints, prompts_of
from tests.genrec.tiny_models import VOCABULARY

SHAPE = BodyShape(layers=2, key_heads=2, head_size=16, hidden_size=32)


class Pair:
    def __init__(self, family: str, directory: Path) -> None:
        self.torch = TorchDecoder(tiny_models.MODELS[family]())
        self.onnx = exported(self.torch, directory)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> OnnxDecoder:
    decoder = TorchDecoder(tiny_models.gpt2(n_positions=8), token_offset=10)
    return exported(decoder, tmp_path_factory.mktemp("small"))


def logits(decoder: Decoder, hidden: Float32Array) -> Float32Array:
    return all_logits(decoder, hidden)  # type: ignore[arg-type]


def assert_alike(pair: Pair, hidden: Float32Array, expected: Float32Array) -> None:
    np.testing.assert_allclose(logits(pair.onnx, hidden), logits(pair.torch, expected), atol=1e-4)
    np.testing.assert_allclose(pair.onnx.logits(hidden), logits(pair.onnx, hidden), atol=1e-5)
    depth = np.zeros(len(hidden), np.int64)
    np.testing.assert_allclose(
        pair.onnx.log_normalizer(hidden, depth), pair.torch.log_normalizer(expected, depth), atol=1e-4
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    calls=st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=4),
)
def test_any_tree_in_any_calls_scores_as_in_torch(
    pair: Pair, seed: int, lengths: list[int], calls: list[tuple[int, int, int]]
) -> None:
    rng = np.random.default_rng(seed)
    prompts = prompts_of(rng, lengths)
    ours, theirs = pair.onnx.prefill(prompts), pair.torch.prefill(prompts)
    assert_alike(pair, ours.hidden, theirs.hidden)
    tree = Tree(prompts)
    for counts in calls:
        rows = tree.draw(rng, counts)
        hidden = pair.onnx.extend(ours.states, *rows)
        assert hidden.dtype == np.float32
        assert_alike(pair, hidden, pair.torch.extend(theirs.states, *rows))
    assert [one.slots for one in ours.states] == [one.slots for one in theirs.states]


def test_a_batch_equals_its_requests_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.decoders.onnx_session._GROUP_POSITIONS", 60)  # several groups
    prompts = prompts_of(np.random.default_rng(2), [3, 40, 1, 17, 40])
    together = pair.onnx.prefill(prompts).hidden
    alone = np.concatenate([pair.onnx.prefill([prompt]).hidden for prompt in prompts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_answers_equal_those_of_torch_under_filters_and_in_any_batch(pair: Pair) -> None:
    """The promise to a user: items, order and scores, however requests were batched."""
    rng = np.random.default_rng(5)
    codes = np.unique(rng.integers(0, 10, (150, 4)), axis=0) + 10 * np.arange(4)
    trie = build_trie(codes)
    requests = []
    for place in range(24):
        mask = None if place % 3 == 0 else rng.random(len(trie)) < (0.5, 0.05)[place % 2]
        allowed = Allowed.build(mask, rng.integers(0, len(trie), 3))
        prompt = prompts_of(rng, [int(rng.integers(1, 30))])[0]
        requests.append(SearchRequest(prompt, k=5, beam=10, allowed=allowed, exact=place % 5 == 0))
    expected = search(pair.torch, trie, requests)
    for size in (1, 5, 24):
        chunks = [requests[i : i + size] for i in range(0, len(requests), size)]
        found = [result for chunk in chunks for result in search(pair.onnx, trie, chunk)]
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.ranks, theirs.ranks)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
            assert ours.certified == theirs.certified


@pytest.mark.parametrize("which", ["onnx", "torch"])
class TestKeptPrompts:
    def decoder(self, pair: Pair, which: str) -> ReusesPrompts:
        decoder: ReusesPrompts = getattr(pair, which)
        assert isinstance(decoder, ReusesPrompts)
        return decoder

    def check(self, decoder: ReusesPrompts, prompts: Sequence[Prompt], kept: Sequence[object]) -> None:
        """A prefill from kept states equals a fresh one, then and for everything fed after."""
        reused, fresh = decoder.prefill(prompts, kept), decoder.prefill(prompts)  # type: ignore[arg-type]
        np.testing.assert_allclose(reused.hidden, fresh.hidden, atol=1e-5)
        rows = Tree(prompts).draw(np.random.default_rng(1), [3] * len(prompts))
        np.testing.assert_allclose(
            decoder.extend(reused.states, *rows), decoder.extend(fresh.states, *rows), atol=1e-5
        )

    def test_a_prompt_gone_on_with_costs_what_is_new_and_scores_the_same(
        self, pair: Pair, which: str
    ) -> None:
        decoder = self.decoder(pair, which)
        begun = prompts_of(np.random.default_rng(3), [9, 4, 12, 1])
        kept = decoder.prefill(begun).states
        decoder.extend(kept, *Tree(begun).draw(np.random.default_rng(4), [5, 1, 0, 3]))
        longer = [(*prompt, Tokens(ints(3, 1, 4))) for prompt in begun]
        self.check(decoder, longer, kept)
        self.check(decoder, begun, kept)  # the very same
        self.check(decoder, longer[::-1], kept)  # nothing, or the first token or two, in common
        self.check(decoder, [(Tokens(begun[0][0].ids[:4]),), *longer[1:]], [kept[0], None, kept[2], None])  # type: ignore[union-attr]

    def test_one_state_serves_several_prompts_and_stays_what_it_was(self, pair: Pair, which: str) -> None:
        decoder = self.decoder(pair, which)
        (begun,) = prompts_of(np.random.default_rng(6), [10])
        (state,) = decoder.prefill([begun]).states
        held, untouched = state.nbytes, decoder.prefill([begun]).states
        self.check(decoder, [(*begun, Tokens(ints(token))) for token in (1, 2, 3)], [state] * 3)
        assert (state.slots, state.nbytes) == (0, held)
        rows = (ints(0, 0), ints(7, 8), ints(-1, 0))
        np.testing.assert_allclose(
            decoder.extend([state], *rows), decoder.extend(untouched, *rows), atol=1e-6
        )

    def test_keys_are_the_tokens_read(self, pair: Pair, which: str) -> None:
        decoder = self.decoder(pair, which)
        assert decoder.prompt_key((Tokens(ints(3)), Tokens(ints(1, 4)))).tolist() == [3, 1, 4]
        with pytest.raises(DecoderError, match="at least one token"):
            decoder.prompt_key(())

    def test_another_decoders_state_is_refused(self, pair: Pair, which: str) -> None:
        other: Decoder = pair.torch if which == "onnx" else pair.onnx
        prompt: list[Prompt] = [(Tokens(ints(1, 2)),)]
        with pytest.raises(DecoderError, match="another decoder"):
            self.decoder(pair, which).prefill(prompt, other.prefill(prompt).states)


def test_a_kept_prompt_is_not_run_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    (begun,) = prompts_of(np.random.default_rng(3), [50])
    (state,) = pair.onnx.prefill([begun]).states
    run = pair.onnx._body._session.run
    widths = []

    def counting(inputs: dict[str, Float32Array]) -> list[Float32Array]:
        widths.append(inputs["embedded"].shape[1])
        return run(inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(pair.onnx._body._session, "run", counting)
    pair.onnx.prefill([(*begun, Tokens(ints(1, 2)))], [state])
    assert widths == [2]


def test_a_fork_and_its_origin_go_their_own_ways(pair: Pair) -> None:
    prompt: list[Prompt] = [(Tokens(ints(1, 2, 3)),)]
    (state,) = pair.onnx.prefill(prompt).states
    pair.onnx.extend([state], ints(0, 0), ints(4, 5), ints(-1, 0))
    fork = state.fork()
    assert fork.nbytes < state.nbytes  # no spare room
    pair.onnx.extend([state], ints(0, 0), ints(20, 21), ints(1, 1))
    forked = pair.onnx.extend([fork], ints(0), ints(30), ints(1))
    (other,) = pair.torch.prefill(prompt).states
    pair.torch.extend([other], ints(0, 0), ints(4, 5), ints(-1, 0))
    assert_alike(pair, forked, pair.torch.extend([other], ints(0), ints(30), ints(1)))
    assert (state.slots, fork.slots) == (4, 3)


def test_compacting_renumbers_what_lives_and_frees_the_rest(pair: Pair) -> None:
    (state,) = pair.onnx.prefill([(Tokens(ints(1, 2, 3)),)]).states
    pair.onnx.extend([state], ints(*[0] * 5), ints(10, 11, 12, 13, 14), ints(-1, -1, 0, 1, 2))
    before = state.nbytes
    state.compact(ints(0, 2, 4))
    assert state.slots == 3
    assert state.nbytes < before
    hidden = pair.onnx.extend([state], ints(0), ints(20), ints(2))
    path: list[Prompt] = [(Tokens(ints(1, 2, 3, 10, 12, 14, 20)),)]
    assert_alike(pair, hidden, pair.torch.prefill(path).hidden)
    with pytest.raises(DecoderError, match="slot 1 without its parent 0"):
        state.compact(ints(1))


def test_memory_is_counted(small: OnnxDecoder) -> None:
    (state,) = small.prefill([(Tokens(ints(1, 2, 3)),)]).states
    assert isinstance(state, OnnxState)
    keys_and_values = 2 * 2 * 4 * (3 + 64) * 8 * 4  # 2 layers, 4 heads of 8, room for 64 more, 4 bytes
    assert state.nbytes == keys_and_values + 3 * 8


@pytest.mark.parametrize("family", ["gpt2", "phi"])
def test_scoring_in_chunks_and_with_a_bias_changes_nothing(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrec.decoders.numpy_head import NumpyHead

    decoder = TorchDecoder(tiny_models.MODELS[family]())
    head = decoder.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    bias = None if head.bias is None else head.bias.detach().numpy()
    ours = NumpyHead(head.weight.detach().numpy(), bias)
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(7, 32)).astype(np.float32)
    row, token = rng.integers(0, 7, 50), rng.integers(0, VOCABULARY, 50)
    shared = np.tile(np.arange(9), 7)
    for chunk in (2**23, 100):
        monkeypatch.setattr("genrec.decoders.numpy_head._CHUNK_FLOATS", chunk)
        for rows, tokens in ((row, token), (np.repeat(np.arange(7), 9), shared), (ints(2), ints(39))):
            expected = decoder.edge_logits(hidden, rows, tokens)
            np.testing.assert_allclose(ours.edge_logits(hidden, rows, tokens), expected, atol=1e-5)
        np.testing.assert_allclose(
            ours.log_normalizer(hidden), decoder.log_normalizer(hidden, ints(*range(7))), atol=1e-5
        )


def test_nothing_in_gives_nothing_out(small: OnnxDecoder) -> None:
    prefilled = small.prefill([])
    assert (prefilled.states, prefilled.hidden.shape) == ([], (0, 32))
    states = small.prefill([(Tokens(ints(1)),)]).states
    assert small.extend(states, ints(), ints(), ints()).shape == (0, 32)
    assert small.edge_logits(prefilled.hidden, ints(), ints()).shape == (0,)
    assert small.log_normalizer(prefilled.hidden, ints()).shape == (0,)


class TestRefusals:
    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ((), "at least one token"),
            ((Tokens(ints(1)), Items(ints(4))), "got Items"),
            ((Tokens(ints(1, VOCABULARY)),), "0 .. 39, got 1 .. 40"),
            ((Tokens(ints(*range(9))),), "at most 8 tokens of prompt and answer, got 9"),
        ],
    )
    def test_prompts(self, small: OnnxDecoder, prompt: Prompt, message: str) -> None:
        with pytest.raises(DecoderError, match=message):
            small.prefill([(Tokens(ints(1)),), prompt])

    @pytest.mark.parametrize(
        ("token", "parent", "message"),
        [
            ([30], [-1], "got 40 .. 40 .token_offset 10"),
            ([1], [0], "parent of slot 0 .* got 0"),
            ([1, 2, 3], [-1, 0, 1], "at most 8 tokens of prompt and answer, got 9"),
        ],
    )
    def test_rows(self, small: OnnxDecoder, token: list[int], parent: list[int], message: str) -> None:
        states = small.prefill([(Tokens(ints(*range(6))),)]).states
        held = states[0].nbytes
        with pytest.raises(DecoderError, match=message):
            small.extend(states, ints(*[0] * len(token)), ints(*token), ints(*parent))
        assert (states[0].slots, states[0].nbytes) == (0, held)

    def test_one_state_for_two_requests(self, small: OnnxDecoder) -> None:
        (state,) = small.prefill([(Tokens(ints(1)),)]).states
        with pytest.raises(DecoderError, match="fork it"):
            small.extend([state, state], ints(0, 1), ints(1, 2), ints(-1, -1))

    def test_rows_out_of_order(self, small: OnnxDecoder) -> None:
        states = small.prefill([(Tokens(ints(1)),), (Tokens(ints(1)),)]).states
        with pytest.raises(DecoderError, match="order of their requests"):
            small.extend(states, ints(1, 0), ints(1, 2), ints(-1, -1))

    def test_edges(self, small: OnnxDecoder) -> None:
        with pytest.raises(DecoderError, match="use the tokenizer"):
            small.edge_logits(np.zeros((1, 32), np.float32), ints(0), ints(30))

    def test_a_graph_that_is_none(self, small: OnnxDecoder, tmp_path: Path) -> None:
        with pytest.raises(IndexFormatError, match=r"body.onnx, got none; export the bundle again"):
            OnnxDecoder.open(tmp_path, tmp_path, SHAPE, None)
        (tmp_path / "body.onnx").write_bytes(b"no graph")
        with pytest.raises(IndexFormatError, match="expected a graph that onnxruntime"):
            OnnxDecoder.open(tmp_path, tmp_path, SHAPE, None)


class TestReadingHistories:
    FORM = HistoryForm(start=(7,), max_items=6, block=3)

    def test_items_are_read_as_their_codes_after_the_start(self) -> None:
        reader = PromptReader(self.FORM, np.array([[10, 20], [11, 21], [12, 22]]))
        assert reader.ids((Items(ints(2, 0)),)).tolist() == [7, 12, 22, 10, 20]
        assert reader.ids((Items(ints()),)).tolist() == [7]
        assert reader.ids((Tokens(ints(5)), Items(ints(1)))).tolist() == [5, 7, 11, 21]
        with pytest.raises(DecoderError, match=r"item rows in \[0, 3\), got 1 to 3"):
            reader.ids((Items(ints(1, 3)),))

    def test_a_history_is_cut_in_blocks_so_that_its_beginning_stays_put(self) -> None:
        first = [self.FORM.cut(np.arange(length))[0] for length in range(1, 14)]
        #                 1  2  3  4  5  6  7  8  9  10 11 12 13 items
        assert first == [0, 0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
        kept = [len(self.FORM.cut(np.arange(length))) for length in range(6, 14)]
        assert min(kept) == 4
        assert max(kept) == 6

    @pytest.mark.parametrize(
        "changes", [{"start": ()}, {"block": 0}, {"block": 7}, {"max_items": 0}], ids=str
    )
    def test_forms_that_make_no_sense(self, changes: dict[str, object]) -> None:
        with pytest.raises(IndexFormatError, match="expected a start token"):
            replace(self.FORM, **changes)  # type: ignore[arg-type]

    def test_a_form_survives_json(self) -> None:
        assert HistoryForm.from_dict(self.FORM.to_dict()) == self.FORM
        with pytest.raises(IndexFormatError, match="prompt form"):
            HistoryForm.from_dict({"begin": 1})
