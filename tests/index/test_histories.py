from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import HistoryError
from index.histories import Cases, Histories, hold_out_last, leave_one_out, temporal_split


def histories_of(events: list[list[int]], times: list[list[float]] | None = None) -> Histories:
    """Histories from one list of item rows per user, users named u0, u1 …"""
    return Histories(
        user_ids=[f"u{user}" for user in range(len(events))],
        offsets=np.cumsum([0, *map(len, events)], dtype=np.int64),
        items=np.array([item for user in events for item in user], dtype=np.int32),
        timestamps=None if times is None else np.array([t for user in times for t in user], dtype=np.float64),
    )


def lists_of(histories: Histories) -> list[list[int]]:
    return [histories.events(user).tolist() for user in range(len(histories))]


def questions(cases: Cases) -> list[tuple[int, list[int], int]]:
    return [
        (int(cases.user[c]), cases.history_of(c).tolist(), int(cases.target[c])) for c in range(len(cases))
    ]


some_events = st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=6)


def test_events_lengths_and_take() -> None:
    histories = histories_of([[1, 2, 3], [], [4]], [[1, 2, 3], [], [9]])
    assert len(histories) == 3
    assert histories.num_events == 4
    assert histories.lengths.tolist() == [3, 0, 1]
    assert histories.events(0).tolist() == [1, 2, 3]
    taken = histories.take(np.array([2, 0, 2]))
    assert taken.user_ids == ["u2", "u0", "u2"]
    assert lists_of(taken) == [[4], [1, 2, 3], [4]]
    assert taken.timestamps is not None
    assert taken.timestamps.tolist() == [9, 1, 2, 3, 9]
    assert len(histories.take(np.array([], dtype=np.int64))) == 0


def test_leave_one_out_by_eye() -> None:
    # The user with two events cannot give a training event, a validation event and a test event.
    histories = histories_of([[1, 2, 3, 4], [5, 6], [], [7, 8, 9]])
    assert lists_of(hold_out_last(histories)) == [[1, 2], [5, 6], [], [7]]
    assert questions(leave_one_out(histories, "validation")) == [(0, [1, 2], 3), (3, [7], 8)]
    assert questions(leave_one_out(histories, "test")) == [(0, [1, 2, 3], 4), (3, [7, 8], 9)]


def test_hold_out_of_nothing_and_of_one() -> None:
    histories = histories_of([[1, 2, 3], [4]], [[1, 2, 3], [4]])
    assert lists_of(hold_out_last(histories, 0)) == [[1, 2, 3], [4]]
    one = hold_out_last(histories, 1)
    assert lists_of(one) == [[1, 2], [4]]
    assert one.timestamps is not None
    assert one.timestamps.tolist() == [1, 2, 4]
    assert one.user_ids == histories.user_ids
    with pytest.raises(HistoryError, match="expected a number of events >= 0"):
        hold_out_last(histories, -1)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(HistoryError, match="expected part 'validation' or 'test', got 'train'"):
        leave_one_out(histories_of([[1, 2, 3]]), "train")  # type: ignore[arg-type]


@given(some_events)
def test_leave_one_out_loses_no_event(events: list[list[int]]) -> None:
    histories = histories_of(events)
    train = lists_of(hold_out_last(histories))
    validation = {
        user: (history, target) for user, history, target in questions(leave_one_out(histories, "validation"))
    }
    test = {user: (history, target) for user, history, target in questions(leave_one_out(histories, "test"))}
    assert validation.keys() == test.keys() == {u for u, items in enumerate(events) if len(items) >= 3}
    for user, items in enumerate(events):
        if user not in test:
            assert train[user] == items
            continue
        assert train[user] == validation[user][0]
        assert [*train[user], validation[user][1]] == test[user][0]
        assert [*test[user][0], test[user][1]] == items


@given(some_events, st.data())
def test_taking_cases_keeps_each_question(events: list[list[int]], data: st.DataObject) -> None:
    cases = leave_one_out(histories_of(events), "test")
    chosen = data.draw(st.lists(st.integers(0, len(cases) - 1), max_size=5)) if len(cases) else []
    expected = [questions(cases)[case] for case in chosen]
    assert questions(cases.take(np.array(chosen, dtype=np.int64))) == expected


def test_temporal_split_by_eye() -> None:
    # Ten events at times 0..9; a tenth each for validation (time 8) and test (time 9).
    histories = histories_of(
        [[10, 11, 12, 13], [20, 21, 22], [30, 31, 32]], [[0, 3, 8, 9], [1, 2, 4], [5, 6, 7]]
    )
    split = temporal_split(histories)
    assert lists_of(split.train) == [[10, 11], [20, 21, 22], [30, 31, 32]]
    assert questions(split.validation) == [(0, [10, 11], 12)]
    assert questions(split.test) == [(0, [10, 11, 12], 13)]


def test_a_first_event_is_never_a_temporal_target() -> None:
    histories = histories_of([[1, 2, 3], [4, 5]], [[0, 1, 2], [8, 9]])
    split = temporal_split(histories, validation=0.2, test=0.2)
    assert lists_of(split.train) == [[1, 2, 3], []]
    assert questions(split.validation) == []
    assert questions(split.test) == [(1, [4], 5)]


