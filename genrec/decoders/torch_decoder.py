"""TorchDecoder: the :class:`~genrec.decoders.base.Decoder` contract over any Hugging Face causal LM.

Body, embedding and head are taken apart: embeddings are looked up, the body
(:mod:`genrec.decoders.model_body`) runs with our mask and positions, and the head
(:mod:`genrec.decoders.output_head`) is evaluated only for the tokens asked for. Prompts and the tree of tokens behind
them are :mod:`genrec.decoders.causal_decoder`'s. This module knows no trie, no items and no scores.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genrec.decoders.base import Tokens
from genrec.decoders.causal_decoder import CausalDecoder
from genrec.decoders.hugging_face import load_model
from genrec.decoders.model_body import body_of
from genrec.decoders.output_head import OutputHead
from genrec.decoders.prompt_reader import PromptReader
from index.errors import DecoderError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What a body must take for prefixes to stand side by side. Models that place a token by its column instead
# (ALiBi) have no `position_ids`.
_BODY_ARGUMENTS = ("inputs_embeds", "position_ids", "attention_mask", "past_key_values")
# Layers whose only memory is keys and values of all earlier positions, as long as the window is not full.
_LAYER_KINDS = {"full_attention", "sliding_attention", "global"}


class TorchDecoder(CausalDecoder):
    """Scores next tokens with a causal language model run by torch.

    Args:
        model: an ``AutoModelForCausalLM`` model; it is put into eval mode and onto ``device``.
        token_offset: added to every token id that comes from the search. Semantic-ID tokens sit behind the
            text vocabulary, so a trie may count them from 0. Ids in prompts are vocabulary ids already.
        device: where to run; None leaves the model where it is.
        reader: how prompts become tokens; tokens only where not given.

    Raises:
        DecoderError: the model cannot be decoded this way: its logits are not ``hidden @ head.T + bias``
            (they are scaled or soft-capped), it places tokens by column, or it remembers more than keys and
            values.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        token_offset: int = 0,
        device: str | torch.device | None = None,
        reader: PromptReader | None = None,
    ) -> None:
        if device is not None:
            model.to(device)  # type: ignore[arg-type]
        model.train(False)
        _check_architecture(model)
        self.model = model
        head = _head(model)
        bias: torch.Tensor | None = getattr(head, "bias", None)
        super().__init__(
            body_of(model),
            model.get_input_embeddings(),
            OutputHead(head.weight.detach(), None if bias is None else bias.detach()),
            token_offset,
            _max_positions(model.config),
            reader or PromptReader(),
        )
        self.token_offset = 0  # the probe speaks vocabulary ids
        self._check_logits(model)
        self.token_offset = token_offset

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        token_offset: int = 0,
        device: str | torch.device | None = None,
        reader: PromptReader | None = None,
    ) -> TorchDecoder:
        """Load a model directory, or a name known to Hugging Face: float32 on a CPU, else as it was saved.

        Raises:
            DecoderError: it is an encoder-decoder such as T5, or cannot be decoded this way.
        """
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(path_or_name)
        if config.is_encoder_decoder:
            raise DecoderError(
                f"expected a causal language model in {path_or_name}, got the encoder-decoder "
                f"{config.model_type!r}, which EncoderDecoder runs; use that, or a model like GPT-2, Llama or Qwen3"
            )
        return cls(load_model(AutoModelForCausalLM, path_or_name, device), token_offset, device, reader)

    @torch.inference_mode()
    def _check_logits(self, model: PreTrainedModel) -> None:
        """Compare logits over a tree of two branches with the model's own over each branch."""
        prompt = np.arange(3) % self.vocabulary
        branch = np.array([[3, 4], [5, 6]]) % self.vocabulary
        prefilled = self.prefill([(Tokens(prompt),)])
        first = self.extend(prefilled.states, np.zeros(2, np.int64), branch[:, 0], np.array([-1, -1]))
        second = self.extend(prefilled.states, np.zeros(2, np.int64), branch[:, 1], np.array([0, 1]))
        for b in range(2):
            path = torch.from_numpy(np.concatenate([prompt, branch[b]]))[None].to(self._device)
            own = model(input_ids=path, use_cache=False).logits[0, -3:]
            hidden = np.stack([prefilled.hidden[0], first[b], second[b]])
            error = self._difference(hidden, own)
            if not error <= self._tolerance:  # not `>`: it may be no number at all
                raise DecoderError(
                    f"expected the logits of {type(model).__name__} to be hidden @ head.T + bias, got a "
                    f"difference of {error:.1g} of the largest; models that scale or cap their logits, or "
                    "place tokens by column, cannot be decoded here"
                )


def _head(model: PreTrainedModel) -> Any:
    return model.get_output_embeddings()  # type: ignore[no-untyped-call]


def _check_architecture(model: PreTrainedModel) -> None:
    name = type(model).__name__
    weight = getattr(_head(model), "weight", None)
    if weight is None or model.base_model is model or model.config.is_encoder_decoder:
        raise DecoderError(
            f"expected a causal language model with a body and an output matrix, got {name}; "
            "load it with AutoModelForCausalLM"
        )
    accepted = inspect.signature(model.base_model.forward).parameters
    missing = [argument for argument in _BODY_ARGUMENTS if argument not in accepted]
    if missing:
        raise DecoderError(
            f"expected a model body that takes {', '.join(missing)}, got {name}, which does not"
        )
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ()
    unknown = set(kinds) - _LAYER_KINDS
    if unknown:
        raise DecoderError(
            f"expected attention over all earlier positions in {name}, got {sorted(unknown)} layers"
        )


def _max_positions(config: Any) -> int | None:
    """Tokens of prompt and answer up to which full attention at learned positions is what the model does.

    Within its window a sliding layer sees everything, so a window is a limit here, not an obstacle.
    """
    config = config.get_text_config()
    limits = [getattr(config, "max_position_embeddings", None)]
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"]
    if "sliding_attention" in kinds:
        limits.append(getattr(config, "sliding_window", None))
    return min((limit for limit in limits if limit is not None), default=None)
