"""The compiled loops of the fused step. Flat arrays in, flat arrays out; one pass, nothing of size E kept.

What makes it fast beside being compiled: the gather, the maximum and the scores of a row are vectorised loops;
rows are taken best first, and those that can no longer reach the beam are never read; the filter is asked only
about children that would be chosen or would raise the bound.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, uint64

from genrec.kernels.numba_bits import allowed_children, bits_below
from index.types import BoolArray, Float32Array, Float64Array, Int64Array, IntArray, UInt32Array, UInt64Array

# Reductions may be reordered (that is what lets them vectorise); infinities are real values here.
_FAST = {"reassoc", "nnan", "nsz", "contract", "arcp"}


@njit(cache=True, nogil=True)
def edges_below(token: IntArray, first_child: IntArray, node: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Row and token of every edge below int64[R] nodes."""
    count = 0
    for r in range(len(node)):
        count += np.int64(first_child[node[r] + 1]) - np.int64(first_child[node[r]])
    row = np.empty(count, np.int64)
    below = np.empty(count, np.int64)
    e = 0
    for r in range(len(node)):
        for child in range(np.int64(first_child[node[r]]), np.int64(first_child[node[r] + 1])):
            row[e] = r
            below[e] = token[child]
            e += 1
    return row, below


@njit(cache=True, nogil=True)
def _first_at_least(values: Int64Array, low: int, high: int, wanted: int) -> int:
    """The first position of ``low .. high - 1`` whose value is at least ``wanted``, or ``high``."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _sink(key: Float64Array, edge: Int64Array, score: Float64Array, hole: int, size: int) -> None:
    """Let the entry at ``hole`` sink in a heap whose first entry is the worst: lowest key, then latest edge."""
    own_key, own_edge, own_score = key[hole], edge[hole], score[hole]
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            key[right] < key[child] or (key[right] == key[child] and edge[right] > edge[child])
        ):
            child = right
        if key[child] > own_key or (key[child] == own_key and edge[child] < own_edge):
            break
        key[hole], edge[hole], score[hole] = key[child], edge[child], score[child]
        hole = child
    key[hole], edge[hole], score[hole] = own_key, own_edge, own_score


@njit(cache=True, nogil=True)
def _sort_by_edge(edge: Int64Array, score: Float64Array) -> None:
    if len(edge) > 64:
        order = np.argsort(edge)
        edge[:], score[:] = edge[order], score[order]
        return
    for i in range(1, len(edge)):
        one, own = edge[i], score[i]
        j = i - 1
        while j >= 0 and edge[j] > one:
            edge[j + 1], score[j + 1] = edge[j], score[j]
            j -= 1
        edge[j + 1], score[j + 1] = one, own


@njit(cache=True, nogil=True)
def _keep_reached(
    edge: Int64Array, score: Float64Array, item_score: Float64Array, begin: int, end: int, floor: float
) -> int:
    """Move the entries of ``begin .. end - 1`` that reach ``floor`` to the front; where they end now."""
    kept = begin
    for i in range(begin, end):
        if item_score[i] >= floor:
            edge[kept], score[kept], item_score[kept] = edge[i], score[i], item_score[i]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def _push_floor(best: Float64Array, size: int, value: float) -> int:
    """Keep the largest values seen in a heap whose first is the smallest; the new size."""
    if size < len(best):
        hole = size
        while hole > 0 and best[(hole - 1) >> 1] > value:
            best[hole] = best[(hole - 1) >> 1]
            hole = (hole - 1) >> 1
        best[hole] = value
        return size + 1
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and best[child + 1] < best[child]:
            child += 1
        if best[child] >= value:
            break
        best[hole] = best[child]
        hole = child
    best[hole] = value
    return size


@njit(cache=True, nogil=True, fastmath=_FAST)
def _gather(
    logits: Float32Array, row: int, edge: int, token: IntArray, first: int, count: int, out: Float64Array
) -> float:
    """Logits of one row's edges into ``out``; their maximum."""
    top = -np.inf
    unsigned_row = uint64(row)  # unsigned indices: no test for negative ones, and the loop vectorises
    if logits.ndim == 2:
        for j in range(count):
            value = np.float64(logits[unsigned_row, token[uint64(first + j)]])
            out[j] = value
            top = max(top, value)
    else:
        for j in range(count):
            value = np.float64(logits[uint64(edge + j)])
            out[j] = value
            top = max(top, value)
    return top


