"""OnnxDecoder: an exported causal language model run by onnxruntime and numpy. No torch anywhere on this path.

It does what :class:`genrec.decoders.torch_decoder.TorchDecoder` does, with the same trees, masks and positions;
the body is a graph (:mod:`genrec.decoders.body_graph`), embedding and head are memory-mapped matrices. It knows no
trie, no items and no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from genrec.decoders.base import Hidden, Prefilled, Prompt, State
from genrec.decoders.body_shape import BodyShape
from genrec.decoders.key_values import KeyValues, common_length
from genrec.decoders.numpy_head import NumpyHead
from genrec.decoders.onnx_native import BODY_FILE, HEAD_FILE
from genrec.decoders.onnx_session import BodySession, Session
from genrec.decoders.prompt_reader import PromptReader
from genrec.decoders.tree_mask import RaggedRows, check_parents, compacted_parents, tree_mask
from index.artifact import load_array
from index.errors import DecoderError
from index.types import Float32Array, Int64Array, IntArray


class Embedding(Protocol):
    """Vectors by token id: a matrix, or what looks like one."""

    def __len__(self) -> int:
        """How many ids there are."""

    def __getitem__(self, ids: Int64Array, /) -> Float32Array:
        """float32[..., H] of int64[...]."""


class OnnxState:
    """One request's prompt and the tree of tokens fed since, with their keys and values."""

    __slots__ = ("memory", "parent", "prompt")

    def __init__(self, prompt: Int64Array, memory: KeyValues, parent: Int64Array) -> None:
        self.prompt = prompt  # [P] token ids
        self.memory = memory  # of the prompt's positions, then one per slot
        self.parent = parent  # [slots] slot of each slot's predecessor

    @property
    def slots(self) -> int:
        """Tokens fed after the prompt; the next one gets this number."""
        return len(self.parent)

    @property
    def nbytes(self) -> int:
        """Memory held, spare room included, in bytes."""
        return self.prompt.nbytes + self.memory.nbytes + self.parent.nbytes

    def fork(self) -> OnnxState:
        """An independent copy, without spare room."""
        return OnnxState(self.prompt, self.memory.copy(), self.parent)

    def compact(self, live: IntArray) -> None:
        """Forget all slots but ``live`` (int[S], ascending, closed under parents); ``live[i]`` becomes ``i``.

        Raises:
            DecoderError: ``live`` is not ascending, names a slot that is not there, or lacks a parent.
        """
        live = np.asarray(live, np.int64)
        parent = compacted_parents(self.parent, live)
        prompt = len(self.prompt)
        self.memory.keep(np.concatenate([np.arange(prompt), prompt + live]))
        self.parent = parent


