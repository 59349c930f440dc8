"""The model that fine-tuning starts from: pretrained weights, or a config alone; with room for the codes of items.

Token ids of the result: the model's own vocabulary first, as it was, then one token per code of every level. What
text it speaks comes from its own tokenizer, or, for a model without weights, from one trained on the titles.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genrec.bundle import load_bundle
from genrec.decoders.exported import CAUSAL_LM, ENCODER_DECODER
from genrec.decoders.hugging_face import quiet_transformers
from genrec.vocabulary import TextVocabulary
from index.artifact import MANIFEST
from index.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The sizes of "Recommender Systems with Generative Retrieval" (Rajput et al., NeurIPS 2023), section 4.
    "t5-tiger": {
        "model_type": "t5",
        "d_model": 128,
        "d_ff": 1024,
        "d_kv": 64,
        "num_heads": 6,
        "num_layers": 4,
        "dropout_rate": 0.1,
        "feed_forward_proj": "relu",
    },
}
"""Models trained from nothing, by name."""

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A model with room for codes, before any training."""

    model: PreTrainedModel
    vocabulary: TextVocabulary | None  # None: it speaks codes alone
    token_offset: int
    """Vocabulary id of the trie's token 0: the rows there were before."""
    start: int
    """A token that a compact history begins with."""
    is_pretrained: bool

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether prompts are read by an encoder."""
        return bool(self.model.config.is_encoder_decoder)

    @property
    def codes(self) -> range:
        """Ids of the tokens that were added."""
        return range(self.token_offset, int(self.model.config.vocab_size))

    @property
    def max_positions(self) -> int | None:
        """Tokens the model can take; prompt and answer share them where there is no encoder."""
        config: Any = self.model.config
        limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
        # T5 names a length it was trained with, but has no positions that could run out.
        known = [limit for limit in limits if limit is not None and config.model_type not in ("t5", "mt5")]
        return min(known, default=None)


def load_base(
    base: str, codes: int, seed: int, *, texts: TextVocabulary | None = None, needs_text: bool
) -> BaseModel:
    """Load or make the model and add its code tokens.

    Args:
        base: a model directory, a bundle that was fine-tuned here, or a name known to Hugging Face; a
            ``config.json``, a directory that holds one and no weights, or one of :data:`PRESETS`, for a model that
            starts from nothing.
        codes: tokens to add.
        seed: of new weights.
        texts: what a model that starts from nothing speaks; codes alone where not given.
        needs_text: whether the text vocabulary of a pretrained model is wanted.

    Raises:
        TrainingError: there is no such model, its weights are pickled, or it cannot be fine-tuned here.
        IndexFormatError: the tokenizer cannot be read.
    """
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        config = _config_alone(base)
        if config is not None:
            return _from_config(config, codes, texts)
        if _is_bundle(base):
            return _of_bundle(base, codes)
        return _pretrained(base, codes, needs_text)


def has_weights(base: str) -> bool:
    """Whether a base is pretrained: a model of its own words, not one that starts from nothing."""
    path = Path(base)
    is_bare = path.is_dir() and not _has_file(path) and not _is_bundle(base)
    return base not in PRESETS and not path.is_file() and not is_bare


def _is_bundle(base: str) -> bool:
    return (Path(base) / MANIFEST).is_file()


def _has_file(directory: Path) -> bool:
    return any((directory / name).is_file() for name in (*_WEIGHTS, *_PICKLED))


def _config_alone(base: str) -> PreTrainedConfig | None:
    """The config of a model that starts from nothing; None for a pretrained one.

    Raises:
        TrainingError: a config that describes no model transformers knows.
    """
    if has_weights(base):
        return None
    if base in PRESETS:
        values: Any = dict(PRESETS[base])
    else:
        path = Path(base) / "config.json" if Path(base).is_dir() else Path(base)
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"expected a model or its config in {base}, got: {error}; give a directory with config.json and "
                "model.safetensors, or a config file"
            ) from error
    from transformers import AutoConfig

    try:
        config: PreTrainedConfig = AutoConfig.for_model(**values)
    except (TypeError, ValueError, KeyError) as error:
        raise TrainingError(
            f"expected the config of a model that transformers knows in {base}, got: {str(error).splitlines()[0]}; "
            "it names its kind as model_type"
        ) from error
    return config


def _from_config(config: PreTrainedConfig, codes: int, texts: TextVocabulary | None) -> BaseModel:
    """A model of random weights. Token 0, or the end of a text, is its start, its padding and its end."""
    first = 1 if texts is None else texts.size
    start = 0 if texts is None else texts.end
    config.vocab_size = first + codes
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        setattr(config, name, start)
    config.tie_word_embeddings = True
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        if hasattr(config, name):
            setattr(config, name, None)
    model = _model_class(config).from_config(config)
    return BaseModel(model, texts, first, start, is_pretrained=False)


def _pretrained(base: str, codes: int, needs_text: bool) -> BaseModel:
    path = Path(base)
    if path.is_dir() and not any((path / name).is_file() for name in _WEIGHTS):
        raise TrainingError(
            f"expected weights in safetensors in {base}, got pickled ones; save the model again with "
            "save_pretrained of a current transformers"
        )
    model = _loaded(base)
    config = model.config
    vocabulary = _own_vocabulary(base, bool(config.is_encoder_decoder)) if needs_text else None
    first = int(model.get_input_embeddings().weight.shape[0])
    if vocabulary is not None and vocabulary.size > first:
        raise TrainingError(
            f"expected a tokenizer of at most {first} tokens, as the model in {base} has, got {vocabulary.size}; "
            "use the tokenizer that belongs to the model"
        )
    _add_tokens(model, codes)
    start = _start_token(model.config, vocabulary)
    return BaseModel(model, vocabulary, first, start, is_pretrained=True)


def _loaded(base: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base)
        return _model_class(config).from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"expected a model directory, a bundle, a name known to Hugging Face, a config file or one of "
            f"{', '.join(PRESETS)}, got {base!r}: {str(error).splitlines()[0]}"
        ) from error


def _of_bundle(base: str, codes: int) -> BaseModel:
    """The model of a bundle, to be taught more: its own words go on meaning what they mean.

    Raises:
        TrainingError: it has no words, or codes are wanted: those of another index would stand beside its own.
    """
    bundle = load_bundle(Path(base))
    if bundle.text is None or bundle.family not in (CAUSAL_LM, ENCODER_DECODER) or codes:
        raise TrainingError(
            f"expected a bundle of a language model, and tasks of text for it, got one of family "
            f"{bundle.family} and {codes} codes; begin with the model that the bundle was made from"
        )
    model, vocabulary = _loaded(str(bundle.artifact.files / "model")), bundle.text.vocabulary
    first = int(model.get_input_embeddings().weight.shape[0])
    return BaseModel(model, vocabulary, first, _start_token(model.config, vocabulary), is_pretrained=True)


def _model_class(config: PreTrainedConfig) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _own_vocabulary(base: str, is_encoder: bool) -> TextVocabulary:
    """What the tokenizer beside a model speaks."""
    if (Path(base) / "tokenizer.json").is_file():
        return TextVocabulary.of_pretrained(Path(base), is_encoder=is_encoder)
    from transformers import AutoTokenizer

    missing = (
        f"expected a tokenizer beside the model in {base}, got {{}}; save it there with "
        "AutoTokenizer.from_pretrained(NAME).save_pretrained(DIRECTORY)"
    )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(missing.format(f"the error: {str(error).splitlines()[0]}")) from error
    if len(tokenizer) <= len(
        tokenizer.all_special_ids
    ):  # what the library makes of a directory that has none
        raise TrainingError(missing.format("none"))
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        return TextVocabulary.of_pretrained(Path(directory), is_encoder=is_encoder)


def _add_tokens(model: Any, count: int) -> None:
    """Rows for new tokens, spread as the old ones are, so that no two codes begin alike."""
    old = int(model.get_input_embeddings().weight.shape[0])
    matrices = {id(one.weight): one for one in (model.get_input_embeddings(), model.get_output_embeddings())}
    spread = [(one.weight.detach().mean(0), one.weight.detach().std(0)) for one in matrices.values()]
    model.resize_token_embeddings(old + count, mean_resizing=False)
    resized = {id(one.weight): one for one in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for one, (mean, deviation) in zip(resized.values(), spread, strict=True):
            one.weight[old:] = mean + deviation * torch.randn(count, len(mean))


def _start_token(config: Any, vocabulary: TextVocabulary | None) -> int:
    """What a compact history begins with: the token that begins texts, or else the one that ends them."""
    if vocabulary is not None:
        return vocabulary.facts.before[0] if vocabulary.facts.before else vocabulary.end
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token = getattr(config, name, None)
        if token is not None:
            return int(token[0] if isinstance(token, list) else token)
    return 0