@njit(cache=True, nogil=True, fastmath=_FAST)
def _log_sum_exp(logits: Float64Array, count: int, top: float) -> float:
    """Exponentials by a polynomial, which vectorises where a call of the C library would not.

    exp(x) = 2^n exp(r) with x = n log 2 + r and |r| <= log(2) / 2; the Taylor series to r^7 is off by less than
    6e-9 of the value. Below exp(-700) a term is nothing beside the largest, which is 1.
    """
    if count == 1:
        return top
    total = 0.0
    for j in range(count):
        x = max(logits[j] - top, -700.0)
        n = math.floor(x * 1.4426950408889634 + 0.5)
        r = x - n * 0.6931471805599453
        series = 1 / 5040
        for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
            series = series * r + coefficient
        power = np.int64((np.int64(n) + 1023) << 52).view(np.float64)  # 2^n: n in the bits of the exponent
        total += series * power
    return top + math.log(total)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _to_scores(logits: Float64Array, count: int, norm: float, base: float) -> None:
    for j in range(count):
        logits[j] = base + min(logits[j] - norm, 0.0)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _any_childless(first: int, count: int, first_child: IntArray) -> bool:
    childless = 0
    for j in range(count):
        child = uint64(first + j)
        childless += first_child[child + uint64(1)] == first_child[child]
    return childless > 0


@njit(cache=True, nogil=True, fastmath=_FAST)
def _worth_a_look(
    score: Float64Array,
    count: int,
    first: int,
    first_child: IntArray,
    going: float,
    ended: float,
    out: Int64Array,
) -> int:
    """Write the places of children that reach ``going``, or are childless and reach ``ended``; how many."""
    found = 0
    if ended < going and _any_childless(first, count, first_child):
        for j in range(count):  # one by one, but without branches
            child = uint64(first + j)
            childless = first_child[child + uint64(1)] == first_child[child]
            out[uint64(found)] = j
            found += (score[j] >= going) | (childless & (score[j] >= ended))
        return found
    for begin in range(0, count, 32):  # most blocks hold nothing: their maximum is vectorised
        end = min(begin + 32, count)
        top = -np.inf
        for j in range(begin, end):
            top = max(top, score[uint64(j)])
        if top >= going:
            for j in range(begin, end):
                if score[uint64(j)] >= going:
                    out[uint64(found)] = j
                    found += 1
    return found


