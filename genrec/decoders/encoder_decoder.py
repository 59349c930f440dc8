"""EncoderDecoder: the :class:`~genrec.decoders.base.Decoder` contract over T5, BART and their kin.

The encoder reads the prompt once, in both directions; the decoder begins with its start token, and all live prefixes
of a request are a tree behind that (:mod:`genrec.decoders.tree_decoder`). What the decoder's layers read of the
encoded prompt is computed once per request and never copied per prefix. It knows no trie, no items and no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genrec.decoders.base import Prefilled, Prompt, State, Tokens
from genrec.decoders.cross_body import CrossStates, CrossStep, cross_body_of
from genrec.decoders.hugging_face import load_model
from genrec.decoders.kv_cache import StepCache, TorchState
from genrec.decoders.output_head import OutputHead, numpy_of
from genrec.decoders.prompt_reader import PromptReader
from genrec.decoders.tree_decoder import TreeDecoder
from genrec.decoders.tree_mask import RaggedRows, prompt_mask
from index.errors import DecoderError
from index.types import BoolArray, Int64Array

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CrossState(TorchState):
    """One request's encoded prompt, and the tree of tokens behind the decoder's start token."""

    def __init__(self, source: Int64Array, start: Int64Array, cross: CrossStates) -> None:
        super().__init__(start)
        self.source = source  # [S] token ids the encoder has read
        self.cross = cross

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes; forks share what is read of the encoded prompt."""
        return super().nbytes + self.cross.nbytes

    def empty(self) -> CrossState:
        """A state of the same prompt without a position run."""
        return CrossState(self.source, self.prompt, self.cross)


