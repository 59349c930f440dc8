"""The small model we train from scratch: item positions in, codes out.

A history item is one position: its vector is the sum of its code embeddings, plus a vector of its own where
training saw it often enough. A causal body from a stock Hugging Face config turns the positions into hidden
states, and a head emits the next item's codes level by level, each conditioned on the codes before it. Paths
of codes that training saw often enough have a vector of their own there too (:mod:`genrec.own_paths`). A new
item is read and spoken of as soon as it has codes.

A model with a text vocabulary also writes: behind any position a *branch* of a task token, an item and words about it
may follow, which sees the history up to there and itself (:mod:`genrec.text_branch`). The body is the same.

It knows nothing of tries, users or files of interactions. What code belongs to which item comes in as an
array and is not part of the weights; own vectors are kept under code paths, not under an item's row, so
they survive a catalog that grows, shrinks or is reordered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from genrec.edge_products import edge_products
from genrec.native_config import CONFIG_FILE as CONFIG_FILE
from genrec.native_config import PATH_CODES, RESIDUAL_CODES, item_tokens, residual_place
from genrec.native_config import WEIGHTS_FILE as WEIGHTS_FILE
from genrec.native_config import NativeConfig as NativeConfig
from genrec.own_paths import OwnPaths, no_paths
from genrec.text_branch import TextEnds, Trunk
from index.errors import IndexFormatError
from index.types import Int32Array

# Part of history positions that are read by codes alone while training, so that codes carry an item that has
# no residual. Not tuned.
RESIDUAL_DROPOUT = 0.2
# The same of targets, so that codes alone speak of an item that has no path of its own.
PATH_DROPOUT = 0.2


class NativeModel(nn.Module):
    """Item positions in, codes out. ``item_tokens`` int[N, L] holds the token ids of every catalog row."""

    item_tokens: Tensor
    level_offsets: Tensor
    residual_codes: Tensor
    residual_place: Tensor
    item_places: Tensor
    path_first: Tensor
    path_code: Tensor

    def __init__(
        self,
        config: NativeConfig,
        codes: Int32Array,
        residual_codes: Int32Array | None = None,
        path_codes: Int32Array | None = None,
    ) -> None:
        """Build with random weights (torch's global generator).

        Args:
            config: the shape.
            codes: int32[N, L], the codes of every catalog row.
            residual_codes: int32[M, L], distinct code paths of the items that get a vector of their own.
            path_codes: int32[M, L], the paths that get one on the way out (:func:`genrec.own_paths.choose_paths`).

        Raises:
            DecoderError: the codes do not have the shape or the range the config gives.
            IndexFormatError: the paths are in disorder.
        """
        super().__init__()
        self.config = config
        size = config.hidden_size
        offsets = torch.tensor(config.offsets, dtype=torch.int64)
        self.register_buffer("level_offsets", offsets, persistent=False)
        self.register_buffer("item_tokens", torch.from_numpy(item_tokens(config, codes)), persistent=False)
        if residual_codes is None:
            residual_codes = np.zeros((0, config.levels), np.int32)
        self.register_buffer(RESIDUAL_CODES, torch.from_numpy(residual_codes.astype(np.int32)))
        place = torch.from_numpy(residual_place(residual_codes, codes))
        self.register_buffer("residual_place", place, persistent=False)
        self.residual = nn.Embedding(
            len(residual_codes) + 1, size, padding_idx=0
        )  # row 0: no vector of its own
        path_codes = no_paths(config.levels) if path_codes is None else path_codes.astype(np.int32)
        self.paths = OwnPaths(path_codes, config.code_sizes)
        self.register_buffer(PATH_CODES, torch.from_numpy(path_codes))
        self.register_buffer("item_places", torch.from_numpy(self.paths.places(codes)), persistent=False)
        self.register_buffer("path_first", torch.from_numpy(self.paths.first), persistent=False)
        self.register_buffer("path_code", torch.from_numpy(self.paths.code), persistent=False)
        # Row p - roots is that of place p; first codes have none beside their embedding.
        own = len(self.paths) - self.paths.roots
        self.path_vector = nn.Embedding(own + 1, size, padding_idx=0)
        self.path_bias = nn.Parameter(torch.zeros(own + 1))
        self.code_embedding = nn.Embedding(config.offsets[-1], size)
        self.code_bias = nn.Parameter(torch.zeros(config.offsets[-1]))
        self.start = nn.Parameter(torch.zeros(size))
        self.body = GPT2Model(
            GPT2Config(
                vocab_size=1,  # positions come as vectors; the stock token table stays unused
                bos_token_id=None,
                eos_token_id=None,
                n_positions=config.positions,
                n_embd=size,
                n_layer=config.layers,
                n_head=config.heads,
                resid_pdrop=config.dropout,
                embd_pdrop=config.dropout,
                attn_pdrop=config.dropout,
                activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's, in one kernel
                initializer_range=size**-0.5,  # as wide as the layers: GPT-2's 0.02 is for widths near 1000
                use_cache=False,
            )
        )
        self.dropout = nn.Dropout(config.dropout)
        self.heads = nn.ModuleList(CodeHead(config, level) for level in range(config.levels))
        self.text = TextEnds(config) if config.text_size else None
        # An item's vector, the sum of four code embeddings, starts at unit length; positions start small
        # beside it.
        nn.init.normal_(self.code_embedding.weight, std=0.5 * size**-0.5)
        nn.init.normal_(self.residual.weight[1:], std=0.02)
        nn.init.zeros_(self.path_vector.weight)
        nn.init.normal_(self.start, std=0.02)
        nn.init.normal_(self.body.wpe.weight, std=0.02)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.start.device

    def encode(self, rows: Tensor, trunk: Trunk | None = None) -> Tensor:
        """The body's output float[B, P + 1, H] for histories int64[B, P], oldest first.

        Position p has read the start token and the first p items. Rows are padded *on the right* with -1: the
        body is causal, so padding is seen by no real position and needs no mask. ``trunk`` remembers the keys
        and values, for text branches to follow.
        """
        items = self.item_vectors(rows)
        start = self.start.expand(len(rows), 1, -1)
        output = self.body(
            inputs_embeds=torch.cat([start, items], 1), past_key_values=trunk, use_cache=trunk is not None
        )
        return self.dropout(output.last_hidden_state)  # type: ignore[no-any-return]

    def item_vectors(self, rows: Tensor) -> Tensor:
        """Vectors float[B, P, H] of items int64[B, P]. A row of -1 reads some item."""
        vectors = self.code_embedding(self.item_tokens[rows]).sum(2)
        if len(self.residual_codes):
            residual = self.residual(self.residual_place[rows])
            if self.training:
                residual = residual * (torch.rand(*rows.shape, 1) >= RESIDUAL_DROPOUT)
            vectors = vectors + residual
        return vectors  # type: ignore[no-any-return]

    def code_logits(self, query: Tensor, level: int, place: Tensor) -> Tensor:
        """Logits float[T, C] of every code of ``level`` for queries float[T, H] behind own places int64[T]."""
        first, end = self.config.offsets[level : level + 2]
        logits = query @ self.code_embedding.weight[first:end].T + self.code_bias[first:end]
        if level == 0 or not len(self.paths):
            return logits
        count = (self.path_first[place + 1] - self.path_first[place]) * (place > 0)
        row = torch.repeat_interleave(count)
        start = self.path_first[place] - (count.cumsum(0) - count)
        child = torch.arange(len(row), device=row.device) + start[row]
        own = child - self.paths.roots
        added = edge_products(query, self.path_vector.weight, count, own) + self.path_bias[own]
        return logits.index_put((row, self.path_code[child]), added, accumulate=True)

    def level_logits(self, hidden: Tensor, tokens: Tensor) -> list[Tensor]:
        """Teacher-forced logits, L of float[T, C_l], for hidden float[T, H] and targets int64[T, L]."""
        codes = (tokens - self.level_offsets[:-1]).cpu().numpy()
        places = torch.from_numpy(self.paths.places(codes)).to(hidden.device)
        prefix = torch.zeros_like(hidden)
        logits = []
        for level, head in enumerate(self.heads):
            logits.append(self.code_logits(head(hidden, prefix), level, places[:, level]))
            prefix = prefix + self.code_embedding(tokens[:, level])
        return logits

    def save(self, directory: Path) -> None:
        """Write config and weights into an existing directory (the caller owns atomicity)."""
        text = json.dumps(self.config.to_dict(), indent=2) + "\n"
        (directory / CONFIG_FILE).write_text(text, encoding="utf-8")
        save_file(
            {name: value.contiguous() for name, value in self.state_dict().items()}, directory / WEIGHTS_FILE
        )

    @classmethod
    def load(cls, directory: Path, codes: Int32Array) -> NativeModel:
        """Read a model that :meth:`save` wrote, over the code table of its index; in evaluation mode.

        Raises:
            IndexFormatError: a file is missing or does not hold this kind of model.
            DecoderError: the codes do not fit the model.
        """
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            if not (directory / name).is_file():
                raise IndexFormatError(
                    f"expected {directory / name}, found no such file; train the bundle again"
                )
        config = NativeConfig.from_dict(json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8")))
        weights = load_file(directory / WEIGHTS_FILE)
        model = cls(config, codes, *(_numbers(weights, name) for name in (RESIDUAL_CODES, PATH_CODES)))
        if PATH_CODES not in weights:  # of a bundle from before there were own paths: it has none
            state = model.state_dict()
            weights |= {name: state[name] for name in (PATH_CODES, "path_vector.weight", "path_bias")}
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise IndexFormatError(
                f"expected weights for the config beside them in {directory / WEIGHTS_FILE}, got {error}; "
                "train the bundle again"
            ) from error
        return model.eval()


def _numbers(weights: Mapping[str, Tensor], name: str) -> Int32Array | None:
    return weights[name].numpy() if name in weights else None


class CodeHead(nn.Module):
    """One level's query vector from the body's output and the sum of the code embeddings chosen so far."""

    def __init__(self, config: NativeConfig, level: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.from_hidden = nn.Linear(size, config.head_size)
        # Split from the above so that a decoder runs `from_hidden` once a request, not once a beam.
        self.from_prefix = nn.Linear(size, config.head_size, bias=False) if level else None
        self.out = nn.Linear(config.head_size, size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, prefix: Tensor) -> Tensor:
        """Query float[T, H] from hidden float[T, H] and prefix sums float[T, H]."""
        return self.query(self.from_hidden(hidden), prefix)

    def query(self, projected: Tensor, prefix: Tensor) -> Tensor:
        """Query float[T, H] from ``from_hidden``'s output float[T, F] and prefix sums float[T, H]."""
        if self.from_prefix is not None:
            projected = projected + self.from_prefix(prefix)
        return self.out(self.dropout(nn.functional.gelu(projected)))  # type: ignore[no-any-return]