@njit(cache=True, nogil=True)
def fused_step(
    token: IntArray,
    first_child: IntArray,
    span_start: IntArray,
    path_offsets: IntArray,
    words: UInt64Array,  # [F, W] the distinct bitmaps
    before: UInt32Array,  # [F, W]
    filter_of: Int64Array,  # [B] which of them, -1 for none
    excluded: Int64Array,  # ranks, ascending within a request
    excluded_begin: Int64Array,  # [B + 1]
    beam: Int64Array,
    items: Int64Array,
    look_ahead: BoolArray,
    catalog: bool,
    request: Int64Array,
    node: Int64Array,
    end: Int64Array,
    depth: Int64Array,
    score: Float64Array,
    logits: Float32Array,
    normalizer: Float32Array,
) -> tuple[Int64Array, Int64Array, Int64Array, Float64Array, int, Float64Array]:
    """The fields of a :class:`~genrec.kernels.step.StepResult`, from those of a step and its rules."""
    rows, requests = len(node), len(beam)
    bound = np.full(requests, -np.inf)
    # An edge is known by its row and its place among the row's children: row << 32 | place.
    widest, kept_room, edges, r = 0, 0, 0, 0
    edge_begin = np.empty(rows, np.int64)
    while r < rows:
        b, edges_before = request[r], edges
        while r < rows and request[r] == b:
            edge_begin[r] = edges
            count = np.int64(first_child[node[r] + 1]) - np.int64(first_child[node[r]])
            widest, edges = max(widest, count), edges + count
            r += 1
        kept_room += min(beam[b], edges - edges_before)
    step, places = np.empty(widest), np.empty(widest, np.int64)
    all_edge, all_score = np.empty(kept_room, np.int64), np.empty(kept_room)
    key = np.empty(kept_room)
    leaf_edge, leaf_score, leaf_item = np.empty(256, np.int64), np.empty(256), np.empty(256)
    kept_total, leaf_total, next_row = 0, 0, 0
    while next_row < rows:
        b, first_row = request[next_row], next_row
        while next_row < rows and request[next_row] == b:
            next_row += 1
        limit, size = beam[b], 0
        # The heap of this request lives where its result will be.
        heap_edge, heap_score, heap_key = all_edge[kept_total:], all_score[kept_total:], key[kept_total:]
        worst, left_out = -np.inf, -np.inf
        leaf_begin, floor, floor_size = leaf_total, -np.inf, 0
        best_items = np.empty(min(items[b], 1 << 16))
        bitmap = filter_of[b]
        # The best row first: the sooner the beam is full of good children, the sooner rows end the loop.
        for best_row in np.argsort(-score[first_row:next_row]):
            this_row = first_row + best_row
            base = score[this_row]
            if base < left_out and base < floor:
                break
            first = np.int64(first_child[node[this_row]])
            count = np.int64(first_child[node[this_row] + 1]) - first
            if count == 0:
                continue
            top = _gather(logits, this_row, edge_begin[this_row], token, first, count, step)
            if catalog:
                norm = _log_sum_exp(step, count, top)
            else:
                norm = np.float64(normalizer[this_row]) if len(normalizer) else 0.0
            row_best = base + min(top - norm, 0.0)
            if row_best < left_out and row_best < floor:
                continue
            row_start, row_end = np.int64(span_start[first]), end[this_row]
            low = _first_at_least(excluded, excluded_begin[b], excluded_begin[b + 1], row_start)
            high = _first_at_least(excluded, low, excluded_begin[b + 1], row_end)
            _to_scores(step, count, norm, base)
            # Of paths that must be fed to their end, those of one length end together.
            cannot_end = not catalog and len(path_offsets) == 1 and depth[this_row] + 1 < path_offsets[0]
            lowest_end = np.inf if cannot_end else floor
            in_row = row_end - row_start
            if bitmap >= 0:
                in_row = bits_below(words[bitmap], before[bitmap], row_end)
                in_row -= bits_below(words[bitmap], before[bitmap], row_start)
            if 4 * in_row < count and row_end - row_start < 64 * count:  # few are allowed, and they are near
                found = allowed_children(words[bitmap], span_start, first, count, row_start, row_end, places)
            else:
                found = _worth_a_look(step, count, first, first_child, left_out, lowest_end, places)
            for i in range(found):
                j = places[i]
                value = step[j]
                child = first + j
                start = np.int64(span_start[child])
                ended = first_child[child + 1] == first_child[child]
                if ended and not catalog:
                    if len(path_offsets) == 1:
                        length = np.int64(path_offsets[0])
                    else:
                        length = np.int64(path_offsets[start + 1]) - np.int64(path_offsets[start])
                    ended = length == depth[this_row] + 1
                if value < (floor if ended else left_out):
                    continue
                stop = np.int64(span_start[child + 1]) if j + 1 < count else row_end
                below = stop - start
                alive = below
                if bitmap >= 0:
                    alive = bits_below(words[bitmap], before[bitmap], stop)
                    alive -= bits_below(words[bitmap], before[bitmap], start)
                if low < high:
                    alive += _first_at_least(excluded, low, high, start)
                    alive -= _first_at_least(excluded, low, high, stop)
                if alive == 0:
                    continue
                edge = (this_row << 32) | j
                if ended:
                    own = value - math.log(below) if below > 1 else value
                    if own < floor or items[b] == 0:
                        continue
                    if leaf_total == len(leaf_edge):
                        leaf_total = _keep_reached(
                            leaf_edge, leaf_score, leaf_item, leaf_begin, leaf_total, floor
                        )
                        if 2 * leaf_total > len(leaf_edge):
                            leaf_edge = np.concatenate((leaf_edge, np.empty_like(leaf_edge)))
                            leaf_score = np.concatenate((leaf_score, np.empty_like(leaf_score)))
                            leaf_item = np.concatenate((leaf_item, np.empty_like(leaf_item)))
                    leaf_edge[leaf_total], leaf_score[leaf_total], leaf_item[leaf_total] = edge, value, own
                    leaf_total += 1
                    if items[b] == len(best_items):
                        floor_size = _push_floor(best_items, floor_size, own)
                        if floor_size == len(best_items):
                            floor = best_items[0]
                    continue
                order = value
                if alive != below and look_ahead[b]:
                    order += math.log(alive / below)
                if size < limit:
                    heap_key[size], heap_edge[size], heap_score[size] = order, edge, value
                    size += 1
                    if size == limit:
                        for hole in range(limit // 2 - 1, -1, -1):
                            _sink(heap_key, heap_edge, heap_score, hole, size)
                        worst = heap_key[0]
                elif limit > 0 and (order > worst or (order == worst and edge < heap_edge[0])):
                    left_out = max(left_out, heap_score[0])
                    heap_key[0], heap_edge[0], heap_score[0] = order, edge, value
                    _sink(heap_key, heap_edge, heap_score, 0, size)
                    worst = heap_key[0]
                else:
                    left_out = max(left_out, value)
        _sort_by_edge(heap_edge[:size], heap_score[:size])
        kept_total += size
        leaf_total = _keep_reached(leaf_edge, leaf_score, leaf_item, leaf_begin, leaf_total, floor)
        _sort_by_edge(leaf_edge[leaf_begin:leaf_total], leaf_score[leaf_begin:leaf_total])
        bound[b] = left_out
    chosen = kept_total + leaf_total
    out_row, out_node, out_end = (
        np.empty(chosen, np.int64),
        np.empty(chosen, np.int64),
        np.empty(chosen, np.int64),
    )
    out_score = np.empty(chosen)
    for i in range(chosen):
        if i < kept_total:
            edge, out_score[i] = all_edge[i], all_score[i]
        else:
            edge, out_score[i] = leaf_edge[i - kept_total], leaf_score[i - kept_total]
        row, place = edge >> 32, edge & 0xFFFFFFFF
        child = np.int64(first_child[node[row]]) + place
        is_last = child + 1 == np.int64(first_child[node[row] + 1])
        out_row[i], out_node[i] = row, child
        out_end[i] = end[row] if is_last else np.int64(span_start[child + 1])
    return out_row, out_node, out_end, out_score, kept_total, bound
