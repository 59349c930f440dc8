"""What a part of the quality benchmark shows and spends while it trains, noted beside its checkpoint.

A part that is killed and gone on with takes what both processes took: seconds, CPU seconds and the curve of its
validations are those of the whole, as the model is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.artifact import replace_file

SELECTED = "ndcg@10"
NOTED_EVERY = 5.0  # seconds, between validations


@dataclass(frozen=True)
class Spent:
    """What a part that was killed had spent until then, lost steps included, and its curve."""

    wall: float = 0.0
    cpu: float = 0.0
    points: Sequence[tuple[int, float, float]] = ()  # step, minutes, value


class Curve:
    """Collects validations by minutes of training, says them, and counts what training takes.

    Args:
        place: where to note it all for whoever goes on after a kill; None of a system that cannot.
        is_resumed: go on from what is noted there.
    """

    def __init__(self, place: Path | None = None, is_resumed: bool = False) -> None:
        self.began = self.last = self.noted = time.monotonic()
        self.place = place
        self.before = Spent()
        if place is not None and is_resumed and place.is_file():
            self.before = Spent(**json.loads(place.read_text("utf-8")))
        self._points = list(self.before.points)
        self._is_first = True

    @property
    def points(self) -> list[tuple[float, float]]:
        """Minutes and values."""
        return [(minutes, value) for _, minutes, value in self._points]

    def seconds(self) -> dict[str, float]:
        """All that was spent until now, and what of it came after the last step of training."""
        now = time.monotonic()
        return {"train": round(self.before.wall + now - self.began, 1), "after": round(now - self.last, 1)}

    def __call__(self, at: Any) -> None:
        if self._is_first:  # steps behind the checkpoint are taken again, and so are their validations
            self._points = [one for one in self._points if one[0] < at.step]
            self._is_first = False
        self.last = time.monotonic()
        if at.validation is not None:
            self._points.append((at.step, round(at.seconds / 60, 4), float(at.validation[SELECTED])))
            figure = f"validation {SELECTED} {self._points[-1][2]:.4f}"
            say(f"{at.seconds:6.0f} s, step {at.step}: loss {at.loss:.3f}, {figure}")
        if self.place is not None and (at.validation is not None or self.last - self.noted >= NOTED_EVERY):
            self.noted = self.last
            cpu = self.before.cpu + time.process_time()
            spent = Spent(self.before.wall + self.last - self.began, cpu, self._points)
            replace_file(self.place, (json.dumps(asdict(spent)) + "\n").encode())


def say(text: str) -> None:
    """Progress, for people."""
    print(f"    {text}", file=sys.stderr, flush=True)
