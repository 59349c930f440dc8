"""Small exported models and bundles for the tests of the ONNX decoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genrec.bundle import save_bundle
from genrec.bundle_text import BundleText
from genrec.decoders.export_files import write_causal_lm
from genrec.decoders.exported import CAUSAL_LM, FLOAT32, MATRICES, NATIVE
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.prompt_reader import HistoryForm
from genrec.decoders.torch_decoder import TorchDecoder
from genrec.native_model import NativeConfig, NativeModel
from genrec.own_paths import choose_paths
from genrec.speech import SpeechForm
from genrec.tasks import QueryDefaults, TaskDefaults
from index.item_index import SEMANTIC_ID, ItemIndex
from tests.genrec import tiny_models
from tests.toy_text import toy_text

FAMILIES = ("gpt2", "llama", "qwen3")
TOKEN_OFFSET = 5  # vocabulary id of the trie's token 0 in the language-model bundles
FORM = HistoryForm(start=(1, 2), max_items=8, block=4)


def native_model(index: ItemIndex, seed: int = 0, text: BundleText | None = None) -> NativeModel:
    """Random weights, large enough that every part moves the output; half of the paths have a vector of their own."""
    config = NativeConfig(
        code_sizes=index.level_sizes, hidden_size=16, layers=2, heads=2, max_items=6, head_size=24
    )
    if text is not None:
        facts = text.vocabulary.facts
        config = replace(config, text_size=text.vocabulary.words, max_text=facts.longest)
    torch.manual_seed(seed)
    paths = choose_paths(index.codes, np.arange(len(index.codes)) % 2, fewest=1, most=1000)
    model = NativeModel(config, index.codes, paths)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
        model.path_vector.weight[0], model.path_bias[0] = 0.0, 0.0
    return model.eval()


def native_bundle(path: Path, index: ItemIndex, seed: int = 0) -> Path:
    """A bundle with a native model."""
    model = native_model(index, seed)
    _save(path, index, model.save, NATIVE, {})
    return path


def writer_bundle(path: Path, index: ItemIndex, seed: int = 0) -> Path:
    """A bundle with a native model that writes codes, titles and queries."""
    text = replace(toy_text(index, plan=True), form=SpeechForm("compact", max_items=6))
    model = native_model(index, seed, text)
    tasks = {
        SEMANTIC_ID: TaskDefaults(beam=10),
        "title": TaskDefaults("vocabulary", beam=10),
        "query": QueryDefaults(beam=10, queries=4),
    }
    _save(path, index, model.save, NATIVE, {}, tasks, text)
    return path


def language_bundle(path: Path, index: ItemIndex, family: str = "qwen3") -> Path:
    """A bundle with a causal language model that reads histories as codes."""
    vocabulary = TOKEN_OFFSET + sum(index.level_sizes)
    model = tiny_models.MODELS[family](vocab_size=vocabulary)
    facts = {"token_offset": TOKEN_OFFSET, "history": FORM.to_dict()}
    _save(path, index, model.save_pretrained, CAUSAL_LM, facts)
    return path


def exported(decoder: TorchDecoder, directory: Path) -> OnnxDecoder:
    """The language model of a decoder, exported and opened again, unchecked."""
    shape = write_causal_lm(decoder.model, directory)
    return OnnxDecoder.open(
        directory / FLOAT32, directory / MATRICES, shape, decoder.max_positions, decoder.token_offset
    )


def _save(
    path: Path,
    index: ItemIndex,
    save_model: Any,
    family: str,
    facts: dict[str, Any],
    tasks: Mapping[str, TaskDefaults] | None = None,
    text: BundleText | None = None,
) -> None:
    no_events = np.zeros(0, np.uint64)
    tasks = tasks or {SEMANTIC_ID: TaskDefaults(beam=10)}
    save_bundle(
        path, index, save_model, family=family, tasks=tasks, trained_events=no_events, facts=facts, text=text
    )
