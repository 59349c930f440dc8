"""Text of the native model: branches, decoders in torch and onnxruntime, all equal to one plain sequence.

An answer is a plan, the codes of an item, and words. Tokens of a plan are scored by the code heads; the item is one
position of the body; words are scored by the body's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from genrec.decoders.base import Decoder, Items, Prompt, ScoresVocabulary, Tokens
from genrec.decoders.export_files import write_native
from genrec.decoders.exported import FLOAT32, MATRICES
from genrec.decoders.native_decoder import NativeDecoder
from genrec.decoders.native_text import native_text_decoder
from genrec.decoders.onnx_native import OnnxNativeDecoder
from genrec.decoders.onnx_native_text import open_native_text
from genrec.decoders.planned_text import PlannedText
from genrec.native_config import TEXT_FORM, TEXT_FORM_KEY, item_tokens
from genrec.native_model import NativeConfig, NativeModel
from genrec.own_paths import choose_paths
from genrec.text_branch import Branches, Trunk, branch_hidden, branch_loss
from index.errors import DecoderError, IndexFormatError
from index.trie import build_trie
from index.types import Float32Array
from tests.genrec.test_native_model import CODES, CONFIG

VOCABULARY, MARK, END = 11, 10, 9
TEXT = replace(CONFIG, text_size=VOCABULARY, max_text=6)


def text_model(config: NativeConfig = TEXT) -> NativeModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        paths = choose_paths(CODES, np.arange(len(CODES)) % 2, fewest=1, most=1000)
        model = NativeModel(config, CODES, paths).eval()
        for parameter in model.parameters():  # biases and own vectors that start at zero would hide mistakes
            torch.nn.init.normal_(parameter, std=0.3)
        return model


MODEL = text_model()
TRIE = build_trie(item_tokens(TEXT, CODES).tolist())
TORCH = native_text_decoder(MODEL, TRIE)
LEVELS = TEXT.levels
SIZE = VOCABULARY + TEXT.offsets[-1]


def tokens_of(codes: Sequence[int]) -> list[int]:
    """The tokens of a plan."""
    return [VOCABULARY + TEXT.offsets[level] + code for level, code in enumerate(codes)]


def plan_vector(codes: list[int]) -> torch.Tensor:
    """[1, 1, H] of a whole plan: the item's vector, or the sum of the codes where no item has them."""
    rows = [row for row, own in enumerate(CODES.tolist()) if own == codes]
    if rows:
        return MODEL.item_vectors(torch.tensor([rows]))
    tokens = torch.tensor(tokens_of(codes)) - VOCABULARY
    return MODEL.code_embedding(tokens).sum(0)[None, None]


@torch.no_grad()
def plain_words(history: list[int], codes: list[int], words: list[int]) -> Float32Array:
    """[1 + len(words), V] after the plan and after each of the words: one sequence through the stock body."""
    assert MODEL.text is not None
    before = torch.cat(
        [MODEL.start[None, None], MODEL.item_vectors(torch.tensor([history], dtype=torch.int64))], 1
    )
    said = MODEL.text.embedding(torch.tensor([[MARK, *words]]))
    text = torch.cat([said[:, :1], plan_vector(codes), said[:, 1:]], 1)
    output = MODEL.body(inputs_embeds=torch.cat([before, text], 1)).last_hidden_state
    logits: Float32Array = MODEL.text.logits(output[0, 2 + len(history) :]).numpy()
    return logits


@torch.no_grad()
def plain_codes(history: list[int], codes: list[int]) -> Float32Array:
    """[C] after some codes of a plan: what the code heads say of the next level."""
    hidden = MODEL.encode(torch.tensor([history], dtype=torch.int64))[:, -1]
    level = len(codes)
    filled = [*codes, *[0] * (LEVELS - level)]
    tokens = torch.tensor([filled]) + MODEL.level_offsets[:-1]
    logits: Float32Array = MODEL.level_logits(hidden, tokens)[level][0].numpy()
    return logits


def existing(codes: list[int]) -> list[int]:
    """The codes that follow others in the catalog; all of the level where none does."""
    level = len(codes)
    found = sorted({own[level] for own in CODES.tolist() if own[:level] == codes})
    return found or list(range(TEXT.code_sizes[level]))


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> PlannedText:
    directory = tmp_path_factory.mktemp("text")
    shape = write_native(MODEL, directory)
    graphs, matrices = directory / FLOAT32, directory / MATRICES
    codes = OnnxNativeDecoder(graphs, matrices, TEXT, shape, CODES)
    return open_native_text(codes, TRIE, graphs, matrices)


def prompt(history: list[int]) -> Prompt:
    return (Items(np.array(history, np.int64)), Tokens(np.array([MARK])))


def logits_after(decoder: Decoder, hidden: Float32Array, answer: list[int]) -> Float32Array:
    """What a decoder says of the tokens that may follow an answer, from its hidden row [H]."""
    depth = len(answer)
    first, end = 0, VOCABULARY
    if depth < LEVELS:
        first, end = VOCABULARY + TEXT.offsets[depth], VOCABULARY + TEXT.offsets[depth + 1]
    token = np.arange(first, end)
    return decoder.edge_logits(hidden[None], np.zeros(len(token), np.int64), token)


