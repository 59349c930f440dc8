"""The fused step as torch operations: for models that run on a device, next to which the trie is kept.

:class:`DeviceTrie` puts a trie's arrays on a device, once. :class:`TorchStep` adds a batch's rules, and its
:meth:`~TorchStep.choose` takes and returns tensors of that device. Between the two nothing waits for the host:
every tensor's shape follows from the shapes of the arguments, edges that do not exist are padding and masked
(their ``row`` is R), and a request's best are found by sorting, not by a loop over requests. What does wait:

* :meth:`TorchStep.step`, the :class:`~genrec.kernels.step.StepKernel` over numpy arrays that the search calls
  today: it brings the frontier to the device and the choice back, one round trip a step;
* uploading: :class:`DeviceTrie` once a trie, the rules once a batch.

The device must know float64, as scores have it. Sums of exponentials may be taken in another order than on the
host: scores agree to rounding, and ties that only rounding breaks may swap. It has been run on torch's CPU
device, and on its meta device, where an operation that reads a number cannot run; on a GPU neither run nor timed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrec.kernels.numpy_step import NumpyStep
from genrec.kernels.step import Edges, StepResult, StepRules
from index.item_filter import Allowed, RankBitmap
from index.trie import TokenTrie
from index.types import Float32Array, Float64Array, Int64Array, IntArray
from index.walk import Places


class DeviceTrie:
    """What a step reads of a trie, as tensors of a device: int32 where that is enough."""

    def __init__(self, trie: TokenTrie, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.items = len(trie)
        self.nodes = trie.nodes
        self.token = _to(trie.token, self.device)  # [nodes]
        self.first_child = _to(trie.first_child, self.device)  # [nodes + 1]
        self.span_start = _to(trie.span_start, self.device)  # [nodes]
        self.fixed_length = trie.fixed_length
        self.path_offsets = _to(trie.path_offsets, self.device)  # [N + 1] or [1]


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """E slots for edges, those below one row together, and what was chosen of them. All on the device."""

    row: Tensor  # int64[E] the prefix an edge is below; R where a slot is padding
    node: Tensor  # int64[E]
    end: Tensor  # int64[E] one past the last rank below
    score: Tensor  # float64[E] log-probability of the path
    going: Tensor  # bool[E] chosen prefixes
    ended: Tensor  # bool[E] chosen paths that ended
    bound: Tensor  # float64[B] as :class:`~genrec.kernels.step.StepResult`


class TorchStep:
    """:class:`~genrec.kernels.step.StepKernel` on a device.

    Args:
        trie: the catalog's.
        rules: the batch's.
        on_device: the trie's arrays where they have been brought to the device already; None: the CPU's.
    """

    def __init__(self, trie: TokenTrie, rules: StepRules, on_device: DeviceTrie | None = None) -> None:
        self._trie = DeviceTrie(trie, "cpu") if on_device is None else on_device
        self._host_first_child = trie.first_child
        self._host = NumpyStep(trie, rules)
        self._requests = len(rules.beam)
        self._beam = _to(rules.beam, self.device, np.int64)  # [B]
        self._wanted = _to(rules.items, self.device, np.int64)  # [B]
        self._look_ahead = torch.tensor(rules.look_ahead, dtype=torch.bool, device=self.device)  # [B]
        self._catalog = rules.catalog
        self._allowed = _DeviceAllowed(rules.allowed, self._trie)

    @property
    def device(self) -> torch.device:
        """Where the trie is."""
        return self._trie.device

    def edges(self, node: Int64Array) -> Edges:
        """See :class:`~genrec.kernels.step.StepKernel`. Answered on the host, where the nodes are."""
        return self._host.edges(node)

    def step(
        self,
        request: Int64Array,
        places: Places,
        score: Float64Array,
        logits: Float32Array,
        normalizer: Float32Array | None = None,
    ) -> StepResult:
        """See :class:`~genrec.kernels.step.StepKernel`. One round trip between host and device."""
        first = self._host_first_child
        edges = int((first[places.node + 1].astype(np.int64) - first[places.node]).sum())
        chosen = self.choose(
            _to(request, self.device, np.int64),
            _to(places.node, self.device, np.int64),
            _to(places.end, self.device, np.int64),
            _to(places.depth, self.device, np.int64),
            torch.tensor(score, device=self.device),
            torch.tensor(logits, device=self.device),
            None if normalizer is None else torch.tensor(normalizer, device=self.device),
            slots=edges,
        )
        going, ended = torch.nonzero(chosen.going)[:, 0], torch.nonzero(chosen.ended)[:, 0]
        index = torch.cat([going, ended])
        return StepResult(
            row=chosen.row[index].cpu().numpy(),
            node=chosen.node[index].cpu().numpy(),
            end=chosen.end[index].cpu().numpy(),
            score=chosen.score[index].cpu().numpy(),
            prefixes=len(going),
            bound=chosen.bound.cpu().numpy(),
        )

    def choose(
        self,
        request: Tensor,
        node: Tensor,
        end: Tensor,
        depth: Tensor,
        score: Tensor,
        logits: Tensor,
        normalizer: Tensor | None = None,
        *,
        slots: int,
    ) -> DeviceChoice:
        """A step among tensors of the device; nothing waits for the host.

        Args:
            request: int64[R], non-decreasing.
            node: int64[R], with ``end`` int64[R] and ``depth`` int64[R] the places.
            end: see ``node``.
            depth: see ``node``.
            score: float64[R].
            logits: float32[R, V], or float32[``slots``]: one per edge, then anything for the padding.
            normalizer: float32[R] or None, as in :class:`~genrec.kernels.step.StepKernel`.
            slots: E, how many edges there is room for. At least as many as there are below the R nodes, else
                the last ones are lost: with codes R times their alphabet will do.
        """
        trie, rows = self._trie, len(node)
        first = trie.first_child[node].long()
        last = torch.cumsum(trie.first_child[node + 1].long() - first, 0)  # [R] one past each row's last slot
        slot = torch.arange(slots, device=self.device)
        row = torch.searchsorted(last, slot, right=True)
        exists = row < rows
        near = row.clamp(max=max(rows - 1, 0))  # [E] a row to read where there is none
        following = trie.first_child[node + 1].long()[near]
        child = torch.where(exists, following - last[near] + slot, 0)
        is_last = child + 1 == following
        sibling = trie.span_start[(child + 1).clamp(max=trie.nodes - 1)].long()
        child_end = torch.where(is_last, end[near], sibling)
        start = trie.span_start[child].long()

        edge_logits = logits if logits.ndim == 1 else logits[near, trie.token[child].long()]
        step = torch.where(exists, edge_logits.double(), -torch.inf)
        if self._catalog:
            step = step - _log_sum_exp_by_row(step, near, rows)[near]
        elif normalizer is not None:
            step = step - normalizer.double()[near]
        path_score = score[near] + step.clamp(max=0.0)

        owner = request[near]
        items = torch.where(exists, child_end - start, 1)
        allowed = torch.where(exists, self._allowed.count(owner, start, child_end), 0)
        ended = trie.first_child[child + 1] == trie.first_child[child]
        if not self._catalog:
            ended &= self._path_length(start) == depth[near] + 1
        can_go, can_end = (allowed > 0) & ~ended, (allowed > 0) & ended

        share = torch.log(allowed.clamp(min=1) / items.double())
        order = torch.where(self._look_ahead[owner], path_score + share, path_score)
        going = self._best(can_go, order, owner, self._beam)
        # As in the reference: the items of one path share its probability, and ties with the last one stay.
        worth = path_score - torch.log(items.double())
        best = self._best(can_end, worth, owner, self._wanted)
        worst = self._reduced(torch.inf, "amin", worth, owner, best)
        bound = self._reduced(-torch.inf, "amax", path_score, owner, can_go & ~going)
        return DeviceChoice(
            row, child, child_end, path_score, going, can_end & (worth >= worst[owner]), bound
        )

    def _best(self, candidate: Tensor, value: Tensor, owner: Tensor, limit: Tensor) -> Tensor:
        """bool[E]: each owner's best ``limit`` int64[B] candidates by value; ties go to the earlier edge."""
        nobody = self._requests
        key = torch.where(candidate, owner, nobody)
        by_value = torch.argsort(value, descending=True, stable=True)
        sorted_key, by_key = torch.sort(key[by_value], stable=True)
        place = torch.arange(len(key), device=self.device) - torch.searchsorted(sorted_key, sorted_key)
        kept = place < torch.cat([limit, limit.new_zeros(1)])[sorted_key]
        return torch.zeros_like(candidate).scatter_(0, by_value[by_key], kept)

    def _reduced(self, start: float, how: str, value: Tensor, owner: Tensor, where: Tensor) -> Tensor:
        """float64[B]: the least (``amin``) or most (``amax``) of each owner's values, ``start`` for none."""
        result = torch.full((self._requests,), start, dtype=torch.float64, device=self.device)
        return result.scatter_reduce_(0, owner, torch.where(where, value, start), how)

    def _path_length(self, rank: Tensor) -> Tensor | int:
        if self._trie.fixed_length is not None:
            return self._trie.fixed_length
        offsets = self._trie.path_offsets
        return (offsets[rank + 1] - offsets[rank]).long()


