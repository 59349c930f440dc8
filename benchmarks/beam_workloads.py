"""What the beam-search benchmark searches: a random-weight model, a catalog of codes or titles, and prompts.

Everything is drawn from a seed. Nothing is measured here.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from genrec.decoders.export_files import write_causal_lm
from genrec.decoders.exported import FLOAT32, MATRICES
from genrec.decoders.onnx_decoder import OnnxDecoder
from genrec.decoders.torch_decoder import TorchDecoder
from index.trie import TokenTrie, build_trie
from index.types import Int64Array

PROMPT = 256
DEMO = Path(__file__).parent.parent / "genrec" / "demo" / "works.jsonl"
LEVELS, CODES, FIRST_CODE = 4, 256, 3072
TITLE_VOCABULARY = 32_768
# Deciles (10 % to 90 %) of the words in 36,522 real titles: the 5-core items of Amazon Beauty 2014, Video Games
# 2018 and Industrial 2018, and MovieLens 1M.
WORDS_PER_TITLE = (3, 4, 5, 6, 7, 9, 10, 11, 14)


@dataclass(frozen=True)
class Workload:
    """A model, a catalog and prompts."""

    name: str
    model: Any  # a PreTrainedModel; its `generate` is typed as a tensor's attribute
    decoder: TorchDecoder
    trie: TokenTrie
    following: dict[tuple[int, ...], list[int]]  # the peer's trie: every prefix's next tokens
    prompts: Sequence[Int64Array]
    eos: int | None


def exported(work: Workload) -> OnnxDecoder:
    """The workload's model as ``genrec export`` writes it and ``genrec serve`` runs it."""
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)  # its matrices are read as they are needed
    files = Path(directory.name)
    shape = write_causal_lm(work.model, files)
    return OnnxDecoder.open(files / FLOAT32, files / MATRICES, shape, work.decoder.max_positions)


def random_model(vocabulary: int, eos: int | None = None, seed: int = 0) -> PreTrainedModel:
    """4 layers, hidden 256, 4 heads over 2 key heads of 64, gated unit 768, tied head.

    Five times the usual spread of weights: at 0.02 all scores nearly tie, at 0.1 they are told apart.
    """
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        initializer_range=0.1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.train(False)
    return model


def codes_workload(items: int, prompts: int, prompt_length: int = PROMPT, seed: int = 0) -> Workload:
    """Codes whose every level is Zipf-skewed (exponent 0.8); a prompt is the codes of random items."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CODES + 1) ** 0.8
    rows = np.zeros((0, LEVELS), np.int64)
    while len(rows) < items:
        drawn = rng.choice(CODES, (items, LEVELS), p=share / share.sum())
        rows = np.unique(np.concatenate([rows, drawn]), axis=0)
    codes = rng.permutation(rows)[:items]
    codes = np.stack([rng.permutation(CODES)[level] for level in codes.T], axis=1)  # popular is not low
    codes += FIRST_CODE + CODES * np.arange(LEVELS)
    asked = [
        codes[rng.integers(0, items, -(-prompt_length // LEVELS))].ravel()[:prompt_length]
        for _ in range(prompts)
    ]
    return _workload("codes", random_model(FIRST_CODE + LEVELS * CODES), codes.tolist(), asked, None)


def titles_workload(items: int, prompts: int, sources: Sequence[Path], seed: int = 0) -> Workload:
    """Titles spliced from two real ones, so openings are shared as in a catalog; a prompt is random titles."""
    from tokenizers import ByteLevelBPETokenizer

    rng = np.random.default_rng(seed)
    texts = [_words(source) for source in sources or [DEMO]]
    lines = [words for text in texts for words in text if len(words) > 1]
    titles: set[str] = set()
    while len(titles) < items:
        first, second = (lines[i] for i in rng.integers(0, len(lines), 2))
        words = [*first[: rng.integers(1, len(first))], *second[rng.integers(1, len(second)) :]]
        if not sources:
            words = [*words, *second][: rng.choice(WORDS_PER_TITLE)]
        titles.add(" ".join(words))
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        (" ".join(words) for words in lines), TITLE_VOCABULARY - 1, min_frequency=2, show_progress=False
    )
    eos = TITLE_VOCABULARY - 1
    paths = [encoded.ids for encoded in tokenizer.encode_batch(sorted(titles))]
    asked = [
        np.concatenate([paths[i] for i in rng.integers(0, items, PROMPT)])[:PROMPT] for _ in range(prompts)
    ]
    model = random_model(TITLE_VOCABULARY, eos)
    return _workload("titles", model, [[*path, eos] for path in paths], asked, eos)


def _words(source: Path) -> list[list[str]]:
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    extra = "description" if source == DEMO else ""
    return [f"{row.get('title', '')} {row.get(extra, '')}".split() for row in rows]


def _workload(
    name: str, model: PreTrainedModel, paths: list[list[int]], prompts: Sequence[Int64Array], eos: int | None
) -> Workload:
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for path in paths:
        for depth, token in enumerate(path):
            following.setdefault(tuple(path[:depth]), {})[token] = None
    listed = {prefix: list(tokens) for prefix, tokens in following.items()}
    return Workload(name, model, TorchDecoder(model), build_trie(paths), listed, prompts, eos)
