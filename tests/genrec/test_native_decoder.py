"""The native decoder against the model it wraps: every logit equals the teacher-forced one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoders import native_decoder
from genrec.decoders.base import Items, Tokens
from genrec.decoders.code_states import history_rows
from genrec.decoders.native_decoder import NativeDecoder
from index.errors import DecoderError
from index.types import Int64Array
from tests.genrec.test_native_model import CODES, CONFIG, make_model

MODEL = make_model()


def items(*rows: int) -> tuple[Items]:
    return (Items(np.array(rows, np.int64)),)


def teacher_forced(history: list[int], path: list[int]) -> np.ndarray:
    """Logits float[C] of every code of level ``len(path)`` after ``path``, from the model alone."""
    level = len(path)
    tokens = torch.tensor([path + list(CONFIG.offsets[level:-1])])  # what follows the level does not matter
    with torch.no_grad():
        hidden = MODEL.encode(torch.tensor([history], dtype=torch.int64).reshape(1, -1))[:, -1]
        return np.asarray(MODEL.level_logits(hidden, tokens)[level][0])


@st.composite
def token_trees(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Per call: rows (token, parent slot) of one request, prompts and chains within the call included."""
    depth: list[int] = []
    calls = []
    for _ in range(draw(st.integers(1, 4))):
        rows = []
        for _ in range(draw(st.integers(0, 5))):
            open_slots = [-1, *(slot for slot, d in enumerate(depth) if d < CONFIG.levels)]
            parent = draw(st.sampled_from(open_slots))
            level = depth[parent] if parent >= 0 else 0
            token = draw(st.integers(CONFIG.offsets[level], CONFIG.offsets[level + 1] - 1))
            rows.append((token, parent))
            depth.append(level + 1)
        calls.append(rows)
    return calls


@settings(max_examples=60, deadline=None)
@given(trees=st.lists(token_trees(), min_size=1, max_size=3), data=st.data())
def test_logits_equal_the_models_for_random_trees(
    trees: list[list[list[tuple[int, int]]]], data: st.DataObject
) -> None:
    histories = [data.draw(st.lists(st.integers(0, len(CODES) - 1), max_size=6)) for _ in trees]
    decoder = NativeDecoder(MODEL)
    prefilled = decoder.prefill([items(*history) for history in histories])
    for request, history in enumerate(histories):
        check_row(decoder, prefilled.hidden[request : request + 1], history, [])
    paths: list[list[list[int]]] = [[] for _ in trees]
    for call in range(max(len(tree) for tree in trees)):
        request, token, parent = [], [], []
        for b, tree in enumerate(trees):
            for one_token, one_parent in tree[call] if call < len(tree) else []:
                request.append(b)
                token.append(one_token)
                parent.append(one_parent)
                paths[b].append([*(paths[b][one_parent] if one_parent >= 0 else []), one_token])
        hidden = decoder.extend(prefilled.states, as_int(request), as_int(token), as_int(parent))
        assert [state.slots for state in prefilled.states] == [len(path) for path in paths]
        seen = [0] * len(trees)
        for row, b in enumerate(request):
            new = sum(1 for other in request if other == b)
            path = paths[b][len(paths[b]) - new + seen[b]]
            seen[b] += 1
            if len(path) < CONFIG.levels:
                check_row(decoder, hidden[row : row + 1], histories[b], path)


def check_row(decoder: NativeDecoder, hidden: np.ndarray, history: list[int], path: list[int]) -> None:
    level = len(path)
    expected = teacher_forced(history, path)
    token = np.arange(CONFIG.offsets[level], CONFIG.offsets[level + 1])
    got = decoder.edge_logits(hidden, np.zeros(len(token), np.int64), token)
    normalizer = decoder.log_normalizer(hidden, np.array([level]))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(normalizer[0], np.log(np.exp(expected.astype(np.float64)).sum()), atol=1e-5)


def as_int(values: list[int]) -> Int64Array:
    return np.array(values, np.int64)