class OnnxDecoder:
    """Implements :class:`genrec.decoders.base.ReusesPrompts` over an exported body that is causal.

    Args:
        body: the graph of the layers.
        embedding: ids to vectors.
        head: hidden rows to logits.
        max_positions: most tokens of prompt and answer; None where there is no limit.
        token_offset: added to every token id that comes from the search, as in the torch twin.
        reader: how prompts become tokens.
    """

    def __init__(
        self,
        body: BodySession,
        embedding: Embedding,
        head: NumpyHead,
        max_positions: int | None,
        token_offset: int = 0,
        reader: PromptReader | None = None,
    ) -> None:
        self._body = body
        self._embedding = embedding
        self._head = head
        self.max_positions = max_positions
        self._reader = reader or PromptReader()
        self._always_run = (
            1  # positions at a prompt's end that are run whatever is kept: hidden rows come from them
        )
        self.token_offset = token_offset

    @classmethod
    def open(
        cls,
        graphs: Path,
        matrices: Path,
        shape: BodyShape,
        max_positions: int | None,
        token_offset: int = 0,
        reader: PromptReader | None = None,
        threads: int = 1,
    ) -> OnnxDecoder:
        """The decoder of an exported language model.

        Args:
            graphs: directory of the body's graph.
            matrices: directory of the matrices (``.npy``, memory-mapped).
            shape: the body graph's.
            max_positions: see above, as ``token_offset`` and ``reader``.
            token_offset: see above.
            reader: see above.
            threads: CPU threads of a graph; what numpy does takes the BLAS threads of the process.

        Raises:
            IndexFormatError: a file is missing or damaged.
            MissingDependencyError: onnxruntime is not installed.
        """
        body = BodySession(graphs / BODY_FILE, threads, shape)
        embedding = _matrix(matrices, "embedding")  # [V, H]
        tied = not (matrices / "head.npy").is_file()
        bias = _matrix(matrices, "head_bias") if (matrices / "head_bias.npy").is_file() else None
        sums = Session(graphs / HEAD_FILE, threads) if (graphs / HEAD_FILE).is_file() else None
        head = NumpyHead(embedding if tied else _matrix(matrices, "head"), bias, sums)
        return cls(body, embedding, head, max_positions, token_offset, reader)

    def with_offset(self, token_offset: int) -> OnnxDecoder:
        """A decoder of the same sessions for answers whose token ids start elsewhere; text starts at 0."""
        other = copy(self)
        other.token_offset = token_offset
        return other

    @property
    def vocabulary(self) -> int:
        """V, the rows of the head."""
        return self._head.vocabulary

    def prompt_key(self, prompt: Prompt) -> Int64Array:
        """int64[P]: the token ids the model would read; see the contract."""
        ids = self._reader.ids(prompt)
        self._check_tokens(ids, len(self._embedding))  # of a native model, items too
        self._check_positions(len(ids) - 1)
        return ids

    def prefill(self, prompts: Sequence[Prompt], kept: Sequence[State | None] | None = None) -> Prefilled:
        """Run the prompts (B of them, of any lengths), each from a kept state where one is given.

        Raises:
            DecoderError: a prompt is empty, has a segment the model cannot read, holds an id outside the
                vocabulary, or is longer than the model's positions; or a kept state is not this decoder's.
        """
        if not prompts:
            return Prefilled([], self._no_hidden())
        keys = [self.prompt_key(prompt) for prompt in prompts]
        memories = []
        for ids, state in zip(keys, kept or [None] * len(keys), strict=True):
            if state is None:
                memories.append(self._body.memory(grows=True))
                continue
            (mine,) = _own_states([state])
            shared = min(common_length(mine.prompt, ids), len(ids) - self._always_run)
            memories.append(mine.memory.begun(shared, room=len(ids) - shared))
        hidden = self._read(keys, memories)
        no_slots = np.zeros(0, np.int64)
        states: list[State] = [
            OnnxState(ids, memory, no_slots) for ids, memory in zip(keys, memories, strict=True)
        ]
        return Prefilled(states, hidden)

    def _read(self, keys: Sequence[Int64Array], memories: Sequence[KeyValues]) -> Float32Array:
        """float32[B, H]: run what the memories do not hold of their prompts, and keep it."""
        rest = [self._embedding[ids[memory.length :]] for ids, memory in zip(keys, memories, strict=True)]
        return self._body.prefill(rest, memories)

    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """Feed one token to each of R prefixes; see :meth:`genrec.decoders.base.Decoder.extend`.

        Raises:
            DecoderError: the rows are not in request order, a state is not this decoder's or comes twice, a
                parent is not an earlier slot, a token is outside the vocabulary, or a prefix outgrows the
                model's positions. No state has changed then.
        """
        if (np.diff(request) < 0).any():
            raise DecoderError("expected rows in the order of their requests, got a request that falls")
        active, request = np.unique(request, return_inverse=True)  # requests without rows take no padding
        rows = RaggedRows(request)
        if not len(rows):
            return self._no_hidden()
        used = _own_states([states[index] for index in active])
        ids = np.asarray(token, np.int64) + self.token_offset
        parents = np.asarray(parent, np.int64)
        self._check_tokens(ids, len(self._embedding))
        check_parents([state.slots for state in used], rows, parents)
        prompt_length = np.array([len(state.prompt) for state in used])
        sees, depth = tree_mask(prompt_length, [state.parent for state in used], rows, parents)
        position = prompt_length[rows.request] + depth
        self._check_positions(int(position.max()))
        everything = np.tile(np.arange(rows.width), (len(used), 1))
        hidden = self._body.run(
            self._embedding[rows.pad(ids)],
            rows.pad(position),
            sees,
            [state.memory for state in used],
            rows,
            everything,
        )
        for state, grown in zip(used, rows.split(parents), strict=True):
            state.parent = np.concatenate([state.parent, grown])
        return hidden[rows.request, rows.column]

    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """float32[E]: the logit of ``token[e]`` after hidden row ``row[e]``, computing no others.

        Raises:
            DecoderError: a token is outside the vocabulary.
        """
        ids = np.asarray(token, np.int64) + self.token_offset
        self._check_tokens(ids)
        return self._head.edge_logits(hidden, np.asarray(row, np.int64), ids)

    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """float32[R]: log of the sum of exp(logit) over the whole vocabulary, at any depth."""
        return self._head.log_normalizer(hidden)

    def logits(self, hidden: Hidden) -> Float32Array:
        """float32[R, V]: all logits after each hidden row; see :class:`genrec.decoders.base.ScoresVocabulary`."""
        return self._head.all_logits(hidden)[:, self.token_offset :]

    def _no_hidden(self) -> Hidden:
        return np.empty((0, self._head.weight.shape[1]), np.float32)

    def _check_tokens(self, ids: Int64Array, most: int | None = None) -> None:
        most = self.vocabulary if most is None else most
        if len(ids) and not 0 <= ids.min() <= ids.max() < most:
            raise DecoderError(
                f"expected token ids in 0 .. {most - 1}, got {ids.min()} .. {ids.max()} "
                f"(token_offset {self.token_offset}); use the tokenizer the index was built with"
            )

    def _check_positions(self, last: int) -> None:
        if self.max_positions is not None and last >= self.max_positions:
            raise DecoderError(
                f"expected at most {self.max_positions} tokens of prompt and answer, got {last + 1}; "
                "shorten the history"
            )


def _own_states(states: Sequence[State]) -> list[OnnxState]:
    own = [state for state in states if isinstance(state, OnnxState)]
    if len(own) < len(states):
        raise DecoderError("expected states made by OnnxDecoder.prefill, got those of another decoder")
    if len({id(state) for state in own}) < len(own):
        raise DecoderError("expected each request to have its own state, got one twice; fork it")
    return own


def _matrix(directory: Path, name: str) -> Float32Array:
    return cast(Float32Array, np.asarray(load_array(directory, name)))
