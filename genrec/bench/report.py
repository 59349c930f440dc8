"""A report as Markdown and as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with its first column left-aligned and the others right-aligned."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def last_line(report: Mapping[str, Any]) -> str:
    """The report as one line of JSON.

    Raises:
        ValueError: a number in it is infinite or none; JSON has no word for it, so say None.
        TypeError: something in it is no number, text, list or mapping.
    """
    return json.dumps(report, default=_plain, allow_nan=False, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected plain numbers, texts and lists in a report, got {type(value).__name__}")
