"""LoRA: adapters and new rows train, all else stands still; off, they are not there; merged, they are the model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genrec.decoders.base import Prompt, Tokens
from genrec.decoders.encoder_decoder import EncoderDecoder
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.training.adapters import LoraSettings, decodable, is_adapted, merged, with_adapters
from genrec.training.base_model import load_base
from index.errors import TrainingError
from tests.genrec.tiny_checkpoints import CAUSAL, ENCODER_DECODERS, FAMILIES, checkpoint

NEW = 6
SETTINGS = LoraSettings(rank=4, alpha=8.0, dropout=0.0)


def hashes(model: Any) -> dict[str, str]:
    """sha256 of every weight that is no adapter's, under the name it has without adapters."""
    found = {}
    for name, value in model.state_dict().items():
        if "lora_" in name or "token_adapter.trainable" in name:
            continue
        plain = name.removeprefix("base_model.model.").replace("token_adapter.base_layer.", "")
        found[plain.replace("base_layer.", "")] = hashlib.sha256(value.numpy().tobytes()).hexdigest()
    return found


def trained(model: Any, rows: torch.Tensor) -> None:
    """A few large steps on sequences that name every new token."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def logits(model: Any, rows: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=rows, labels=rows).logits
    return result


@pytest.mark.parametrize("family", FAMILIES)
def test_only_adapters_and_new_rows_train(family: str, tmp_path: Path) -> None:
    directory = str(checkpoint(tmp_path, family))
    base = load_base(directory, NEW, seed=0, needs_text=False)
    before, old = hashes(base.model), base.token_offset
    text = torch.tensor([[7, 9, 11, 8], [30, 31, 12, 5]])
    untouched = logits(load_base(directory, NEW, seed=0, needs_text=False).model.eval(), text)
    rows = torch.arange(old - 2, old + NEW).reshape(2, -1)
    model = with_adapters(base.model, SETTINGS, list(base.codes))
    trained(model, rows)

    assert hashes(model) == before, "a weight that is no adapter's has moved"
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "trainable_tokens_delta" in name for name in names)
    head: Any = model.get_base_model().get_output_embeddings()
    embedding: Any = model.get_base_model().get_input_embeddings()
    for module in (embedding, head):
        moved = (module.weight != module.token_adapter.base_layer.weight).any(1)
        assert moved.nonzero().flatten().tolist() == list(base.codes), "all new rows train, and no others"

    assert not torch.allclose(logits(model, text), untouched, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(logits(model, text), untouched), "off, the adapters are not there"

    expected = logits(model, rows)
    plain = merged(model)
    assert not is_adapted(plain)
    torch.testing.assert_close(logits(plain, rows), expected, atol=1e-3, rtol=1e-4)
    after = hashes(plain)
    assert set(after) == set(before)
    assert any(after[name] != before[name] for name in after)
    tied: Any = plain.get_input_embeddings()
    assert torch.equal(tied.weight[:old], load_base(directory, NEW, seed=0, needs_text=False).model
                       .get_input_embeddings().weight[:old])  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_training_decodes_as_it_will_when_merged(family: str, tmp_path: Path) -> None:
    """New rows count in embedding and head alike; nothing is merged for a validation, which would round weights."""
    base = load_base(str(checkpoint(tmp_path, family)), NEW, seed=0, needs_text=False)
    model = with_adapters(base.model, SETTINGS, list(base.codes))
    trained(model, torch.arange(base.token_offset - 2, base.token_offset + NEW).reshape(2, -1))
    kind = TorchDecoder if family in CAUSAL else EncoderDecoder
    prompts: list[Prompt] = [(Tokens(np.array([7, base.token_offset + 1, 9])),)]

    def scores(inner: Any) -> np.ndarray:
        decoder = kind(inner, base.token_offset)
        (state,), hidden = (prefilled := decoder.prefill(prompts)).states, prefilled.hidden
        deeper = decoder.extend([state], np.array([0]), np.array([2]), np.array([-1]))
        rows = np.concatenate([hidden, deeper])
        edges = decoder.edge_logits(rows, np.repeat([0, 1], NEW), np.tile(np.arange(NEW), 2))
        return np.concatenate([edges, decoder.log_normalizer(rows, np.array([0, 1]))])

    before = hashes(model)
    during = scores(decodable(model))
    assert hashes(model) == before
    np.testing.assert_allclose(during, scores(merged(model)), atol=1e-3)


def test_a_model_that_needs_no_new_tokens(tmp_path: Path) -> None:
    """GenRec's shape: titles in, titles out."""
    base = load_base(str(checkpoint(tmp_path, "gpt2")), 0, seed=0, needs_text=True)
    model = with_adapters(base.model, SETTINGS, [])
    trained(model, torch.arange(8).reshape(2, 4))
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    assert len(base.model.get_input_embeddings().weight) == base.token_offset  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_sizes_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="rank of 1 or more"):
        LoraSettings(**wrong)


def test_families_cover_both_kinds() -> None:
    assert set(CAUSAL) | set(ENCODER_DECODERS) == set(FAMILIES)
