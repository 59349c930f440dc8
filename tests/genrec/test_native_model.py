"""The native model: shapes, causality, padding, and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from genrec.native_model import CONFIG_FILE, WEIGHTS_FILE, NativeConfig, NativeModel
from index.errors import DecoderError, IndexFormatError

CONFIG = NativeConfig(code_sizes=(3, 4, 2), hidden_size=8, layers=2, heads=2, max_items=6, head_size=10)
CODES = np.array([[0, 0, 0], [0, 1, 1], [1, 3, 0], [2, 2, 1], [2, 2, 0]], np.int32)
PATHS = np.array([[0, -1, -1], [2, -1, -1], [0, 1, -1], [2, 2, -1], [2, 2, 0], [2, 2, 1]], np.int32)


def make_model(seed: int = 0) -> NativeModel:
    """Random weights, large enough that every part moves the output.

    The paths (0, 1), (2, 2), (2, 2, 0) and (2, 2, 1) have a vector of their own.
    """
    torch.manual_seed(seed)
    model = NativeModel(CONFIG, CODES, PATHS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        model.path_vector.weight[0], model.path_bias[0] = 0.0, 0.0
    return model.eval()


def test_token_ids_are_level_offsets_plus_codes() -> None:
    assert CONFIG.offsets == (0, 3, 7, 9)
    assert make_model().item_tokens.tolist()[2] == [0 + 1, 3 + 3, 7 + 0]


def test_shapes() -> None:
    model = make_model()
    rows = torch.tensor([[0, 1, 2], [3, 4, -1]])
    hidden = model.encode(rows)
    assert hidden.shape == (2, 4, 8)
    logits = model.level_logits(hidden[0], model.item_tokens[torch.tensor([1, 2, 3, 4])])
    assert [tuple(level.shape) for level in logits] == [(4, 3), (4, 4), (4, 2)]


def test_an_empty_history_is_the_start_token_alone() -> None:
    model = make_model()
    empty = model.encode(torch.zeros(1, 0, dtype=torch.int64))
    assert empty.shape == (1, 1, 8)
    torch.testing.assert_close(empty[:, 0], model.encode(torch.tensor([[3, 1]]))[:, 0])


def test_a_later_item_does_not_change_an_earlier_position() -> None:
    model = make_model()
    one, other = model.encode(torch.tensor([[0, 1, 2, 3]])), model.encode(torch.tensor([[0, 1, 4, 0]]))
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert (one[:, 3] - other[:, 3]).abs().max() > 1e-3


def test_padding_changes_no_real_position() -> None:
    model = make_model()
    alone = model.encode(torch.tensor([[2, 0]]))
    padded = model.encode(torch.tensor([[2, 0, -1, -1], [1, 1, 3, 4]]))
    torch.testing.assert_close(alone[0], padded[0, :3])


def test_a_level_is_conditioned_on_the_codes_before_it_and_on_no_later_one() -> None:
    model = make_model()
    hidden = model.encode(torch.tensor([[0]]))[:, -1].expand(2, -1)
    first_differs = model.level_logits(hidden, torch.tensor([[0, 3, 7], [1, 3, 7]]))
    last_differs = model.level_logits(hidden, torch.tensor([[0, 3, 7], [0, 3, 8]]))
    torch.testing.assert_close(first_differs[0][0], first_differs[0][1])
    assert (first_differs[1][0] - first_differs[1][1]).abs().max() > 1e-3
    for level in last_differs:
        torch.testing.assert_close(level[0], level[1])


def test_an_items_vector_is_the_sum_of_its_codes_and_of_its_paths_own() -> None:
    model = make_model()
    assert model.item_own.tolist() == [[0, 0], [1, 0], [0, 0], [2, 4], [2, 3]]
    vectors = model.item_vectors(torch.arange(5)[None])[0]
    by_codes = torch.stack([model.code_embedding.weight[tokens].sum(0) for tokens in model.item_tokens])
    own = model.path_vector.weight
    torch.testing.assert_close(vectors[[0, 2]], by_codes[[0, 2]])
    expected = by_codes[[1, 3, 4]] + torch.stack([own[1], own[2] + own[4], own[2] + own[3]])
    torch.testing.assert_close(vectors[[1, 3, 4]], expected)


def test_training_drops_behind_attention_and_mlps_and_evaluation_nothing() -> None:
    """With all other dropout out of the way what differs from draw to draw comes from the body's own layers."""
    model = make_model()
    rows = torch.tensor([[0, 1, 2]])
    vectors = model.item_vectors(rows)
    layers = list(model.body.layers)
    assert all(
        len(last._forward_hooks) == 1 for one in layers for last in (one.self_attn.o_proj, one.mlp.down_proj)
    )

    def drawn() -> torch.Tensor:
        return model.body(inputs_embeds=vectors).last_hidden_state

    assert torch.equal(drawn(), drawn())
    for one in layers:
        one.mlp.down_proj.train()
    assert not torch.equal(drawn(), drawn())
    model.eval()
    assert torch.equal(drawn(), drawn())


