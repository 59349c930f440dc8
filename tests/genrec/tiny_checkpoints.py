"""Model directories as a user has them: small random weights, and a tokenizer of the family's own kind, trained on
the toy catalog."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import (
    BartTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    T5Tokenizer,
)

from tests.genrec import tiny_models
from tests.toy import toy_catalog

PROMPT = "The title of the next item:"
TOKENS = 360


def _texts() -> list[str]:
    return [
        f"{PROMPT} {title}\n- {title}\nItems a user chose, oldest first:" for title in toy_catalog().titles
    ]


def _qwen2(**changes: Any) -> Any:
    config = Qwen2Config(**{**tiny_models.ROTARY, "num_key_value_heads": 2, **changes})
    return tiny_models._seeded(Qwen2ForCausalLM, config)


TOKENIZERS: dict[str, Any] = {
    "gpt2": lambda: GPT2Tokenizer(),  # byte BPE, spaces in front of words
    "llama": lambda: LlamaTokenizer(
        add_bos_token=True
    ),  # BPE over whole lines, a BOS, the space put in front
    "qwen2": lambda: Qwen2Tokenizer(),  # byte BPE, another pattern of words
    "qwen3": lambda: Qwen2Tokenizer(),
    "t5": lambda: T5Tokenizer(extra_ids=4),  # unigrams, an EOS behind
    "bart": lambda: BartTokenizer(),  # byte BPE between a BOS and an EOS
}
MODELS: dict[str, Any] = {**tiny_models.MODELS, **tiny_models.ENCODER_DECODERS, "qwen2": _qwen2}
CAUSAL = ("gpt2", "llama", "qwen2", "qwen3")
ENCODER_DECODERS = ("t5", "bart")
FAMILIES = (*CAUSAL, *ENCODER_DECODERS)


def checkpoint(directory: Path, family: str, *, texts: Sequence[str] | None = None, **changes: Any) -> Path:
    """Write a model and its tokenizer; the model has a few rows more than the tokenizer has tokens, as many do."""
    corpus, tokens = (_texts(), TOKENS) if texts is None else (list(texts), 4 * TOKENS)
    tokenizer = TOKENIZERS[family]().train_new_from_iterator(corpus, tokens)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if family == "bart":
        special["decoder_start_token_id"] = special["eos_token_id"]
    model = MODELS[family](vocab_size=len(tokenizer) + 5, **{**special, **changes})
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
