"""Text of the native model: branches, decoders in torch and onnxruntime, all equal to one plain sequence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from genrec.decoders.base import Decoder, Items, Prompt, Tokens
from genrec.decoders.export_files import write_native
from genrec.decoders.exported import FLOAT32, MATRICES
from genrec.decoders.native_text import native_text_decoder
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.decoders.onnx_native_text import open_native_text
from genrec.native_config import TEXT_FORM, TEXT_FORM_KEY
from genrec.native_model import NativeConfig, NativeModel
from genrec.text_branch import Branches, Trunk, branch_hidden, branch_loss
from index.errors import DecoderError, IndexFormatError
from index.types import Float32Array
from tests.genrec.test_native_model import CODES, CONFIG

VOCABULARY, MARK, END = 11, 10, 9
TEXT = replace(CONFIG, text_size=VOCABULARY, max_text=6)


def text_model(config: NativeConfig = TEXT) -> NativeModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = NativeModel(config, CODES, CODES[:2]).eval()
        for parameter in model.parameters():  # biases and positions that start at zero would hide mistakes
            torch.nn.init.normal_(parameter, std=0.3)
        return model


MODEL = text_model()
TORCH = native_text_decoder(MODEL)


@torch.no_grad()
def plain_logits(history: list[int], fed: list[int]) -> Float32Array:
    """[len(fed), V] after each of ``fed``, a mark first: one sequence through the stock body."""
    assert MODEL.text is not None
    before = torch.cat(
        [MODEL.start[None, None], MODEL.item_vectors(torch.tensor([history], dtype=torch.int64))], 1
    )
    text = MODEL.text.embedding(torch.tensor([fed]))
    text[:, 0] += MODEL.text.intent(MODEL.body(inputs_embeds=before).last_hidden_state[:, -1])
    position = torch.tensor(
        [*range(1 + len(history)), *(TEXT.max_items + 1 + depth for depth in range(len(fed)))]
    )
    # transformers reads a jump of positions as the beginning of another sequence, unless it is given a mask.
    causal = torch.full((len(position), len(position)), -torch.inf).triu(1)[None, None]
    output = MODEL.body(
        inputs_embeds=torch.cat([before, text], 1), position_ids=position[None], attention_mask=causal
    ).last_hidden_state
    logits: Float32Array = MODEL.text.logits(output[0, 1 + len(history) :]).numpy()
    return logits


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> OnnxDecoder:
    directory = tmp_path_factory.mktemp("text")
    shape = write_native(MODEL, directory)
    graphs, matrices = directory / FLOAT32, directory / MATRICES
    return open_native_text(OnnxNativeDecoder(graphs, matrices, TEXT, shape, CODES), graphs, matrices)


def prompt(history: list[int]) -> Prompt:
    return (Items(np.array(history, np.int64)), Tokens(np.array([MARK])))


def all_logits(decoder: Decoder, hidden: Float32Array) -> Float32Array:
    row = np.repeat(np.arange(len(hidden)), VOCABULARY)
    token = np.tile(np.arange(VOCABULARY), len(hidden))
    return decoder.edge_logits(hidden, row, token).reshape(len(hidden), -1)


HISTORIES = st.lists(st.integers(0, len(CODES) - 1), max_size=CONFIG.max_items)
ANSWERS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=TEXT.max_text)


# --- branches ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(HISTORIES, min_size=1, max_size=3),
    texts=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), ANSWERS), min_size=1, max_size=4),
)
def test_a_branch_behind_a_trunk_equals_one_plain_sequence(
    histories: list[list[int]], texts: list[tuple[int, int, list[int]]]
) -> None:
    user = [one % len(histories) for one, _, _ in texts]
    known = [1 + place % (1 + len(histories[u])) for u, (_, place, _) in zip(user, texts, strict=True)]
    expected = torch.cat(
        [
            torch.from_numpy(plain_logits(histories[u][: k - 1], [MARK, *answer[:-1]]))
            for u, k, (_, _, answer) in zip(user, known, texts, strict=True)
        ]
    )
    branches = make_branches(user, known, [answer for _, _, answer in texts])
    trunk = Trunk()
    assert MODEL.text is not None
    with torch.no_grad():
        MODEL.encode(padded(histories), trunk)
        real = branches.answer >= 0
        hidden = branch_hidden(MODEL.body, MODEL.text, trunk, branches)
        torch.testing.assert_close(MODEL.text.logits(hidden[real]), expected, atol=1e-4, rtol=1e-4)
        loss = branch_loss(MODEL.body, MODEL.text, trunk, branches)
        target = branches.answer[real]
        torch.testing.assert_close(loss, cross_entropy(expected, target), atol=1e-4, rtol=1e-4)


def test_text_teaches_the_items_before_it_and_no_later_one() -> None:
    model = text_model()
    assert model.text is not None
    trunk = Trunk()
    vectors = model.item_vectors(torch.tensor([[0, 1, 2]])).detach().requires_grad_()
    before = torch.cat([model.start.expand(1, 1, -1), vectors], 1)
    trunk.output = model.body(inputs_embeds=before, past_key_values=trunk, use_cache=True).last_hidden_state
    branches = make_branches([0], [3], [[1, 2, END]])  # behind the start and two items
    branch_loss(model.body, model.text, trunk, branches).backward()
    assert vectors.grad is not None
    assert vectors.grad[0, :2].abs().amax(1).min() > 0
    assert float(vectors.grad[0, 2].abs().max()) == 0


def make_branches(user: list[int], known: list[int], answers: list[list[int]]) -> Branches:
    width = max(map(len, answers))
    return Branches(
        torch.tensor(user),
        torch.tensor(known),
        torch.full((len(user),), MARK),
        torch.tensor([[*answer, *[-1] * (width - len(answer))] for answer in answers]),
    )


def padded(histories: list[list[int]]) -> torch.Tensor:
    width = max(map(len, histories))
    rows = [[*history, *[-1] * (width - len(history))] for history in histories]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(histories), width)


# --- decoders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch", "onnx"])
@settings(max_examples=30, deadline=None)
@given(histories=st.lists(HISTORIES, min_size=1, max_size=3), data=st.data())
def test_trees_of_text_equal_plain_sequences(
    onnx: OnnxDecoder, kind: str, histories: list[list[int]], data: st.DataObject
) -> None:
    decoder: Decoder = TORCH if kind == "torch" else onnx
    filled = decoder.prefill([prompt(one) for one in histories])
    for history, logits in zip(histories, all_logits(decoder, filled.hidden), strict=True):
        np.testing.assert_allclose(logits, plain_logits(history, [MARK])[-1], atol=1e-4)
    paths: list[list[list[int]]] = [[] for _ in histories]
    for _ in range(2):
        request, token, parent = [], [], []
        for b, tree in enumerate(paths):
            for _ in range(data.draw(st.integers(0, 3))):
                behind = data.draw(st.integers(-1, len(tree) - 1))
                request.append(b)
                token.append(data.draw(st.integers(0, VOCABULARY - 1)))
                parent.append(behind)
                tree.append([*(tree[behind] if behind >= 0 else []), token[-1]])
        if any(len(path) > TEXT.max_text for tree in paths for path in tree) or not request:
            return
        hidden = decoder.extend(filled.states, *(np.array(one, np.int64) for one in (request, token, parent)))
        newest = [len(tree) - request.count(b) for b, tree in enumerate(paths)]
        for b, logits in zip(request, all_logits(decoder, hidden), strict=True):
            expected = plain_logits(histories[b], [MARK, *paths[b][newest[b]]])[-1]
            np.testing.assert_allclose(logits, expected, atol=1e-4)
            newest[b] += 1


def test_torch_and_onnx_agree_on_the_sum_and_on_kept_prompts(onnx: OnnxDecoder) -> None:
    first = [prompt([1, 2]), prompt([])]
    longer = [prompt([1, 2, 3]), prompt([4])]
    ours, theirs = onnx.prefill(first), TORCH.prefill(first)
    none = np.zeros(2, np.int64)
    np.testing.assert_allclose(
        onnx.log_normalizer(ours.hidden, none), TORCH.log_normalizer(theirs.hidden, none), atol=1e-4
    )
    again, fresh = onnx.prefill(longer, ours.states), TORCH.prefill(longer)
    np.testing.assert_allclose(all_logits(onnx, again.hidden), all_logits(TORCH, fresh.hidden), atol=1e-4)


def test_a_long_history_is_cut_as_it_is_for_codes(onnx: OnnxDecoder) -> None:
    rows = (
        list(range(CONFIG.max_items + 1)) if len(CODES) > CONFIG.max_items else [0] * (CONFIG.max_items + 1)
    )
    for decoder in (TORCH, onnx):
        key = decoder.prompt_key(prompt(rows))
        assert key[0] == VOCABULARY
        assert key[-1] == MARK
        assert len(key) - 2 <= CONFIG.max_items


def test_only_text_can_be_answered(onnx: OnnxDecoder) -> None:
    for decoder in (TORCH, onnx):
        assert decoder.vocabulary == VOCABULARY
        hidden = decoder.prefill([prompt([0])]).hidden
        with pytest.raises(DecoderError, match=r"expected token ids in 0 \.\. 10, got 11 \.\. 11"):
            decoder.edge_logits(hidden, np.zeros(1, np.int64), np.array([VOCABULARY]))
        for wrong in (prompt([0])[:1], prompt([0])[1:], (*prompt([0]), Tokens(np.array([1])))):
            with pytest.raises(DecoderError, match="a prompt of items and one mark"):
                decoder.prefill([wrong])
        with pytest.raises(DecoderError, match="expected item rows"):
            decoder.prefill([prompt([len(CODES)])])


def test_a_model_of_codes_alone_writes_no_text(tmp_path: Path) -> None:
    model = NativeModel(CONFIG, CODES)
    with pytest.raises(DecoderError, match="with a text vocabulary"):
        native_text_decoder(model)
    shape = write_native(model, tmp_path)
    graphs, matrices = tmp_path / FLOAT32, tmp_path / MATRICES
    codes = OnnxNativeDecoder(graphs, matrices, CONFIG, shape, CODES)
    with pytest.raises(IndexFormatError, match="codes alone"):
        open_native_text(codes, graphs, matrices)


@pytest.mark.parametrize("shape", [{"text_size": 5}, {"max_text": 5}, {"text_size": -1, "max_text": 4}])
def test_half_a_text_vocabulary_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(DecoderError, match="both above 0 or both 0"):
        replace(CONFIG, **shape)


def test_a_model_with_text_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    MODEL.save(tmp_path)
    loaded = NativeModel.load(tmp_path, CODES)
    assert loaded.config == TEXT
    for name, value in MODEL.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("form", [None, 0, TEXT_FORM + 1])
def test_a_model_taught_another_form_of_text_is_refused(form):
    """Two forms share their weights' shapes: such a bundle once loaded and wrote nonsense."""
    values = TEXT.to_dict()
    assert NativeConfig.from_dict(values) == TEXT
    values.pop(TEXT_FORM_KEY)
    if form is not None:
        values[TEXT_FORM_KEY] = form
    with pytest.raises(IndexFormatError, match="train the bundle again"):
        NativeConfig.from_dict(values)
    assert NativeConfig.from_dict(CONFIG.to_dict()) == CONFIG  # without text there is no form
