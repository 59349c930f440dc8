from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.histories import Cases, Histories, hold_out_last, leave_one_out, temporal_split
from index.leakage import event_hashes, leaked

ITEM_IDS = ["i0", "i1", "i2", "i3"]

some_events = st.lists(st.lists(st.integers(0, 3), max_size=7), max_size=5)


def histories_of(events: list[list[int]], names: list[str] | None = None) -> Histories:
    return Histories(
        user_ids=names or [f"u{user}" for user in range(len(events))],
        offsets=np.cumsum([0, *map(len, events)], dtype=np.int64),
        items=np.array([item for user in events for item in user], dtype=np.int32),
        timestamps=None,
    )


def every_case(events: list[list[int]]) -> Cases:
    """Each event as a target after all before it, the first of a user included."""
    flat = [(user, items[:k], items[k]) for user, items in enumerate(events) for k in range(len(items))]
    return Cases(
        user=np.array([user for user, _, _ in flat], dtype=np.int64),
        history_offsets=np.cumsum([0, *(len(history) for _, history, _ in flat)], dtype=np.int64),
        history=np.array([item for _, history, _ in flat for item in history], dtype=np.int32),
        target=np.array([target for _, _, target in flat], dtype=np.int32),
    )


@given(some_events, some_events)
def test_leaked_is_what_counting_by_hand_says(trained: list[list[int]], asked: list[list[int]]) -> None:
    cases = every_case(asked)
    meetings = [Counter(items) for items in trained]
    expected = []
    for case in range(len(cases)):
        user, target = int(cases.user[case]), int(cases.target[case])
        before = cases.history_of(case).tolist().count(target)
        expected.append(user < len(trained) and meetings[user][target] > before)
    hashes = event_hashes(histories_of(trained), ITEM_IDS)
    names = [f"u{user}" for user in range(len(asked))]
    assert leaked(cases, names, ITEM_IDS, hashes).tolist() == expected


@given(some_events)
def test_a_split_never_leaks_and_its_whole_always_does(events: list[list[int]]) -> None:
    histories = histories_of(events)
    trained = event_hashes(hold_out_last(histories), ITEM_IDS)
    everything = event_hashes(histories, ITEM_IDS)
    assert len(np.unique(everything)) == histories.num_events
    assert (np.diff(everything) > 0).all()
    for part in ("validation", "test"):
        cases = leave_one_out(histories, part)  # type: ignore[arg-type]
        assert not leaked(cases, histories.user_ids, ITEM_IDS, trained).any()
        assert leaked(cases, histories.user_ids, ITEM_IDS, everything).all()


def test_a_temporal_split_does_not_leak_through_a_second_purchase() -> None:
    histories = Histories(
        ["u"],
        np.array([0, 4], dtype=np.int64),
        np.array([1, 1, 2, 1], dtype=np.int32),
        np.array([0.0, 1.0, 2.0, 3.0]),
    )
    split = temporal_split(histories, validation=0.25, test=0.25)
    trained = event_hashes(split.train, ITEM_IDS)
    assert leaked(split.test, histories.user_ids, ITEM_IDS, trained).tolist() == [False]
    # The same target after a history that forgets the first purchases would look trained on, and it is.
    forgetful = Cases(
        np.array([0]), np.array([0, 1]), np.array([2], dtype=np.int32), np.array([1], dtype=np.int32)
    )
    assert leaked(forgetful, histories.user_ids, ITEM_IDS, trained).tolist() == [True]


def test_hashes_are_over_ids_so_files_in_another_order_meet() -> None:
    # The same events, with users and catalog rows numbered the other way round.
    one = event_hashes(histories_of([[0, 1, 0], [2]], ["ann", "bob"]), ["a", "b", "c"])
    other = event_hashes(histories_of([[0], [2, 1, 2]], ["bob", "ann"]), ["c", "b", "a"])
    assert one.tolist() == other.tolist()


def test_a_user_named_like_an_item_is_not_confused_with_it() -> None:
    one = event_hashes(histories_of([[0]], ["x"]), ["y"])
    other = event_hashes(histories_of([[0]], ["y"]), ["x"])
    assert one.tolist() != other.tolist()


def splitmix64(value: int) -> int:
    """The generator's step as published, in plain integers."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


def test_hashes_are_the_same_in_every_run() -> None:
    # A bundle keeps them for years: a change here would make old bundles blind to leakage.
    user = int.from_bytes(hashlib.blake2b(b"u", digest_size=8, person=b"user").digest(), "little")
    item = int.from_bytes(hashlib.blake2b(b"i", digest_size=8, person=b"item").digest(), "little")
    pair = splitmix64(splitmix64(user) ^ item)
    expected = sorted(splitmix64((pair + j) % 2**64) for j in range(3))
    assert event_hashes(histories_of([[0, 0, 0]], ["u"]), ["i"]).tolist() == expected
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # first output for seed 0, as other implementations give it


def test_nothing_trained_means_nothing_leaked() -> None:
    cases = every_case([[0, 1]])
    nothing = event_hashes(histories_of([]), ITEM_IDS)
    assert nothing.dtype == np.uint64
    assert leaked(cases, ["u0"], ITEM_IDS, nothing).tolist() == [False, False]
    assert leaked(every_case([]), [], ITEM_IDS, nothing).tolist() == []
