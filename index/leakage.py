"""Has a recommender already seen the answer? One 64-bit hash per trained event, looked up per case.

It knows user ids, item ids and how often they met. It knows no model and no file: whoever trains stores the
sorted hashes, whoever evaluates asks ``leaked``. Hashes are over ids, never over rows, so a catalog or an
interactions file in another order still meets its own events.

An event is (user, item, j): the user's j-th meeting of that item, counted from 0. With j, a user who buys
the same item again is a fair question as long as only the first purchase was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from index.histories import Cases, Histories
from index.types import BoolArray, Int32Array, Int64Array, UInt64Array


def event_hashes(histories: Histories, item_ids: Sequence[str]) -> UInt64Array:
    """uint64[T], sorted: the hash of every event.

    Args:
        histories: the events.
        item_ids: N ids, by catalog row.
    """
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    hashes = _hashes(user, histories.items, _occurrence(user, histories.items), histories.user_ids, item_ids)
    return np.sort(hashes)


def leaked(
    cases: Cases, user_ids: Sequence[str], item_ids: Sequence[str], trained_hashes: UInt64Array
) -> BoolArray:
    """bool[C]: is the case's target among the trained events?

    The target counts as the next occurrence after those in the case's history, so the history must be whole:
    not cut to the last few events.

    Args:
        cases: the questions.
        user_ids: what ``cases.user`` indexes.
        item_ids: N ids, by catalog row.
        trained_hashes: sorted, as ``event_hashes`` returns them.
    """
    owner = np.repeat(np.arange(len(cases)), np.diff(cases.history_offsets))
    met_before = np.bincount(owner[cases.history == cases.target[owner]], minlength=len(cases))
    hashes = _hashes(cases.user, cases.target, met_before, user_ids, item_ids)
    if not len(trained_hashes):
        return np.zeros(len(cases), dtype=np.bool_)
    place = np.searchsorted(trained_hashes, hashes)
    found: BoolArray = trained_hashes[np.minimum(place, len(trained_hashes) - 1)] == hashes
    return found


def _occurrence(user: Int64Array, item: Int32Array) -> Int64Array:
    """int64[T]: how often the event's user met its item before, in time order."""
    order = np.lexsort((item, user))  # stable, so time order survives within a (user, item) pair
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)
    position = np.arange(len(order))
    earlier = np.empty(len(order), dtype=np.int64)
    earlier[order] = position - np.maximum.accumulate(np.where(starts, position, 0))
    return earlier


def _hashes(
    user: Int64Array,
    item: Int32Array,
    occurrence: Int64Array,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
) -> UInt64Array:
    """uint64[T]: a chain of mixes, so (user, item, j) does not commute with (item, user, j)."""
    mixed = _mix(_id_hashes(user, user_ids, b"user"))
    mixed = _mix(mixed ^ _id_hashes(item, item_ids, b"item"))
    return _mix(mixed + occurrence.astype(np.uint64))


def _id_hashes(index: Int64Array | Int32Array, ids: Sequence[str], role: bytes) -> UInt64Array:
    """The hash of ``ids[i]`` for every i in ``index``, each distinct id hashed once."""
    used, where = np.unique(index, return_inverse=True)
    hashes = np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(ids[i].encode(), digest_size=8, person=role).digest(), "little")
            for i in used.tolist()
        ),
        dtype=np.uint64,
        count=len(used),
    )
    return hashes[where]


def _mix(value: UInt64Array) -> UInt64Array:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection in which each bit moves all."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64Array = value ^ (value >> np.uint64(31))
    return mixed
