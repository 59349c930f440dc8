"""The native model without torch: its exported body run by onnxruntime, its code tables by numpy.

Beside the body's graph there is one small graph for the heads of all levels: it takes the level's matrices as
inputs, straight from the memory-mapped file. A head in numpy would be as exact and two to three times slower,
because numpy has no GELU (measured, 20 and 400 rows, hidden size 128, one thread: 65 and 2,111 µs against 38 and
612; with the matrices inside the graph it is no faster). It knows nothing of tries, items' ids or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from genrec.decoders.base import Hidden, Prefilled, Prompt, State
from genrec.decoders.body_shape import BodyShape
from genrec.decoders.code_states import CodeTable, KeptHistory, NativeState, history_rows
from genrec.decoders.key_values import common_length
from genrec.decoders.onnx_session import BodySession, Session
from genrec.decoders.path_vectors import PathVectors, query_and_place, with_places
from genrec.native_config import PATH_CODES, NativeConfig, item_tokens
from genrec.own_paths import OwnPaths
from index.artifact import load_array
from index.errors import DecoderError
from index.types import Float32Array, Int32Array, Int64Array, IntArray

BODY_FILE = "body.onnx"
HEAD_FILE = "head.onnx"
TEXT_SUMS_FILE = "text_sums.onnx"  # the text head's, where its vocabulary is large

# A level's table as one product against gathering two vectors per edge: as in the torch twin.
DENSE_GAIN = 16


class OnnxNativeDecoder:
    """Implements :class:`genrec.decoders.base.ReusesPrompts` over an exported native model.

    Args:
        graphs: directory of the graphs.
        matrices: directory of the matrices (``.npy``, memory-mapped).
        config: the model's shape.
        shape: the body graph's.
        codes: int32[N, L], the codes of every catalog row.
        threads: CPU threads of a graph; what numpy does takes the BLAS threads of the process.

    Raises:
        IndexFormatError: a file is missing or damaged.
        DecoderError: the codes do not fit the model.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        graphs: Path,
        matrices: Path,
        config: NativeConfig,
        shape: BodyShape,
        codes: Int32Array,
        threads: int = 1,
    ) -> None:
        self.config = config
        self.body = BodySession(graphs / BODY_FILE, threads, shape)
        self._head = Session(graphs / HEAD_FILE, threads)

        def matrix(name: str) -> Float32Array:
            return cast(Float32Array, np.asarray(load_array(matrices, name)))

        self.start = matrix("start")  # [H]
        self._bias = matrix("code_bias")  # [V]
        self._own = _path_vectors(matrices, config)
        self._codes = CodeTable(config.code_sizes, matrix("code_embedding"), self._own.paths)  # [V, H]
        self._item_tokens = item_tokens(config, codes)  # [N, L]
        self._own_rows = self._own.of_items(codes)  # [N, L - 1]
        self._from_hidden, self._hidden_bias = matrix("from_hidden"), matrix("hidden_bias")  # [H, L F], [L F]
        self._from_prefix = matrix("from_prefix")  # [L, H, F], zero at level 0
        self._out, self._out_bias = matrix("out"), matrix("out_bias")  # [L, F, H], [L, H]

    @property
    def code_embedding(self) -> Float32Array:
        """float32[V, H] of every code."""
        return self._codes.embedding

    @property
    def items(self) -> int:
        """N, the rows of the catalog."""
        return len(self._item_tokens)

    def prompt_key(self, prompt: Prompt) -> Int64Array:
        """int64[P]: the rows the model would read; see the contract."""
        return history_rows(prompt, self.config.max_items, self.items)

    def prefill(self, prompts: Sequence[Prompt], kept: Sequence[State | None] | None = None) -> Prefilled:
        """Run the body over the histories; each prompt is one Items segment, possibly empty.

        At most the last ``max_items`` of a history are read; a kept state serves while the history begins alike
        after that.

        Raises:
            DecoderError: a prompt is not one Items segment, or names a row the catalog does not have.
        """
        if not prompts:
            return Prefilled([], np.empty((0, self.config.hidden_size + 1), np.float32))
        histories = [self.prompt_key(prompt) for prompt in prompts]
        memories = []
        rest = []
        for history, state in zip(histories, kept or [None] * len(prompts), strict=True):
            known = _kept(state)
            # One position at least is run: its hidden row is what the heads start from.
            shared = 0 if known is None else min(1 + common_length(known.rows, history), len(history))
            memories.append(
                self.body.memory(grows=False)
                if known is None
                else known.memory.begun(shared, room=len(history) + 1 - shared)
            )
            rest.append(self.item_vectors(history[shared - 1 :]) if shared else self._positions(history))
        hidden = self.body.prefill(rest, memories)
        levels, size = self.config.levels, self.config.hidden_size
        projected = (hidden @ self._from_hidden + self._hidden_bias).reshape(len(prompts), levels, -1)
        query = self._query(0, projected[:, 0], np.zeros((len(prompts), size), np.float32))
        nothing, no_place = np.zeros((0, size), np.float32), np.zeros(0, np.int64)
        # A copy each, so that one state that lives on does not hold its batch mates' memory.
        states: list[State] = [
            NativeState(row.copy(), nothing, no_place, no_place, KeptHistory(history, memory))
            for row, history, memory in zip(projected, histories, memories, strict=True)
        ]
        return Prefilled(states, with_places(query, np.zeros(len(prompts), np.int64)))

    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """Feed one code to each of R prefixes; see the contract.

        A row behind the last level has nothing left to say: its hidden row is zero.

        Raises:
            DecoderError: a token is no code of the level its prefix stands at.
        """
        mine = cast(Sequence[NativeState], states)
        fed = self._codes.feed(mine, request, token, parent)
        queries = np.zeros_like(fed.total)
        for level in range(1, self.config.levels):
            rows = np.flatnonzero(fed.depth == level)
            if len(rows):
                projected = np.stack([state.projected[level] for state in mine])[request[rows]]
                queries[rows] = self._query(level, projected, fed.total[rows])
        return with_places(queries, fed.place)

    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """float32[E]: query · (code embedding + own vector) + biases for each edge."""
        queries, place_of = query_and_place(hidden)
        logits = np.empty(len(row), np.float32)
        level_of_edge = self._codes.level_of[token]
        for level in np.unique(level_of_edge).tolist():
            edge = np.flatnonzero(level_of_edge == level)
            used = np.zeros(len(queries), bool)
            used[row[edge]] = True
            if len(edge) * DENSE_GAIN >= int(used.sum()) * self.config.code_sizes[level]:
                place = np.cumsum(used) - 1
                table = self._level_logits(queries[used], level)
                logits[edge] = table[place[row[edge]], token[edge] - self._codes.offsets[level]]
            else:
                code = token[edge]
                products = np.einsum("eh,eh->e", queries[row[edge]], self._codes.embedding[code])
                logits[edge] = products + self._bias[code]
        self._own.add_to_edges(logits, queries, place_of, row, token)
        return logits

    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """float32[R]: logsumexp over the codes of level ``depth[r]``.

        Raises:
            DecoderError: a row stands behind the last level.
        """
        self._codes.check_depths(depth)
        queries, place = query_and_place(hidden)
        total = np.empty(len(queries), np.float32)
        for level in np.unique(depth).tolist():
            rows = depth == level
            logits = self._level_logits(queries[rows], level)
            self._own.add_to_level(logits, queries[rows], place[rows])
            top = logits.max(1, keepdims=True)
            total[rows] = (top + np.log(np.exp(logits - top).sum(1, keepdims=True)))[:, 0]
        return total

    def _level_logits(self, query: Float32Array, level: int) -> Float32Array:
        """float32[R, C]: all codes of a level, by their embeddings alone."""
        first, end = self._codes.offsets[level : level + 2]
        logits: Float32Array = query @ self._codes.embedding[first:end].T + self._bias[first:end]
        return logits

    def _query(self, level: int, projected: Float32Array, prefix: Float32Array) -> Float32Array:
        """float32[R, H] from what the level's head sees of the prompt, [R, F], and the prefix sums, [R, H]."""
        (query,) = self._head.run(
            {
                "projected": projected,
                "prefix": prefix,
                "from_prefix": self._from_prefix[level],
                "out": self._out[level],
                "out_bias": self._out_bias[level],
            }
        )
        return query

    def _positions(self, history: Int64Array) -> Float32Array:
        """float32[P + 1, H]: the start, then the items."""
        return np.concatenate([self.start[None], self.item_vectors(history)])

    def item_vectors(self, rows: Int64Array) -> Float32Array:
        """float32[n, H] of items: the sum of their codes, and of the vectors that their path has of its own."""
        vectors: Float32Array = self._codes.embedding[self._item_tokens[rows]].sum(1)
        vectors += self._own.vector[self._own_rows[rows]].sum(1)
        return vectors


def _path_vectors(matrices: Path, config: NativeConfig) -> PathVectors:
    """The own paths of an export."""
    codes = np.asarray(load_array(matrices, PATH_CODES), np.int32)
    vector, bias = (
        np.asarray(load_array(matrices, name), np.float32) for name in ("path_vector", "path_bias")
    )
    return PathVectors(OwnPaths(codes, config.code_sizes), vector, bias)


def _kept(state: State | None) -> KeptHistory | None:
    if state is None:
        return None
    if not isinstance(state, NativeState) or state.kept is None:
        raise DecoderError(
            "expected kept states made by this decoder's prefill, got those of another decoder"
        )
    return state.kept