def test_events_of_one_moment_stay_in_one_part() -> None:
    histories = histories_of([[1, 2, 3, 4, 5]], [[0, 5, 5, 5, 5]])
    split = temporal_split(histories, validation=0.2, test=0.2)
    assert lists_of(split.train) == [[1]]
    assert [target for _, _, target in questions(split.test)] == [2, 3, 4, 5]


@given(st.data())
def test_temporal_split_keeps_time_apart_and_loses_no_event(data: st.DataObject) -> None:
    events = data.draw(some_events)
    times = [sorted(data.draw(st.lists(st.integers(0, 9), min_size=len(e), max_size=len(e)))) for e in events]
    histories = histories_of(events, [[float(t) for t in user] for user in times])
    shares = data.draw(st.sampled_from([(0.1, 0.1), (0.0, 0.3), (0.3, 0.0), (0.25, 0.25), (0.0, 0.0)]))
    try:
        split = temporal_split(histories, *shares)
    except HistoryError:
        # Refused only where the first held-out event is as early as the first of all.
        flat = sorted(t for user in times for t in user)
        assert flat[len(flat) - round(len(flat) * sum(shares))] == flat[0]
        return
    assert split.train.timestamps is not None
    assert list(split.train.user_ids) == list(histories.user_ids)
    last_trained = max(split.train.timestamps, default=-1)
    targets: dict[int, list[tuple[list[int], int]]] = {user: [] for user in range(len(events))}
    latest = dict.fromkeys(("validation", "test"), last_trained)
    for name, part in (("validation", split.validation), ("test", split.test)):
        for user, history, target in questions(part):
            targets[user].append((history, target))
            moment = times[user][len(history)]
            assert events[user][: len(history)] == history
            assert events[user][len(history)] == target
            assert moment > last_trained
            latest[name] = max(latest[name], moment)
    for user, trained in enumerate(lists_of(split.train)):
        # Training, then validation, then test: together the whole history, but for a first event held out.
        assert trained == events[user][: len(trained)]
        first_target = max(len(trained), 1)
        expected = [(events[user][:k], events[user][k]) for k in range(first_target, len(events[user]))]
        assert targets[user] == expected
    earliest_test = min((times[u][len(h)] for u, h, _ in questions(split.test)), default=np.inf)
    assert latest["validation"] < earliest_test or not len(split.validation)


def test_temporal_split_refuses_what_it_cannot_split() -> None:
    with pytest.raises(HistoryError, match="expected timestamps for a temporal split"):
        temporal_split(histories_of([[1, 2]]))
    timed = histories_of([[1, 2, 3]], [[4, 4, 4]])
    for shares in ((0.5, 0.5), (-0.1, 0.1), (float("nan"), 0.1)):
        with pytest.raises(HistoryError, match="expected shares >= 0 that sum below 1"):
            temporal_split(timed, *shares)
    with pytest.raises(HistoryError, match="expected events before the validation moment"):
        temporal_split(timed, 0.3, 0.3)


def test_histories_that_are_none() -> None:
    offsets, items = np.array([0, 2], dtype=np.int64), np.array([1, 2], dtype=np.int32)
    Histories(["u"], offsets, items)
    with pytest.raises(HistoryError, match=r"expected offsets int64\[3\], got int64\[2\]"):
        Histories(["u", "v"], offsets, items)
    with pytest.raises(HistoryError, match=r"expected items int32\[T\], got int64"):
        Histories(["u"], offsets, items.astype(np.int64))  # type: ignore[arg-type]
    with pytest.raises(HistoryError, match="expected offsets that rise from 0 to 2"):
        Histories(["u"], np.array([0, 1], dtype=np.int64), items)
    with pytest.raises(HistoryError, match="expected catalog rows >= 0 in items, got -1"):
        Histories(["u"], offsets, np.array([0, -1], dtype=np.int32))
    with pytest.raises(HistoryError, match="got a step back"):
        Histories(["u"], offsets, items, np.array([2.0, 1.0]))
    with pytest.raises(HistoryError, match="expected finite timestamps"):
        Histories(["u"], offsets, items, np.array([2.0, np.nan]))
    with pytest.raises(HistoryError, match=r"expected timestamps float64\[2\]"):
        Histories(["u"], offsets, items, np.array([2.0]))


@given(st.lists(st.lists(st.floats(-5, 5), max_size=4), max_size=5))
def test_time_may_fall_between_users_but_not_within(times: list[list[float]]) -> None:
    events = [[0] * len(user) for user in times]
    histories_of(events, [sorted(user) for user in times])
    if any(user != sorted(user) for user in times):
        with pytest.raises(HistoryError, match="got a step back"):
            histories_of(events, times)


def test_a_sample_is_the_same_for_a_seed_in_order_and_never_more() -> None:
    cases = leave_one_out(histories_of([[0, 1, 2]] * 40), "test")
    some, again, other = cases.sample(10, 1), cases.sample(10, 1), cases.sample(10, 2)
    assert some.user.tolist() == again.user.tolist() == sorted(set(some.user.tolist()))
    assert len(some) == 10
    assert some.user.tolist() != other.user.tolist()
    assert cases.sample(40, 1) is cases.sample(41, 1) is cases