class _DeviceAllowed:
    """:class:`~index.item_filter.AllowedBatch` on a device; a bitmap that requests share is brought once."""

    def __init__(self, rules: Sequence[Allowed], trie: DeviceTrie) -> None:
        bitmaps: dict[int, RankBitmap] = {}
        for rule in rules:
            if rule.bitmap is not None:
                bitmaps.setdefault(id(rule.bitmap), rule.bitmap)
        place = {one: number for number, one in enumerate(bitmaps)}
        words = trie.items // 64 + 1
        base = [-1 if rule.bitmap is None else place[id(rule.bitmap)] * words for rule in rules]
        none = [np.zeros(1, np.int64)]  # read and masked away where no request has a bitmap
        bits = [bitmap.words.view(np.int64) for bitmap in bitmaps.values()]
        before = [bitmap.before.astype(np.int64) for bitmap in bitmaps.values()]
        self._stride = trie.items + 1  # request b's excluded ranks are shifted by so much times b
        excluded = [rule.excluded + b * self._stride for b, rule in enumerate(rules)]
        self._words = _to(np.concatenate(bits or none), trie.device, np.int64)
        self._before = _to(np.concatenate(before or none), trie.device)
        self._base = _to(np.array(base, np.int64), trie.device, np.int64)  # [B] first word, -1 for no bitmap
        self._excluded = _to(np.concatenate([*excluded, none[0][:0]]), trie.device, np.int64)
        self._is_filtered = bool(bitmaps)

    def count(self, request: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """int64[E]: allowed items among ranks ``start .. end - 1`` for each range's request."""
        result = end - start
        if self._is_filtered:
            base = self._base[request]
            inside = self._count_below(base.clamp(min=0), end) - self._count_below(base.clamp(min=0), start)
            result = torch.where(base >= 0, inside, result)
        if len(self._excluded):
            shift = request * self._stride
            result = result - torch.searchsorted(self._excluded, shift + end)
            result = result + torch.searchsorted(self._excluded, shift + start)
        return result

    def _count_below(self, base: Tensor, rank: Tensor) -> Tensor:
        word = base + (rank >> 6)
        low_bits = torch.bitwise_left_shift(torch.ones_like(rank), rank & 63) - 1
        return self._before[word].long() + _ones(self._words[word] & low_bits)


def _ones(bits: Tensor) -> Tensor:
    """int64[E]: how many of the 64 bits are set. Pairs, nibbles, bytes, then all bytes by one product.

    The usual word-parallel count (Warren, "Hacker's Delight", 2nd edition, section 5-1); torch has none. The
    arithmetic shifts are harmless: what they shift in is masked, and the last byte is at most 64.
    """
    bits = bits - ((bits >> 1) & 0x5555555555555555)
    bits = (bits & 0x3333333333333333) + ((bits >> 2) & 0x3333333333333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (bits * 0x0101010101010101) >> 56


def _log_sum_exp_by_row(logits: Tensor, row: Tensor, rows: int) -> Tensor:
    """float64[R]: log of the sum of exponentials of each row's logits; padding is -inf and adds nothing."""
    top = torch.full((rows,), -torch.inf, dtype=torch.float64, device=logits.device)
    top.scatter_reduce_(0, row, logits, "amax")
    # A last row without edges may be read by padding only: -inf less -inf must not come into its sum.
    weight = torch.where(logits > -torch.inf, torch.exp(logits - top[row]), 0.0)
    return top + torch.log(torch.zeros_like(top).scatter_add_(0, row, weight))


def _to(array: IntArray, device: torch.device, dtype: type[np.integer[Any]] | None = None) -> Tensor:
    """Integers on a device, always a copy: int32 where that is enough, or as asked."""
    if dtype is None:
        dtype = np.int32 if int(array.max(initial=0)) < 2**31 else np.int64
    return torch.from_numpy(array.astype(dtype)).to(device)