def test_own_paths_add_their_vectors_to_their_last_codes_and_to_no_others() -> None:
    model = make_model()
    hidden = model.encode(torch.tensor([[0, 2]]))[:, -1]
    plain = NativeModel(CONFIG, CODES)
    plain.load_state_dict({**plain.state_dict(), **_without_paths(model)})
    for row, own in ((1, {1: 1}), (3, {1: 2}), (4, {1: 2}), (2, {})):  # level -> row of the vectors, by eye
        tokens = model.item_tokens[[row]]
        prefix = torch.zeros(1, 8)
        ours, theirs = model.level_logits(hidden, tokens), plain.eval().level_logits(hidden, tokens)
        for level, head in enumerate(model.heads):
            query = head(hidden, prefix)
            expected = theirs[level].clone()
            if level in own:
                vector, bias = model.path_vector.weight[own[level]], model.path_bias[own[level]]
                expected[0, CODES[row, level]] += query[0] @ vector + bias
            if level == 2 and row in (3, 4):
                expected[0] += query[0] @ model.path_vector.weight[3:5].T + model.path_bias[3:5]
            torch.testing.assert_close(ours[level], expected)
            prefix = prefix + model.code_embedding(tokens[:, level])


def _without_paths(model: NativeModel) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("path_")}


def test_a_model_from_before_positions_were_rotary_is_refused(tmp_path: Path) -> None:
    """Its config had residuals; weights that do not fit a config are refused whatever it says."""
    model = make_model()
    model.save(tmp_path)
    with pytest.raises(IndexFormatError, match="train the bundle again"):
        save_file(_without_paths(model), tmp_path / WEIGHTS_FILE)
        NativeModel.load(tmp_path, CODES)
    config = tmp_path / CONFIG_FILE
    config.write_text(json.dumps({**CONFIG.to_dict(), "residual_items": 20_000}), encoding="utf-8")
    with pytest.raises(IndexFormatError, match=r"unknown keys \['residual_items'\]"):
        NativeModel.load(tmp_path, CODES)


def test_what_a_body_says_depends_on_how_long_ago_and_not_on_the_place() -> None:
    model = make_model()
    with torch.no_grad():
        vectors = model.item_vectors(torch.tensor([[0, 1, 2]]))
        # transformers reads a jump of positions as the beginning of another sequence, unless it is given a mask.
        causal = torch.full((3, 3), -torch.inf).triu(1)[None, None]
        early, late, apart = (
            model.body(
                inputs_embeds=vectors, position_ids=torch.tensor([places]), attention_mask=causal
            ).last_hidden_state
            for places in ([0, 1, 2], [3, 4, 5], [0, 3, 5])
        )
    torch.testing.assert_close(early, late)
    assert (early - apart).abs().max() > 1e-3


def test_the_weights_do_not_depend_on_the_catalogs_rows() -> None:
    model = make_model()
    larger = NativeModel(CONFIG, np.concatenate([CODES, CODES[::-1]]), PATHS)
    larger.load_state_dict(model.state_dict())
    rows = torch.tensor([[0, 4]])
    torch.testing.assert_close(larger.eval().encode(rows + 5), model.encode(4 - rows))


def test_save_and_load_give_the_same_model(tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path)
    loaded = NativeModel.load(tmp_path, CODES)
    rows = torch.tensor([[0, 1, 2]])
    assert loaded.config == CONFIG
    assert not loaded.training
    assert torch.equal(loaded.encode(rows), model.encode(rows))


def test_a_config_survives_json() -> None:
    assert NativeConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


def test_a_config_with_an_unknown_key_raises() -> None:
    with pytest.raises(IndexFormatError, match=r"unknown keys \['depth'\]"):
        NativeConfig.from_dict({**CONFIG.to_dict(), "depth": 3})


def test_a_config_without_code_sizes_raises() -> None:
    with pytest.raises(IndexFormatError, match="code_sizes"):
        NativeConfig.from_dict({"layers": 3})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers >= 1, got 0"),
        ({"code_sizes": ()}, "code_sizes >= 1"),
        ({"code_sizes": (3, 0)}, "code_sizes >= 1"),
        ({"heads": 3}, "divisible by twice the heads, got 8 by 3"),
        ({"heads": 8}, "divisible by twice the heads, got 8 by 8"),
        ({"dropout": 1.0}, "dropout < 1, got 1.0"),
        ({"own_paths": -1}, "own_paths >= 0, got -1"),
    ],
)
def test_a_config_that_makes_no_model_raises(change: dict[str, object], message: str) -> None:
    with pytest.raises(DecoderError, match=message):
        NativeConfig.from_dict({**CONFIG.to_dict(), **change})


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (CODES[:, :2], r"shape \[N, 3\], got \[5, 2\]"),
        (CODES[:0], "at least one item"),
        (CODES + 1, r"codes below \[3, 4, 2\]"),
        (CODES - 1, r"codes below \[3, 4, 2\]"),
    ],
)
def test_codes_that_do_not_fit_raise(codes: np.ndarray, message: str) -> None:
    with pytest.raises(DecoderError, match=message):
        NativeModel(CONFIG, codes)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=CONFIG_FILE):
        NativeModel.load(tmp_path, CODES)
    make_model().save(tmp_path)
    config = {**CONFIG.to_dict(), "head_size": 12}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(IndexFormatError, match=WEIGHTS_FILE):
        NativeModel.load(tmp_path, CODES)


@pytest.mark.parametrize(
    ("events", "room", "dropout"),
    [
        ([], 50, 0.2),
        ([0, 0], 50, 0.2),
        ([3, 9], 50, 0.2),
        ([0, 30, 30], 60, 0.2),
        ([49] * 3, 98, 0.2),
        ([70] * 4, 140, 0.1),
        ([165, 400], 200, 0.1),
    ],
)
def test_dense_histories_are_read_further_back_and_dropped_out_less(
    events: list[int], room: int, dropout: float
) -> None:
    sized = NativeConfig.sized((4, 4), np.array(events, np.int64))
    assert sized == replace(NativeConfig(code_sizes=(4, 4)), max_items=room, dropout=dropout)
