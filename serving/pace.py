"""Whether one request more finds a place, and when one is likely: by what the latest requests took."""

from __future__ import annotations

import math

from serving.errors import QueueFull

FADE = 0.97  # weight of what was measured one delivery ago: some thirty deliveries count
PATIENCE = 0.5
"""Share of a request's time that it may have to wait for its turn; the rest is for its search and for bad guesses."""


class Pace:
    """Seconds a request keeps the engine busy, a mean that fades: one stall must not count for all."""

    def __init__(self) -> None:
        self._busy, self._answered = 0.1, 10.0
        self._since = 0.0  # seconds of work since the last answer

    @property
    def seconds_per_request(self) -> float:
        """What one request takes."""
        return self._busy / self._answered

    def measured(self, busy: float, answered: int) -> None:
        """So many requests were answered in so many seconds of work; none is some more work for the next ones."""
        self._since += busy
        if answered:
            self._busy, self._answered = FADE * self._busy + self._since, FADE * self._answered + answered
            self._since = 0.0

    def is_too_long(self, waiting: int, timeout: float) -> bool:
        """Whether a request behind so many would have spent most of its time before its search begins."""
        return waiting * self.seconds_per_request > PATIENCE * timeout


class Room:
    """The places of those who wait.

    Args:
        places: so many may wait.
        batch: so many are searched together; as many may always wait, however long the last ones took.
    """

    def __init__(self, places: int, batch: int) -> None:
        self.pace = Pace()
        self.refusal = f"expected an answer in time or one of {places} places, got none; try again later"
        self._places = places
        self._batch = batch

    def has_place(self, waiting: int, timeout: float | None, more: int = 1) -> bool:
        """Whether ``more`` requests that have ``timeout`` seconds find one behind those that wait.

        Who would spend most of that time before its search begins does not: whoever is let in and answered too
        late has been searched for in vain.
        """
        if waiting + more > self._places:
            return False
        return timeout is None or waiting <= self._batch or not self.pace.is_too_long(waiting, timeout)

    def retry_after(self, waiting: int) -> int:
        """Seconds until a place is likely."""
        return max(1, min(60, math.ceil(waiting * self.pace.seconds_per_request)))

    def error(self, waiting: int) -> QueueFull:
        """What a request hears that found none."""
        return QueueFull(self.refusal, self.retry_after(waiting))
