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

from genrec.decoders.base import Hidden, Items, Prefilled, Prompt, State
from genrec.native_model import CodeHead, NativeModel
from index.errors import DecoderError
from index.types import Float32Array, Int64Array, IntArray

# Prompts are sorted by length and run in groups of this many, so that one long history pads only its group.
PREFILL_GROUP = 64

# A level's whole table as one matrix product costs about a sixteenth per logit of what gathering two vectors
# per edge does (hidden size 128, one thread): gather only where fewer edges than that are asked for.
DENSE_GAIN = 16


class NativeState:
    """One request: its prompt as the heads see it, and the prefixes fed since."""

    __slots__ = ("depth", "prefix", "projected")

    def __init__(self, projected: Float32Array, prefix: Float32Array, depth: Int64Array) -> None:
        self.projected = projected  # [L, F] the body's output after each level's first layer; never written
        self.prefix = prefix  # [S, H] sum of the code embeddings up to each slot
        self.depth = depth  # [S] codes up to each slot

    @property
    def slots(self) -> int:
        """Tokens fed after the prompt."""
        return len(self.depth)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.projected.nbytes + self.prefix.nbytes + self.depth.nbytes

    def fork(self) -> NativeState:
        """An independent copy. Arrays are replaced, never written, so sharing them is safe."""
        return NativeState(self.projected, self.prefix, self.depth)

    def compact(self, live: IntArray) -> None:
        """Keep the slots ``live``, renumbered in their order."""
        self.prefix, self.depth = self.prefix[live], self.depth[live]


