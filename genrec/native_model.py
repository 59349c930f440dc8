"""The small model we train from scratch: item positions in, codes out.

A history item is one position: its vector is the sum of its code embeddings and of the vectors that the beginnings
of its path have of their own (:mod:`genrec.own_paths`). A causal body from a stock Hugging Face config turns the
positions into hidden states, and a head emits the next item's codes level by level, each conditioned on the codes
before it, against the same embeddings and own vectors: what an item is when it is read, it is when it is spoken of.
A new item is read and spoken of as soon as it has codes.

The body is Llama's, with rotary positions (Su et al., 2021): how long ago an item was read matters, and not its place
from the beginning. Against GPT-2's body with learned positions, MovieLens-1M, 7,000 steps: validation NDCG@10 .1893
for .1710.

A model with a text vocabulary also writes: behind any position a *branch* of a task token, an item and words about it
may follow, which sees the history up to there and itself (:mod:`genrec.text_branch`). The body is the same.

It knows nothing of tries, users or files of interactions. What code belongs to which item comes in as an
array and is not part of the weights; own vectors are kept under code paths, not under an item's row, so
they survive a catalog that grows, shrinks or is reordered.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from genrec.dropout import Dropout, dropped_rows
from genrec.edge_products import edge_products
from genrec.native_config import CONFIG_FILE as CONFIG_FILE
from genrec.native_config import PATH_CODES, item_tokens
from genrec.native_config import WEIGHTS_FILE as WEIGHTS_FILE
from genrec.native_config import NativeConfig as NativeConfig
from genrec.own_paths import OwnPaths, no_paths
from genrec.text_branch import TextEnds, Trunk
from index.errors import IndexFormatError
from index.types import Int32Array

OWN_DROPOUT = 0.2
"""Part of positions, and of targets, that are read and spoken of without own vectors while training, so that codes
carry an item that has none. Not tuned."""
INNER_SIZE = 3  # width of the body's gated MLPs, in hidden sizes: an eighth more weights than GPT-2's


class NativeModel(nn.Module):
    """Item positions in, codes out. ``item_tokens`` int[N, L] holds the token ids of every catalog row."""

    item_tokens: Tensor
    level_offsets: Tensor
    item_places: Tensor
    item_own: Tensor
    path_first: Tensor
    path_code: Tensor

    def __init__(
        self,
        config: NativeConfig,
        codes: Int32Array,
        path_codes: Int32Array | None = None,
    ) -> None:
        """Build with random weights (torch's global generator).

        Args:
            config: the shape.
            codes: int32[N, L], the codes of every catalog row.
            path_codes: int32[M, L], the paths that get a vector of their own (:func:`genrec.own_paths.choose_paths`).

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
        path_codes = no_paths(config.levels) if path_codes is None else path_codes.astype(np.int32)
        self.paths = OwnPaths(path_codes, config.code_sizes)
        self.register_buffer(PATH_CODES, torch.from_numpy(path_codes))
        places = self.paths.places(codes)
        self.register_buffer("item_places", torch.from_numpy(places), persistent=False)
        self.register_buffer(
            "item_own", torch.from_numpy(self.paths.own_rows(places[:, 2:])), persistent=False
        )
        self.register_buffer("path_first", torch.from_numpy(self.paths.first), persistent=False)
        self.register_buffer("path_code", torch.from_numpy(self.paths.code), persistent=False)
        # Row p - roots is that of place p; first codes have none beside their embedding.
        own = len(self.paths) - self.paths.roots
        self.path_vector = nn.Embedding(own + 1, size, padding_idx=0)
        self.path_bias = nn.Parameter(torch.zeros(own + 1))
        self.code_embedding = nn.Embedding(config.offsets[-1], size)
        self.code_bias = nn.Parameter(torch.zeros(config.offsets[-1]))
        self.start = nn.Parameter(torch.zeros(size))
        self.body = LlamaModel(
            LlamaConfig(
                vocab_size=1,  # positions come as vectors; the stock token table stays unused
                bos_token_id=None,
                eos_token_id=None,
                max_position_embeddings=config.positions,
                hidden_size=size,
                intermediate_size=INNER_SIZE * size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                attention_dropout=config.dropout,
                initializer_range=size**-0.5,  # as wide as the layers: the stock 0.02 is for widths near 1000
                use_cache=False,
            )
        )
        layers: Any = self.body.layers
        for layer in layers:  # the stock body drops attention alone
            for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
                last.register_forward_hook(Dropout(config.dropout).after_module)
        self.dropout = Dropout(config.dropout)
        self.heads = nn.ModuleList(CodeHead(config, level) for level in range(config.levels))
        self.text = TextEnds(config) if config.text_size else None
        # An item's vector, the sum of four code embeddings, starts at unit length, and the start small beside it.
        nn.init.normal_(self.code_embedding.weight, std=0.5 * size**-0.5)
        nn.init.zeros_(self.path_vector.weight)
        nn.init.normal_(self.start, std=0.02)

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
        if len(self.paths):
            own = self.path_vector(self.item_own[rows]).sum(2)
            vectors = vectors + (own * dropped_rows(own, OWN_DROPOUT) if self.training else own)
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
        known = weights[PATH_CODES].numpy() if PATH_CODES in weights else None
        model = cls(config, codes, known)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise IndexFormatError(
                f"expected weights for the config beside them in {directory / WEIGHTS_FILE}, got {error}; "
                "train the bundle again"
            ) from error
        return model.eval()


class CodeHead(nn.Module):
    """One level's query vector from the body's output and the sum of the code embeddings chosen so far."""

    def __init__(self, config: NativeConfig, level: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.from_hidden = nn.Linear(size, config.head_size)
        # Split from the above so that a decoder runs `from_hidden` once a request, not once a beam.
        self.from_prefix = nn.Linear(size, config.head_size, bias=False) if level else None
        self.out = nn.Linear(config.head_size, size)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, prefix: Tensor) -> Tensor:
        """Query float[T, H] from hidden float[T, H] and prefix sums float[T, H]."""
        return self.query(self.from_hidden(hidden), prefix)

    def query(self, projected: Tensor, prefix: Tensor) -> Tensor:
        """Query float[T, H] from ``from_hidden``'s output float[T, F] and prefix sums float[T, H]."""
        if self.from_prefix is not None:
            projected = projected + self.from_prefix(prefix)
        return self.out(self.dropout(nn.functional.gelu(projected)))  # type: ignore[no-any-return]
