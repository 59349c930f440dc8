"""The native model behind the decoder contract: the body runs once a request, a small head walks the codes.

A request's state is the body's output, already projected for every level's head, and per slot the running sum
of its code embeddings. Feeding a token is one addition and one small MLP, so thousands of prefixes of
hundreds of requests go through in one call. It knows nothing of tries, items' ids or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from genrec.decoders.base import Hidden, Prefilled, Prompt, State
from genrec.decoders.code_states import CodeTable, NativeState, history_rows
from genrec.decoders.path_vectors import PathVectors, query_and_place, with_places
from genrec.native_model import CodeHead, NativeModel
from index.types import Float32Array, IntArray

# Prompts are sorted by length and run in groups of this many, so that one long history pads only its group.
PREFILL_GROUP = 64

# A level's whole table as one matrix product costs about a sixteenth per logit of what gathering two vectors
# per edge does (hidden size 128, one thread): gather only where fewer edges than that are asked for.
DENSE_GAIN = 16


class NativeDecoder:
    """Implements :class:`genrec.decoders.base.Decoder`.

    ``hidden`` is the query vector of a row's level and the place of its prefix among the own paths.
    """

    def __init__(self, model: NativeModel) -> None:
        self.model = model.eval()
        self.config = model.config
        self._embedding = model.code_embedding.weight.detach()  # [V, H]
        self._codes = CodeTable(self.config.code_sizes, self._embedding.numpy(), model.paths)
        own = model.path_vector.weight.detach().numpy(), model.path_bias.detach().numpy()
        self._own = PathVectors(model.paths, *own)
        self._bias = model.code_bias.detach()  # [V]

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        """Run the body over the histories; each prompt is one :class:`Items` segment, possibly empty.

        At most the last ``max_items`` of a history are read.

        Raises:
            DecoderError: a prompt is not one Items segment, or names a row the catalog does not have.
        """
        items = len(self.model.item_tokens)
        histories = [history_rows(prompt, self.config.max_items, items) for prompt in prompts]
        length = np.array([len(rows) for rows in histories], np.int64)
        hidden = torch.empty(len(prompts), self.config.hidden_size)
        order = np.argsort(length, kind="stable")
        for first in range(0, len(order), PREFILL_GROUP):
            group = order[first : first + PREFILL_GROUP]
            rows = np.full((len(group), int(length[group].max())), -1, np.int64)
            for place, request in enumerate(group):
                rows[place, : length[request]] = histories[request]
            output = self.model.encode(torch.from_numpy(rows).to(self.model.device))
            last = torch.from_numpy(length[group])
            hidden[torch.from_numpy(group)] = output[torch.arange(len(group)), last.to(output.device)].cpu()
        projected = torch.stack(
            [self._head(level).from_hidden(hidden) for level in range(self.config.levels)], 1
        )
        query = self._head(0).query(projected[:, 0], torch.zeros_like(hidden))
        nothing, no_place = np.zeros((0, self.config.hidden_size), np.float32), np.zeros(0, np.int64)
        # A copy each, so that one state that lives on does not hold its batch mates' memory.
        states: list[State] = [
            NativeState(row.copy(), nothing, no_place, no_place) for row in projected.numpy()
        ]
        return Prefilled(states, with_places(query.numpy(), np.zeros(len(prompts), np.int64)))

    @torch.no_grad()
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
                query = self._head(level).query(
                    torch.from_numpy(projected), torch.from_numpy(fed.total[rows])
                )
                queries[rows] = query.numpy()
        return with_places(queries, fed.place)

    @torch.no_grad()
    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """float32[E]: query · (code embedding + own vector) + biases for each edge."""
        queries, place_of = query_and_place(hidden)
        logits = np.empty(len(row), np.float32)
        level_of_edge = self._codes.level_of[token]
        for level in np.unique(level_of_edge):
            edge = np.flatnonzero(level_of_edge == level)
            used = np.zeros(len(queries), bool)
            used[row[edge]] = True
            place = np.cumsum(used) - 1
            if len(edge) * DENSE_GAIN >= int(used.sum()) * self.config.code_sizes[level]:
                table = self._code_logits(queries[used], int(level))
                logits[edge] = table[place[row[edge]], token[edge] - self._codes.offsets[level]]
            else:
                code = torch.from_numpy(token[edge].astype(np.int64))
                query = torch.from_numpy(queries[row[edge]])
                logits[edge] = ((query * self._embedding[code]).sum(1) + self._bias[code]).numpy()
        self._own.add_to_edges(logits, queries, place_of, row, token)
        return logits

    @torch.no_grad()
    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """float32[R]: logsumexp over the codes of level ``depth[r]``.

        Raises:
            DecoderError: a row stands behind the last level.
        """
        self._codes.check_depths(depth)
        queries, place = query_and_place(hidden)
        total = np.empty(len(queries), np.float32)
        for level in np.unique(depth):
            rows = depth == level
            logits = self._code_logits(queries[rows], int(level))
            self._own.add_to_level(logits, queries[rows], place[rows])
            total[rows] = torch.logsumexp(torch.from_numpy(logits), 1).numpy()
        return total

    def _code_logits(self, query: Float32Array, level: int) -> Float32Array:
        """float32[R, C]: all codes of a level, by their embeddings alone."""
        first, end = self._codes.offsets[level : level + 2]
        logits = torch.from_numpy(query) @ self._embedding[first:end].T + self._bias[first:end]
        return cast(Float32Array, logits.numpy())

    def _head(self, level: int) -> CodeHead:
        return cast(CodeHead, self.model.heads[level])