class NativeDecoder:
    """Implements :class:`genrec.decoders.base.Decoder`. ``hidden`` is the query vector of a row's level."""

    def __init__(self, model: NativeModel) -> None:
        self.model = model.eval()
        self.config = model.config
        self._offsets = np.array(self.config.offsets, np.int64)
        self._level_of = np.repeat(np.arange(self.config.levels), self.config.code_sizes)  # [V]
        self._embedding = model.code_embedding.weight.detach()  # [V, H]
        self._bias = model.code_bias.detach()  # [V]

    @torch.no_grad()
    def prefill(self, prompts: Sequence[Prompt]) -> Prefilled:
        """Run the body over the histories; each prompt is one :class:`Items` segment, possibly empty.

        Only the last ``max_items`` of a history are read.

        Raises:
            DecoderError: a prompt is not one Items segment, or names a row the catalog does not have.
        """
        histories = [self._history(prompt) for prompt in prompts]
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
        nothing = np.zeros((0, self.config.hidden_size), np.float32)
        # A copy each, so that one state that lives on does not hold its batch mates' memory.
        states: list[State] = [
            NativeState(row.copy(), nothing, np.zeros(0, np.int64)) for row in projected.numpy()
        ]
        return Prefilled(states, query.numpy())

    @torch.no_grad()
    def extend(self, states: Sequence[State], request: IntArray, token: IntArray, parent: IntArray) -> Hidden:
        """Feed one code to each of R prefixes; see the contract.

        A row behind the last level has nothing left to say: its hidden row is zero.

        Raises:
            DecoderError: a token is no code of the level its prefix stands at.
        """
        mine = cast(Sequence[NativeState], states)
        prefix, depth = self._advance(mine, request, token, parent)
        first = np.searchsorted(request, np.arange(len(mine) + 1))
        for state, begin, end in zip(mine, first[:-1], first[1:], strict=True):
            if begin < end:
                state.prefix = np.concatenate([state.prefix, prefix[begin:end]])
                state.depth = np.concatenate([state.depth, depth[begin:end]])
        hidden = np.zeros((len(prefix), self.config.hidden_size), np.float32)
        for level in range(1, self.config.levels):
            rows = np.flatnonzero(depth == level)
            if len(rows):
                projected = np.stack([state.projected[level] for state in mine])[request[rows]]
                query = self._head(level).query(torch.from_numpy(projected), torch.from_numpy(prefix[rows]))
                hidden[rows] = query.numpy()
        return hidden

    @torch.no_grad()
    def edge_logits(self, hidden: Hidden, row: IntArray, token: IntArray) -> Float32Array:
        """float32[E]: query · code embedding + bias for each edge."""
        logits = np.empty(len(row), np.float32)
        level_of_edge = self._level_of[token]
        for level in np.unique(level_of_edge):
            edge = np.flatnonzero(level_of_edge == level)
            used = np.zeros(len(hidden), bool)
            used[row[edge]] = True
            place = np.cumsum(used) - 1
            if len(edge) * DENSE_GAIN >= int(used.sum()) * self.config.code_sizes[level]:
                table = self.model.code_logits(torch.from_numpy(hidden[used]), int(level)).numpy()
                logits[edge] = table[place[row[edge]], token[edge] - self._offsets[level]]
            else:
                code = torch.from_numpy(token[edge].astype(np.int64))
                query = torch.from_numpy(hidden[row[edge]])
                logits[edge] = ((query * self._embedding[code]).sum(1) + self._bias[code]).numpy()
        return logits

    @torch.no_grad()
    def log_normalizer(self, hidden: Hidden, depth: IntArray) -> Float32Array:
        """float32[R]: logsumexp over the codes of level ``depth[r]``.

        Raises:
            DecoderError: a row stands behind the last level.
        """
        if len(depth) and int(depth.max()) >= self.config.levels:
            raise DecoderError(
                f"expected depths below {self.config.levels}, got {int(depth.max())}; "
                "use the index the model was trained on"
            )
        total = np.empty(len(hidden), np.float32)
        for level in np.unique(depth):
            rows = depth == level
            logits = self.model.code_logits(torch.from_numpy(hidden[rows]), int(level))
            total[rows] = torch.logsumexp(logits, 1).numpy()
        return total

    def _head(self, level: int) -> CodeHead:
        return cast(CodeHead, self.model.heads[level])

    def _history(self, prompt: Prompt) -> Int64Array:
        """The item rows int64[P] the body will read."""
        if len(prompt) != 1 or not isinstance(prompt[0], Items):
            kinds = [type(segment).__name__ for segment in prompt]
            raise DecoderError(
                f"expected a prompt of one Items segment, got {kinds}; the native model reads items"
            )
        rows = prompt[0].rows[-self.config.max_items :]
        items = len(self.model.item_tokens)
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= items):
            raise DecoderError(
                f"expected item rows in [0, {items}), got {int(rows.min())} to {int(rows.max())}; "
                "map items to catalog rows first"
            )
        return rows

    def _advance(
        self, states: Sequence[NativeState], request: IntArray, token: IntArray, parent: IntArray
    ) -> tuple[Float32Array, Int64Array]:
        """Running sum float32[R, H] and depth int64[R] of each row's prefix, its own token included."""
        before = np.array([state.slots for state in states], np.int64)
        # One table of all predecessors there are already: row 0 is every request's empty prefix.
        nothing = np.zeros((1, self.config.hidden_size), np.float32)
        known_prefix = np.concatenate([nothing, *(state.prefix for state in states)])
        known_depth = np.concatenate([np.zeros(1, np.int64), *(state.depth for state in states)])
        base = 1 + np.cumsum(before) - before
        in_call = parent >= before[request]
        place = np.where(parent < 0, 0, base[request] + parent)
        place[in_call] = 0
        prefix, depth = known_prefix[place], known_depth[place] + 1
        own = self._embedding.numpy()[token]
        prefix += own
        # Chains: a row whose predecessor is in this call waits for it; as many rounds as a chain is long.
        caller = np.searchsorted(request, request) + parent - before[request]
        waiting = np.flatnonzero(in_call)
        while len(waiting):
            blocked = np.zeros(len(request), bool)
            blocked[waiting] = True
            free = waiting[~blocked[caller[waiting]]]
            prefix[free] = prefix[caller[free]] + own[free]
            depth[free] = depth[caller[free]] + 1
            waiting = waiting[blocked[caller[waiting]]]
        if len(depth) and int(depth.max()) > self.config.levels:
            raise DecoderError(
                f"expected nothing after the last code of a path, got {int(depth.max())} codes; "
                "use the index the model was trained on"
            )
        if not np.array_equal(self._level_of[token], depth - 1):
            wrong = int(np.flatnonzero(self._level_of[token] != depth - 1)[0])
            raise DecoderError(
                f"expected a code of level {int(depth[wrong]) - 1}, got token {int(token[wrong])}, "
                f"which is of level {int(self._level_of[token[wrong]])}; feed codes in their order"
            )
        return prefix, depth