def check_row(decoder: Decoder, hidden: Float32Array, history: list[int], answer: list[int]) -> None:
    """One hidden row against the plain model: logits, their sum, and the table of all tokens."""
    depth = np.array([len(answer)])
    codes = [token - VOCABULARY - TEXT.offsets[level] for level, token in enumerate(answer[:LEVELS])]
    total = decoder.log_normalizer(hidden[None], depth)[0]
    found = logits_after(decoder, hidden, answer)
    assert isinstance(decoder, ScoresVocabulary)
    table = decoder.logits(hidden[None])[0]
    assert len(table) == SIZE
    np.testing.assert_allclose(table[np.isfinite(table)], found, atol=1e-5)
    if len(answer) < LEVELS:
        expected = plain_codes(history, codes)
        counted = expected[existing(codes)]
    else:
        expected = plain_words(history, codes, answer[LEVELS:])[-1]
        counted = expected
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(total, np.log(np.exp(counted.astype(np.float64)).sum()), atol=1e-4)


HISTORIES = st.lists(st.integers(0, len(CODES) - 1), max_size=CONFIG.max_items)
ANSWERS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=TEXT.max_text)


# --- branches ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(HISTORIES, min_size=1, max_size=3),
    texts=st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, len(CODES) - 1), ANSWERS),
        min_size=1,
        max_size=4,
    ),
)
def test_a_branch_behind_a_trunk_equals_one_plain_sequence(
    histories: list[list[int]], texts: list[tuple[int, int, int, list[int]]]
) -> None:
    user = [one % len(histories) for one, *_ in texts]
    known = [1 + place % (1 + len(histories[u])) for u, (_, place, *_) in zip(user, texts, strict=True)]
    expected = torch.cat(
        [
            torch.from_numpy(plain_words(histories[u][: k - 1], CODES[item].tolist(), answer[:-1]))
            for u, k, (_, _, item, answer) in zip(user, known, texts, strict=True)
        ]
    )
    branches = make_branches(user, known, [item for *_, item, _ in texts], [answer for *_, answer in texts])
    trunk = Trunk()
    assert MODEL.text is not None
    with torch.no_grad():
        MODEL.encode(padded(histories), trunk)
        real = branches.answer >= 0
        hidden = branch_hidden(MODEL, trunk, branches)
        torch.testing.assert_close(MODEL.text.logits(hidden[real]), expected, atol=1e-4, rtol=1e-4)
        loss = branch_loss(MODEL, trunk, branches)
        target = branches.answer[real]
        torch.testing.assert_close(loss, cross_entropy(expected, target), atol=1e-4, rtol=1e-4)


def test_text_teaches_the_items_before_it_and_no_later_one() -> None:
    model = text_model()
    trunk = Trunk()
    vectors = model.item_vectors(torch.tensor([[0, 1, 2]])).detach().requires_grad_()
    before = torch.cat([model.start.expand(1, 1, -1), vectors], 1)
    model.body(inputs_embeds=before, past_key_values=trunk, use_cache=True)
    branches = make_branches([0], [3], [3], [[1, 2, END]])  # behind the start and two items
    branch_loss(model, trunk, branches).backward()
    assert vectors.grad is not None
    assert vectors.grad[0, :2].abs().amax(1).min() > 0
    assert float(vectors.grad[0, 2].abs().max()) == 0


