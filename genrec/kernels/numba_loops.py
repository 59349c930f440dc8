"""The compiled loops of the fused step. Flat arrays in, flat arrays out; one pass, nothing of size E kept.

What makes it fast beside being compiled: rows are taken best first, and those that can no longer reach the
beam are left at one glance at their largest logit; where most of the vocabulary are children, not even
gathered; the filter is asked only about children that would be chosen or would raise the bound.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from genrec.kernels import numba_arrays as fields
from genrec.kernels.numba_arrays import int64_at, uint32_at, uint64_at
from genrec.kernels.numba_bits import allowed_children, bits_below
from genrec.kernels.numba_rows import (
    any_reaches,
    children_reaching,
    count_childless,
    gather,
    in_blocks,
    largest,
    log_sum_exp,
    lowest_logit,
    reaching,
    reaching_by_kind,
)
from genrec.kernels.numba_selection import (
    best_rows_first,
    cut,
    keep_best,
    keep_reached,
    nth_largest,
    sort_by_row,
)
from index.types import Float32Array, Float64Array, Int64Array, IntArray

_DENSE = 4  # a vocabulary of up to so many times the children is read whole: sixteen logits an instruction


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
def fused_step(
    token: IntArray,
    trie: Int64Array,  # [TRIE_FIELDS]
    rules: Int64Array,  # [B, RULE_FIELDS]
    request: Int64Array,
    node: Int64Array,
    end: Int64Array,
    depth: Int64Array,
    score: Float64Array,
    logits: Float32Array,
    normalizer: Float32Array,
) -> tuple[Int64Array, Float64Array, int, Float64Array]:
    """What a :class:`~genrec.kernels.step.StepResult` holds: [row, node, end] as [3, C], score, prefixes, bound."""
    first_child = uint32_at(trie[fields.FIRST_CHILD], trie[fields.NODES] + 1)
    span_start = uint32_at(trie[fields.SPAN_START], trie[fields.NODES])
    path_offsets = uint32_at(trie[fields.PATH_OFFSETS], trie[fields.PATHS])
    catalog, path_length = trie[fields.CATALOG] != 0, trie[fields.PATH_LENGTH]
    flat = logits.ravel()
    vocabulary = logits.shape[1] if logits.ndim == 2 else 0
    rows, requests = len(node), len(rules)
    bound = np.full(requests, -np.inf)

    # Of paths fed to their end those of one length end together; otherwise any child may end one.
    all_vary = catalog or path_length == 0

    # An edge is known by its row and its place among the row's children: row << 32 | place.
    row_first, row_count = np.empty(rows, np.int64), np.empty(rows, np.int64)
    row_edge, order = np.empty(rows, np.int64), np.empty(rows, np.int64)
    widest, kept_room, leaf_room, edges, largest_beam, r = 0, 0, 0, 0, 0, 0
    while r < rows:
        b, edges_before = request[r], edges
        while r < rows and request[r] == b:
            first = np.int64(first_child[node[r]])
            count = np.int64(first_child[node[r] + 1]) - first
            row_first[r], row_count[r], row_edge[r] = first, count, edges
            widest, edges = max(widest, count), edges + count
            if all_vary or depth[r] + 1 == path_length:
                leaf_room += count
            r += 1
        beam = min(rules[b, fields.BEAM], edges - edges_before)
        kept_room, largest_beam = kept_room + beam, max(largest_beam, beam)
    places = np.empty(max(widest, min(vocabulary, _DENSE * widest)), np.int64)
    buffer, picked = np.empty(widest + 64, np.float32), np.empty(widest)
    values = buffer if logits.ndim == 2 else flat  # what holds one logit a child
    # Children that go on, request by request as they are found; when a request's room is full, the best stay.
    room = min(4 * largest_beam + widest + 64, edges)
    kept_key, kept_score = np.empty(kept_room + room), np.empty(kept_room + room)
    kept_edge = np.empty(kept_room + room, np.int64)
    leaf_edge, leaf_score, leaf_item = np.empty(leaf_room, np.int64), np.empty(leaf_room), np.empty(leaf_room)
    kept_total, leaf_total, next_row = 0, 0, 0
    while next_row < rows:
        b, first_row = request[next_row], next_row
        while next_row < rows and request[next_row] == b:
            next_row += 1
        limit, size, items = min(rules[b, fields.BEAM], largest_beam), 0, rules[b, fields.ITEMS]
        key, edge_of, score_of = kept_key[kept_total:], kept_edge[kept_total:], kept_score[kept_total:]
        filtered, look_ahead = rules[b, fields.WORDS] != 0, rules[b, fields.LOOK_AHEAD] != 0
        words = uint64_at(rules[b, fields.WORDS], rules[b, fields.WORD_COUNT])
        before = uint32_at(rules[b, fields.BEFORE], rules[b, fields.WORD_COUNT])
        excluded_count = rules[b, fields.EXCLUDED_COUNT]
        excluded = int64_at(rules[b, fields.EXCLUDED], excluded_count)
        # More than ``limit`` keys are known to reach ``reach``: what does not can neither be kept nor be the bound.
        reach, highest, left_out, next_cut = -np.inf, -np.inf, -np.inf, limit + 1
        # At least ``items`` ended paths are known to reach ``floor``.
        floor, leaf_begin, best_item = -np.inf if items else np.inf, leaf_total, -np.inf
        next_floor = leaf_begin + items
        # The best rows first: the sooner the beam is full of good children, the fewer are looked at.
        best_rows_first(score, first_row, next_row, order)
        for i in range(first_row, next_row):
            this_row = order[i]
            base, count = score[this_row], row_count[this_row]
            if count == 0 or (base < reach and base < floor):
                continue
            first = row_first[this_row]
            if all_vary:
                childless = count_childless(first, count, first_child)
                none_ends, all_end = childless == 0, catalog and childless == count
            else:
                all_end = depth[this_row] + 1 == path_length
                none_ends = not all_end
            lowest = floor if all_end else (reach if none_ends else min(reach, floor))
            row_start, row_end = np.int64(span_start[first]), end[this_row]
            in_row, few = row_end - row_start, False
            if filtered:
                in_row = bits_below(words, before, row_end) - bits_below(words, before, row_start)
                if in_row == 0:
                    continue
                few = 4 * in_row < count and row_end - row_start < 64 * count  # few are allowed, and near
            begin, to_scan, norm, dense = row_edge[this_row], count, 0.0, False
            if len(normalizer):
                norm = np.float64(normalizer[this_row])
            if few and not catalog:  # nothing else of the row need be read
                found = allowed_children(words, span_start, first, count, row_start, row_end, places)
                for i_found in range(found):
                    if logits.ndim == 2:
                        begin = this_row * vocabulary + np.int64(token[first + places[i_found]])
                        picked[i_found] = flat[begin]
                    else:
                        picked[i_found] = flat[begin + places[i_found]]
            else:
                if logits.ndim == 2:
                    begin, to_scan = 0, in_blocks(count)
                    dense = not catalog and vocabulary <= _DENSE * count and lowest > -np.inf
                    dense = dense and (none_ends or all_end)
                    if dense:
                        begin = this_row * vocabulary
                    else:
                        gather(flat, this_row * vocabulary, token, first, count, buffer)
                if catalog:
                    norm = log_sum_exp(values, begin, count, largest(values, begin, count))
                threshold = lowest_logit(lowest, base, norm)
                if few:
                    hit = True
                elif dense:
                    hit = any_reaches(flat, begin, vocabulary, threshold)
                else:
                    hit = any_reaches(values, begin, count, threshold)
                if not hit:
                    continue
                if few:
                    found = allowed_children(words, span_start, first, count, row_start, row_end, places)
                elif dense:
                    found = children_reaching(flat, begin, vocabulary, threshold, token, first, count, places)
                elif none_ends or all_end:
                    found = reaching(
                        values, begin, to_scan if threshold > -np.inf else count, threshold, places
                    )
                else:
                    going, ended = lowest_logit(reach, base, norm), lowest_logit(floor, base, norm)
                    if not catalog:  # without children a path may still go on
                        ended = min(going, ended)
                    found = reaching_by_kind(values, begin, count, first, first_child, going, ended, places)
                if dense:
                    for i_found in range(found):
                        picked[i_found] = flat[begin + np.int64(token[first + places[i_found]])]
                else:
                    for i_found in range(found):
                        picked[i_found] = values[begin + places[i_found]]
            low, high = 0, 0
            if excluded_count:
                low = _first_at_least(excluded, 0, excluded_count, row_start)
                high = _first_at_least(excluded, low, excluded_count, row_end)
            if size + found > room:
                left_out = max(left_out, keep_best(key, edge_of, score_of, size, limit, reach, highest))
                size, next_cut = limit, limit + 1
            if none_ends and in_row == row_end - row_start and low == high:  # all that was found is taken
                for i_found in range(found):
                    value = base + min(picked[i_found] - norm, 0.0)
                    edge = (this_row << 32) | places[i_found]
                    key[size], edge_of[size], score_of[size] = value, edge, value
                    highest = max(highest, value)
                    size += 1
                found = 0
            for i_found in range(found):
                j = places[i_found]
                child = first + j
                value = base + min(picked[i_found] - norm, 0.0)
                start = np.int64(span_start[child])
                ends = all_end
                if not (none_ends or all_end):
                    ends = first_child[child + 1] == first_child[child]
                    if ends and not catalog:
                        length = np.int64(path_offsets[start + 1]) - np.int64(path_offsets[start])
                        ends = length == depth[this_row] + 1
                if value < (floor if ends else reach):
                    continue
                stop = np.int64(span_start[child + 1]) if j + 1 < count else row_end
                below = stop - start
                alive = below
                if filtered:
                    alive = bits_below(words, before, stop) - bits_below(words, before, start)
                if low < high:
                    alive += _first_at_least(excluded, low, high, start)
                    alive -= _first_at_least(excluded, low, high, stop)
                if alive == 0:
                    continue
                edge = (this_row << 32) | j
                if ends:
                    own = value - math.log(below) if below > 1 else value
                    if own < floor:
                        continue
                    leaf_edge[leaf_total], leaf_score[leaf_total], leaf_item[leaf_total] = edge, value, own
                    leaf_total += 1
                    best_item = max(best_item, own)
                    continue
                rank_by = value
                if alive != below and look_ahead:
                    rank_by += math.log(alive / below)
                if rank_by < reach:
                    left_out = max(left_out, value)
                    continue
                key[size], edge_of[size], score_of[size] = rank_by, edge, value
                highest = max(highest, rank_by)
                size += 1
            if size >= next_cut:
                reach = cut(key, size, limit + 1, reach, highest, 5)
                next_cut = size + 8 + (limit >> 2)
            if leaf_total >= next_floor and items:
                floor = cut(leaf_item[leaf_begin:], leaf_total - leaf_begin, items, floor, best_item, 5)
                next_floor = leaf_total + 8 + (items >> 2)
        if size > limit:
            left_out = max(left_out, keep_best(key, edge_of, score_of, size, limit, reach, highest))
            size = limit
        kept_total += size
        if leaf_total - leaf_begin > items:
            floor = nth_largest(leaf_item[leaf_begin:], leaf_total - leaf_begin, items, floor, best_item)
            leaf_total = keep_reached(leaf_edge, leaf_score, leaf_item, leaf_begin, leaf_total, floor)
        bound[b] = left_out
    total = kept_total + leaf_total
    chosen, chosen_score = np.empty((3, total), np.int64), np.empty(total)
    edge_chosen, begin_of = chosen[0], np.empty(rows + 1, np.int64)
    sort_by_row(kept_edge, kept_score, kept_total, begin_of, edge_chosen, chosen_score)
    sort_by_row(
        leaf_edge, leaf_score, leaf_total, begin_of, edge_chosen[kept_total:], chosen_score[kept_total:]
    )
    for i in range(total):
        edge = chosen[0, i]
        row, place = edge >> 32, edge & 0xFFFFFFFF
        child = row_first[row] + place
        chosen[0, i], chosen[1, i] = row, child
        chosen[2, i] = end[row] if place + 1 == row_count[row] else np.int64(span_start[child + 1])
    return chosen, chosen_score, kept_total, bound
