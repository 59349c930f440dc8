"""LoRA: small matrices beside a model's own, and new rows of its vocabulary, trained while all else stands still.

peft does the work. What is here says which matrices (all linear ones but the head), which rows, and how the result
becomes a plain model again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from index.errors import TrainingError, require

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The size of the adapters."""

    rank: int = 16
    alpha: float = 32.0
    """Adapters are scaled by alpha / rank."""
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0.0 <= self.dropout < 1.0:
            raise TrainingError(
                f"expected a rank of 1 or more, alpha above 0 and dropout of 0 to 1, got {self.rank}, "
                f"{self.alpha:g} and {self.dropout:g}; correct the LoRA settings"
            )


def with_adapters(model: PreTrainedModel, settings: LoraSettings, new_tokens: Sequence[int]) -> PeftModel:
    """The model with adapters on every linear layer but the head; nothing else of it will train.

    Args:
        model: changed in place; its weights stay what they are.
        settings: of the adapters.
        new_tokens: rows of the vocabulary that were just added. They train whole, in the embedding and in a head
            that is not tied to it.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    peft: Any = require("peft", extra="finetune", purpose="Training adapters (--lora)")
    from transformers.pytorch_utils import Conv1D

    names = {module: name for name, module in model.named_modules()}
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    rows: dict[str, list[int]] = {}
    if len(new_tokens):
        rows[names[embedding]] = list(new_tokens)
        if head.weight is not embedding.weight:  # a tied one follows by itself
            rows[names[head]] = list(new_tokens)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        trainable_token_indices=rows or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in names),  # GPT-2 keeps its matrices so
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for a property under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted: PeftModel = peft.get_peft_model(model, config)
    return adapted


def is_adapted(model: Any) -> bool:
    """Whether a model has adapters."""
    return hasattr(model, "peft_config") and hasattr(model, "merge_and_unload")


def merged(model: Any) -> PreTrainedModel:
    """A plain model with the adapters added into its weights; a model without adapters is one already."""
    plain: PreTrainedModel = model.merge_and_unload() if is_adapted(model) else model
    return plain


def decodable(model: Any) -> PreTrainedModel:
    """The model as a decoder may run it while it trains, adapters in their place and nothing merged.

    Merging and taking apart again would round the weights that must not change.
    """
    inner: PreTrainedModel = model.get_base_model() if is_adapted(model) else model
    return inner