class EncoderDecoder(TreeDecoder):
    """Scores next tokens with an encoder-decoder run by torch.

    Args:
        model: an ``AutoModelForSeq2SeqLM`` model; it is put into eval mode and onto ``device``.
        token_offset: added to every token id that comes from the search.
        device: where to run; None leaves the model where it is.
        reader: how prompts become the encoder's tokens; tokens only where not given.

    Raises:
        DecoderError: the model is of no known kind, has no start token, or computes other logits than its layers
            run one by one.
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
        self._body = cross_body_of(model)
        self.model = model
        self._encoder: Any = model.get_encoder()
        head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        bias = getattr(model, "final_logits_bias", None)
        decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
        super().__init__(
            decoder.embed_tokens,
            OutputHead(head.weight.detach(), None if bias is None else bias.detach()[0]),
            token_offset,
            getattr(model.config, "max_position_embeddings", None),  # T5 has none: distances have no end
            reader or PromptReader(),
        )
        start = getattr(model.config, "decoder_start_token_id", None)
        if start is None:
            raise DecoderError(
                f"expected a decoder_start_token_id in the config of {type(model).__name__}, got none; set it"
            )
        self._start = np.array([start], np.int64)
        self._check_tokens(self._start)
        self.token_offset = 0  # the probe speaks vocabulary ids
        self._check_logits()
        self.token_offset = token_offset

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        token_offset: int = 0,
        device: str | torch.device | None = None,
        reader: PromptReader | None = None,
    ) -> EncoderDecoder:
        """Load a model directory, or a name known to Hugging Face: float32 on a CPU, else as it was saved.

        Raises:
            DecoderError: it is no encoder-decoder, or cannot be decoded this way.
        """
        from transformers import AutoConfig, AutoModelForSeq2SeqLM

        config = AutoConfig.from_pretrained(path_or_name)
        if not config.is_encoder_decoder:
            raise DecoderError(
                f"expected an encoder-decoder such as T5 in {path_or_name}, got {config.model_type!r}; "
                "causal language models run in TorchDecoder"
            )
        return cls(load_model(AutoModelForSeq2SeqLM, path_or_name, device), token_offset, device, reader)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Prompt], kept: Sequence[State | None] | None = None) -> Prefilled:
        """Encode the prompts (B of them, of any lengths, padded inside) and run the decoder's start token.

        An encoder reads in both directions, so a kept state serves a prompt only if it is of that very prompt.

        Raises:
            DecoderError: a prompt is empty, has a segment the model cannot read, holds an id outside the
                vocabulary, or is longer than the model's positions; or a kept state is not this decoder's.
        """
        if not prompts:
            return Prefilled([], self._no_hidden())
        sources = [self.prompt_key(prompt) for prompt in prompts]
        states: dict[int, CrossState] = {}
        for place, state in enumerate(kept or ()):
            if state is not None:
                (mine,) = self._own_states([state])
                assert isinstance(mine, CrossState)
                if np.array_equal(mine.source, sources[place]):
                    states[place] = mine.empty()
        new = [place for place in range(len(prompts)) if place not in states]
        crosses = self._encode([sources[place] for place in new])
        for place, cross in zip(new, crosses, strict=True):
            states[place] = CrossState(sources[place], self._start, cross)
        ordered = [states[place] for place in range(len(prompts))]
        rows = RaggedRows(np.arange(len(prompts)))
        nowhere = np.zeros(len(prompts), np.int64)
        hidden = self._run(ordered, rows, self._start.repeat(len(prompts)), nowhere, prompt_mask(rows))
        for state in ordered:
            state.prompt_length = 1
        return Prefilled(list[State](ordered), numpy_of(hidden[:, 0]))

    def _encode(self, sources: Sequence[Int64Array]) -> list[CrossStates]:
        """What the decoder reads of B prompts, int64[S] token ids each."""
        if not sources:
            return []
        lengths = [len(ids) for ids in sources]
        rows = RaggedRows(np.repeat(np.arange(len(sources)), lengths))
        ids = torch.from_numpy(rows.pad(np.concatenate(sources))).to(self._device)
        within = torch.arange(rows.width) < torch.tensor(lengths)[:, None]
        encoded = self._encoder(input_ids=ids, attention_mask=within.to(self._device)).last_hidden_state
        return self._body.cross_states(encoded, lengths)

    def _run(
        self,
        states: Sequence[TorchState],
        rows: RaggedRows,
        ids: Int64Array,
        position: Int64Array,
        sees: BoolArray,
    ) -> torch.Tensor:
        crosses = [state.cross for state in states if isinstance(state, CrossState)]
        step = CrossStep(StepCache(states, rows.count.tolist()), crosses)
        return self._body.extend(self._embed(rows, ids), rows.pad(position), sees, step)

    def _own_states(self, states: Sequence[State]) -> list[TorchState]:
        for state in states:
            if not isinstance(state, CrossState):
                raise DecoderError(
                    "expected states made by EncoderDecoder.prefill, got those of another decoder"
                )
        return super()._own_states(states)

    @torch.inference_mode()
    def _check_logits(self) -> None:
        """Compare logits over a tree of two branches with the model's own over each branch."""
        prompts = [np.arange(3) % self.vocabulary, np.arange(1, 6) % self.vocabulary]
        branch = np.array([[3, 4], [5, 6]]) % self.vocabulary
        prefilled = self.prefill([(Tokens(prompt),) for prompt in prompts])
        request, root = np.array([0, 0, 1, 1]), np.array([-1, -1, -1, -1])
        first = self.extend(prefilled.states, request, np.tile(branch[:, 0], 2), root)
        second = self.extend(prefilled.states, request, np.tile(branch[:, 1], 2), np.array([0, 1, 0, 1]))
        for row, b in enumerate(request.tolist()):
            source = torch.from_numpy(prompts[b])[None].to(self._device)
            answer = torch.from_numpy(np.concatenate([self._start, branch[row % 2]]))[None].to(self._device)
            own = self.model(input_ids=source, decoder_input_ids=answer, use_cache=False).logits[0]
            hidden = np.stack([prefilled.hidden[b], first[row], second[row]])
            error = self._difference(hidden, own)
            if not error <= self._tolerance:  # not `>`: it may be no number at all
                raise DecoderError(
                    f"expected the logits of {type(self.model).__name__} to be those of its layers run one by "
                    f"one, got a difference of {error:.1g} of the largest; it cannot be decoded here"
                )
