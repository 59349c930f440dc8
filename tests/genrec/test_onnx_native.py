"""The exported native model against the same one in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders import onnx_native
from genrec.decoders.base import Prompt, ReusesPrompts, State, Tokens
from genrec.decoders.export_files import write_native
from genrec.decoders.exported import FLOAT32, MATRICES
from genrec.decoders.native_decoder import NativeDecoder
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.search import SearchRequest, search
from index.errors import DecoderError, IndexFormatError
from index.item_filter import Allowed
from index.trie import build_trie
from index.types import Int64Array
from tests.genrec.test_native_decoder import MODEL, as_int, items, token_trees
from tests.genrec.test_native_model import CODES, CONFIG

TORCH = NativeDecoder(MODEL)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> OnnxNativeDecoder:
    return make(tmp_path_factory.mktemp("native"))


def make(directory: Path) -> OnnxNativeDecoder:
    shape = write_native(MODEL, directory)
    return OnnxNativeDecoder(directory / FLOAT32, directory / MATRICES, CONFIG, shape, CODES)


def assert_alike(onnx: OnnxNativeDecoder, ours: np.ndarray, theirs: np.ndarray, depth: Int64Array) -> None:
    for level in range(CONFIG.levels):
        rows = np.flatnonzero(depth == level)
        token = np.arange(CONFIG.offsets[level], CONFIG.offsets[level + 1])
        row, token = np.repeat(rows, len(token)), np.tile(token, len(rows))
        np.testing.assert_allclose(
            onnx.edge_logits(ours, row, token), TORCH.edge_logits(theirs, row, token), atol=1e-5
        )
        np.testing.assert_allclose(
            onnx.log_normalizer(ours[rows], depth[rows]),
            TORCH.log_normalizer(theirs[rows], depth[rows]),
            atol=1e-5,
        )


@settings(max_examples=60, deadline=None)
@given(trees=st.lists(token_trees(), min_size=1, max_size=3), data=st.data())
def test_logits_equal_those_in_torch_for_random_trees(
    onnx: OnnxNativeDecoder, trees: list[list[list[tuple[int, int]]]], data: st.DataObject
) -> None:
    history = st.lists(st.integers(0, len(CODES) - 1), max_size=CONFIG.max_items + 3)
    prompts = [items(*data.draw(history)) for _ in trees]
    ours, theirs = onnx.prefill(prompts), TORCH.prefill(prompts)
    assert_alike(onnx, ours.hidden, theirs.hidden, np.zeros(len(trees), np.int64))
    depth: list[list[int]] = [[] for _ in trees]
    for call in range(max(len(tree) for tree in trees)):
        rows = []
        for b, tree in enumerate(trees):
            for token, parent in tree[call] if call < len(tree) else []:
                depth[b].append(1 + (depth[b][parent] if parent >= 0 else 0))
                rows.append((b, token, parent, depth[b][-1]))
        request, token, parent, behind = as_int(rows).reshape(-1, 4).T  # type: ignore[arg-type]
        hidden = onnx.extend(ours.states, request, token, parent)
        assert_alike(onnx, hidden, TORCH.extend(theirs.states, request, token, parent), behind)


@pytest.mark.parametrize("gain", [0, 10**9], ids=["gathered", "dense"])
def test_both_ways_of_computing_logits_agree(
    onnx: OnnxNativeDecoder, gain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[Prompt] = [items(1, 2), items()]
    states = [decoder.prefill(prompts).states for decoder in (onnx, TORCH)]
    rows = as_int([0, 0, 1]), as_int([1, 4, 2]), as_int([-1, 0, -1])
    ours, theirs = (one.extend(state, *rows) for one, state in zip((onnx, TORCH), states, strict=True))
    monkeypatch.setattr(onnx_native, "DENSE_GAIN", gain)
    row, token = as_int([1, 0, 2, 0, 1]), as_int([8, 3, 6, 5, 7])
    expected = TORCH.edge_logits(theirs, row, token)
    np.testing.assert_allclose(onnx.edge_logits(ours, row, token), expected, atol=1e-5)


def test_a_batch_equals_its_requests_alone(onnx: OnnxNativeDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.decoders.onnx_session._GROUP_POSITIONS", 6)
    prompts: list[Prompt] = [items(0, 1, 2, 3, 4), items(), items(3), items(4, 4, 4, 4), items(2, 1)]
    together = onnx.prefill(prompts).hidden
    alone = np.concatenate([onnx.prefill([prompt]).hidden for prompt in prompts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert onnx.prefill([]).hidden.shape == (0, CONFIG.hidden_size + 1)


def test_a_kept_history_serves_while_it_begins_alike(onnx: OnnxNativeDecoder) -> None:
    assert isinstance(onnx, ReusesPrompts)
    assert not isinstance(TORCH, ReusesPrompts)
    kept: list[State | None] = list(onnx.prefill([items(0, 1, 2), items(), items(3), items(4, 4)]).states)
    onnx.extend([kept[0]], as_int([0]), as_int([2]), as_int([-1]))  # type: ignore[list-item]
    for prompts in (
        [items(0, 1, 2, 3), items(4), items(3, 3), items(4, 4, 0, 1)],  # gone on with
        [items(0, 1, 2), items(), items(3), items(4, 4)],  # the same
        [items(0, 2), items(), items(1, 3), items(4)],  # parting ways, or shorter
        [items(*[0, 1, 2] * 4), items(0), items(), items()],  # longer than is read
    ):
        for states in (kept, [kept[0], None, kept[2], None], [kept[0]] * 4):
            reused = onnx.prefill(prompts, states)
            np.testing.assert_allclose(reused.hidden, onnx.prefill(prompts).hidden, atol=1e-5)
            rows = as_int([0, 3]), as_int([1, 2]), as_int([-1, -1])
            expected = onnx.extend(onnx.prefill(prompts).states, *rows)
            np.testing.assert_allclose(onnx.extend(reused.states, *rows), expected, atol=1e-5)
    with pytest.raises(DecoderError, match="another decoder"):
        onnx.prefill([items(1)], TORCH.prefill([items(1)]).states)


def test_an_export_from_before_items_were_read_by_own_paths_is_refused(tmp_path: Path) -> None:
    shape = write_native(MODEL, tmp_path)
    (tmp_path / MATRICES / "path_codes.npy").unlink()
    with pytest.raises(IndexFormatError, match="path_codes"):
        OnnxNativeDecoder(tmp_path / FLOAT32, tmp_path / MATRICES, CONFIG, shape, CODES)


def test_keys_are_the_rows_read(onnx: OnnxNativeDecoder) -> None:
    assert onnx.prompt_key(items(0, 0, 1, 2, 3, 4, 1, 2)).tolist() == [1, 2, 3, 4, 1, 2]


def test_a_fork_goes_its_own_way_and_memory_is_counted(onnx: OnnxNativeDecoder) -> None:
    (state,) = onnx.prefill([items(1, 2)]).states
    onnx.extend([state], as_int([0]), as_int([2]), as_int([-1]))
    fork = state.fork()
    onnx.extend([fork], as_int([0]), as_int([3]), as_int([0]))
    assert (state.slots, fork.slots) == (1, 2)
    projected, codes = CONFIG.levels * CONFIG.head_size * 4, CONFIG.hidden_size * 4 + 8 + 8
    history = 2 * 8 + 2 * 2 * 8 * 3 * 4  # two rows; keys and values of 2 layers at 3 positions
    assert state.nbytes == projected + codes + history


def test_answers_equal_those_of_torch_under_filters(onnx: OnnxNativeDecoder) -> None:
    trie = build_trie(CODES + np.array(CONFIG.offsets[:-1]))
    rng = np.random.default_rng(1)
    requests = [
        SearchRequest(
            items(*rng.integers(0, 5, rng.integers(0, 9)).tolist()),
            k=3,
            beam=3,
            allowed=Allowed.build(rng.random(5) < 0.7 if place % 2 else None, as_int([place % 5])),
        )
        for place in range(20)
    ]
    expected = search(TORCH, trie, requests)
    for size in (1, 7, 20):
        for begin in range(0, len(requests), size):
            found = search(onnx, trie, requests[begin : begin + size])
            for ours, theirs in zip(found, expected[begin : begin + size], strict=True):
                np.testing.assert_array_equal(ours.ranks, theirs.ranks)
                np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)


def test_wrong_prompts_and_codes_raise(onnx: OnnxNativeDecoder) -> None:
    with pytest.raises(DecoderError, match=r"one Items segment, got \['Tokens'\]"):
        onnx.prefill([(Tokens(as_int([1])),)])
    with pytest.raises(DecoderError, match=r"item rows in \[0, 5\)"):
        onnx.prefill([items(0, 5)])
    states = onnx.prefill([items(1)]).states
    with pytest.raises(DecoderError, match="a code of level 0, got token 4, which is of level 1"):
        onnx.extend(states, as_int([0]), as_int([4]), as_int([-1]))
    with pytest.raises(DecoderError, match="depths below 3, got 3"):
        onnx.log_normalizer(np.zeros((1, 8), np.float32), as_int([3]))
