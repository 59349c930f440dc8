"""Pace: what the latest requests took, and so how long one that comes now would wait."""

from __future__ import annotations

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