def make_branches(user: list[int], known: list[int], items: list[int], answers: list[list[int]]) -> Branches:
    width = max(map(len, answers))
    return Branches(
        torch.tensor(user),
        torch.tensor(known),
        torch.full((len(user),), MARK),
        torch.tensor(items),
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
def test_trees_of_plans_and_words_equal_plain_sequences(
    onnx: PlannedText, kind: str, histories: list[list[int]], data: st.DataObject
) -> None:
    """Chains within a call, forks at every depth, and plans that no item has among them."""
    decoder: Decoder = TORCH if kind == "torch" else onnx
    filled = decoder.prefill([prompt(one) for one in histories])
    for history, hidden in zip(histories, filled.hidden, strict=True):
        check_row(decoder, hidden, history, [])
    trees: list[list[list[int]]] = [[] for _ in histories]  # the answer up to every slot
    for _ in range(3):
        request, token, parent = [], [], []
        for b, tree in enumerate(trees):
            for _ in range(data.draw(st.integers(0, 6))):
                slots = [-1, *(at for at, one in enumerate(tree) if len(one) < LEVELS + TEXT.max_text)]
                # Mostly the newest slot, so that trees grow beyond the plan.
                behind = slots[max(-len(slots), -1 - data.draw(st.sampled_from([0, 0, 0, 0, 1, 3])))]
                answer = tree[behind] if behind >= 0 else []
                level = len(answer)
                if level < LEVELS:
                    own = CODES[data.draw(st.integers(0, len(CODES) - 1))].tolist()
                    token.append(tokens_of(own)[level])
                else:
                    token.append(data.draw(st.integers(0, VOCABULARY - 1)))
                request.append(b)
                parent.append(behind)
                tree.append([*answer, token[-1]])
        if not request:
            continue
        rows = (np.array(one, np.int64) for one in (request, token, parent))
        hidden = decoder.extend(filled.states, *rows)
        newest = [len(tree) - request.count(b) for b, tree in enumerate(trees)]
        for b, row in zip(request, hidden, strict=True):
            check_row(decoder, row, histories[b], trees[b][newest[b]])
            newest[b] += 1
    for b, (state, tree) in enumerate(zip(filled.states, trees, strict=True)):
        assert state.slots == len(tree)
        live = [at for at, one in enumerate(tree) if one[:1] == tree[0][:1]] if tree else []
        if (
            live and len(tree[live[-1]]) < LEVELS + TEXT.max_text
        ):  # forgotten slots change nothing of the others
            copy = state.fork()
            copy.compact(np.array(live))
            assert (copy.slots, state.slots) == (len(live), len(tree))
            answer = tree[live[-1]]
            own = CODES[0].tolist()
            more = tokens_of(own)[len(answer)] if len(answer) < LEVELS else MARK
            (row,) = decoder.extend(
                [copy], np.zeros(1, np.int64), np.array([more]), np.array([len(live) - 1])
            )
            check_row(decoder, row, histories[b], [*answer, more])


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_words_before_a_plan_and_codes_out_of_order_are_refused(onnx: PlannedText, kind: str) -> None:
    decoder: Decoder = TORCH if kind == "torch" else onnx
    filled = decoder.prefill([prompt([1])])
    none, root = np.zeros(1, np.int64), np.array([-1])
    with pytest.raises(DecoderError, match="expected a code of level 0, got the word 3"):
        decoder.edge_logits(filled.hidden, none, np.array([3]))
    with pytest.raises(DecoderError, match="expected a code of level 0, got a code of level 1"):
        decoder.extend(filled.states, none, np.array(tokens_of(CODES[0])[1:2]), root)
    assert filled.states[0].slots == 0
    own = tokens_of(CODES[0])
    hidden = decoder.extend(
        filled.states, np.zeros(LEVELS, np.int64), np.array(own), np.arange(-1, LEVELS - 1)
    )
    with pytest.raises(DecoderError, match="expected a word, got a code of level 0"):
        decoder.edge_logits(hidden[-1:], none, np.array(own[:1]))
    with pytest.raises(DecoderError, match="those of another decoder"):
        decoder.extend(NativeDecoder(MODEL).prefill([prompt([1])[:1]]).states, none, np.array(own[:1]), root)


def test_torch_and_onnx_agree_on_kept_prompts(onnx: PlannedText) -> None:
    first = [prompt([1, 2]), prompt([])]
    longer = [[1, 2, 3], [4]]
    kept = onnx.prefill(first).states
    again = onnx.prefill([prompt(one) for one in longer], kept)
    for decoder, filled in ((onnx, again), (TORCH, TORCH.prefill([prompt(one) for one in longer]))):
        plan = np.array(tokens_of(CODES[2]) * 2)
        request, parent = np.repeat([0, 1], LEVELS), np.tile(np.arange(-1, LEVELS - 1), 2)
        hidden = decoder.extend(filled.states, request, plan, parent)
        for b, history in enumerate(longer):
            check_row(decoder, filled.hidden[b], history, [])
            check_row(decoder, hidden[(b + 1) * LEVELS - 1], history, tokens_of(CODES[2]))


def test_a_long_history_is_cut_as_it_is_for_codes(onnx: PlannedText) -> None:
    rows = (
        list(range(CONFIG.max_items + 1)) if len(CODES) > CONFIG.max_items else [0] * (CONFIG.max_items + 1)
    )
    for decoder in (TORCH, onnx):
        key = decoder.prompt_key(prompt(rows))
        assert key[0] == VOCABULARY
        assert key[-1] == MARK
        assert len(key) - 2 <= CONFIG.max_items


def test_other_prompts_are_refused(onnx: PlannedText) -> None:
    for decoder in (TORCH, onnx):
        assert decoder.vocabulary == SIZE
        for wrong in (prompt([0])[:1], prompt([0])[1:], (*prompt([0]), Tokens(np.array([1])))):
            with pytest.raises(DecoderError, match="a prompt of items and one mark"):
                decoder.prefill([wrong])
        with pytest.raises(DecoderError, match="expected item rows"):
            decoder.prefill([prompt([len(CODES)])])


def test_a_model_of_codes_alone_writes_no_text(tmp_path: Path) -> None:
    model = NativeModel(CONFIG, CODES)
    with pytest.raises(DecoderError, match="with a text vocabulary"):
        native_text_decoder(model, TRIE)
    shape = write_native(model, tmp_path)
    graphs, matrices = tmp_path / FLOAT32, tmp_path / MATRICES
    codes = OnnxNativeDecoder(graphs, matrices, CONFIG, shape, CODES)
    with pytest.raises(IndexFormatError, match="codes alone"):
        open_native_text(codes, TRIE, graphs, matrices)


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