@pytest.mark.parametrize("gain", [0, 10**9], ids=["gathered", "dense"])
def test_edges_of_mixed_levels_in_any_order(gain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of computing logits agree, edge by edge, where rows stand at different levels."""
    monkeypatch.setattr(native_decoder, "DENSE_GAIN", gain)
    decoder = NativeDecoder(MODEL)
    prefilled = decoder.prefill([items(1, 2), items()])
    hidden = decoder.extend(prefilled.states, as_int([0, 0, 1]), as_int([1, 4, 2]), as_int([-1, 0, -1]))
    # Rows: request 0 behind [1], behind [1, 4]; request 1 behind [2].
    row, token = as_int([1, 0, 2, 0, 1]), as_int([8, 3, 6, 5, 7])
    expected = [
        teacher_forced([1, 2], [1, 4])[1],
        teacher_forced([1, 2], [1])[0],
        teacher_forced([], [2])[3],
        teacher_forced([1, 2], [1])[2],
        teacher_forced([1, 2], [1, 4])[0],
    ]
    np.testing.assert_allclose(decoder.edge_logits(hidden, row, token), expected, atol=1e-5)


def test_a_batch_equals_its_requests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_decoder, "PREFILL_GROUP", 2)
    decoder = NativeDecoder(MODEL)
    prompts = [items(0, 1, 2, 3, 4), items(), items(3), items(4, 4, 4, 4), items(2, 1)]
    together = decoder.prefill(prompts).hidden
    alone = np.concatenate([decoder.prefill([prompt]).hidden for prompt in prompts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_only_the_last_max_items_are_read() -> None:
    decoder = NativeDecoder(MODEL)
    assert CONFIG.max_items == 6
    long = decoder.prefill([items(0, 0, 1, 2, 3, 4, 1, 2)]).hidden
    np.testing.assert_allclose(long, decoder.prefill([items(1, 2, 3, 4, 1, 2)]).hidden, atol=1e-6)


def test_a_fork_goes_its_own_way() -> None:
    decoder = NativeDecoder(MODEL)
    state = decoder.prefill([items(1)]).states[0]
    decoder.extend([state], as_int([0]), as_int([2]), as_int([-1]))
    fork = state.fork()
    decoder.extend([fork], as_int([0]), as_int([3]), as_int([0]))
    again = decoder.extend([state], as_int([0]), as_int([3]), as_int([0]))
    assert (state.slots, fork.slots) == (2, 2)
    other = decoder.extend([fork], as_int([0]), as_int([4]), as_int([0]))
    assert (state.slots, fork.slots) == (2, 3)
    expected = teacher_forced([1], [2, 3])
    np.testing.assert_allclose(
        decoder.edge_logits(again, as_int([0, 0]), as_int([7, 8])), expected, atol=1e-5
    )
    expected = teacher_forced([1], [2, 4])
    np.testing.assert_allclose(
        decoder.edge_logits(other, as_int([0, 0]), as_int([7, 8])), expected, atol=1e-5
    )


def test_compacting_renumbers_slots_and_frees_memory() -> None:
    decoder = NativeDecoder(MODEL)
    state = decoder.prefill([items(1)]).states[0]
    decoder.extend([state], as_int([0, 0, 0, 0]), as_int([0, 1, 2, 5]), as_int([-1, -1, -1, 2]))
    held = state.nbytes
    state.compact(as_int([2, 3]))
    assert state.slots == 2
    assert state.nbytes < held
    hidden = decoder.extend([state], as_int([0]), as_int([6]), as_int([0]))
    expected = teacher_forced([1], [2, 6])
    np.testing.assert_allclose(
        decoder.edge_logits(hidden, as_int([0, 0]), as_int([7, 8])), expected, atol=1e-5
    )


def test_a_prompt_of_tokens_or_of_two_segments_raises() -> None:
    decoder = NativeDecoder(MODEL)
    with pytest.raises(DecoderError, match=r"one Items segment, got \['Tokens'\]"):
        decoder.prefill([(Tokens(as_int([1])),)])
    with pytest.raises(DecoderError, match=r"got \['Items', 'Items'\]"):
        decoder.prefill([items(1) + items(2)])


def test_an_unknown_row_raises() -> None:
    decoder = NativeDecoder(MODEL)
    for row in (-1, 5):
        with pytest.raises(DecoderError, match=r"item rows in \[0, 5\)"):
            decoder.prefill([items(0, row)])


def test_a_code_of_the_wrong_level_raises() -> None:
    decoder = NativeDecoder(MODEL)
    states = decoder.prefill([items(1)]).states
    with pytest.raises(DecoderError, match="a code of level 0, got token 4, which is of level 1"):
        decoder.extend(states, as_int([0]), as_int([4]), as_int([-1]))
    assert states[0].slots == 0


def test_nothing_can_follow_the_last_code() -> None:
    decoder = NativeDecoder(MODEL)
    states = decoder.prefill([items(1)]).states
    hidden = decoder.extend(states, as_int([0, 0, 0]), as_int([0, 3, 7]), as_int([-1, 0, 1]))
    with pytest.raises(DecoderError, match="depths below 3, got 3"):
        decoder.log_normalizer(hidden, as_int([1, 2, 3]))
    with pytest.raises(DecoderError, match="nothing after the last code"):
        decoder.extend(states, as_int([0]), as_int([7]), as_int([2]))


def test_a_growing_history_keeps_its_beginning_for_a_while() -> None:
    """What is read begins at another item only once in a fifth of ``max_items``."""
    history = np.arange(200)
    read = [history_rows((Items(history[:length]),), max_items=50, items=200) for length in range(1, 200)]
    for length, rows in enumerate(read, start=1):
        assert rows[-1] == length - 1
        assert min(length, 41) <= len(rows) <= min(length, 50)
    beginnings = [int(rows[0]) for rows in read]
    assert beginnings == sorted(beginnings)
    assert set(beginnings) == {0, *range(10, 151, 10)}
