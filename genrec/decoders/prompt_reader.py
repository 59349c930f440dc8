"""What a language model reads of a prompt: tokens as they are, items as their codes. numpy only.

A history grows at its end and a model reads only so much of it. Cut item by item, every request would begin at
another item and no kept prompt could serve the next; so it is cut in blocks: the beginning stays put while a
block's worth of items is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genrec.decoders.base import Items, Prompt, Tokens
from index.errors import DecoderError, IndexFormatError
from index.types import Int64Array, IntArray


@dataclass(frozen=True, slots=True)
class HistoryForm:
    """How a language model was taught to read a history."""

    start: tuple[
        int, ...
    ]  # vocabulary ids before the first item; at least one, so that a new user has a prompt
    max_items: int  # most items read
    block: int = 1
    """Items dropped together from the front of a longer history: between ``max_items - block + 1`` and
    ``max_items`` are read."""
    end: tuple[int, ...] = ()
    """Vocabulary ids behind the last item, as an encoder may want them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", tuple(int(token) for token in self.start))
        object.__setattr__(self, "end", tuple(int(token) for token in self.end))
        if not self.start or not 1 <= self.block <= self.max_items:
            raise IndexFormatError(
                f"expected a start token and 1 <= block <= max_items, got start {self.start}, block {self.block}, "
                f"max_items {self.max_items}; correct the bundle's prompt form"
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "start": list(self.start), "end": list(self.end)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HistoryForm:
        """Read :meth:`to_dict` back.

        Raises:
            IndexFormatError: an unknown or missing key, or numbers that make no sense.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise IndexFormatError(
                f"expected a prompt form of {cls.__slots__}, got {sorted(values)}; make the bundle again"
            ) from error

    def cut(self, rows: Int64Array) -> Int64Array:
        """The items of a history that are read."""
        return cut_in_blocks(rows, self.max_items, self.block)


def cut_in_blocks(rows: Int64Array, most: int, block: int) -> Int64Array:
    """The end of a history: at most ``most`` items, its beginning moved by whole blocks only."""
    too_many = max(0, len(rows) - most)
    return rows[-(-too_many // block) * block :]


class PromptReader:
    """Prompts to token ids.

    Args:
        form: how histories are read; None where the model reads no items.
        item_tokens: int[N, L], the vocabulary ids of every catalog row's codes.
    """

    def __init__(self, form: HistoryForm | None = None, item_tokens: IntArray | None = None) -> None:
        self._form = form
        self._item_tokens = item_tokens

    def ids(self, prompt: Prompt) -> Int64Array:
        """int64[P]: the tokens of a prompt's segments, one after the other.

        Raises:
            DecoderError: there are none, or a segment the model cannot read.
        """
        parts: Sequence[Int64Array] = [np.zeros(0, np.int64), *(self._segment(one) for one in prompt)]
        ids = np.concatenate(parts)
        if not len(ids):
            raise DecoderError(
                "expected at least one token in a prompt, got an empty one; begin with a start token"
            )
        return ids

    def _segment(self, segment: Tokens | Items) -> Int64Array:
        if isinstance(segment, Tokens):
            return np.asarray(segment.ids, np.int64)
        if self._form is None or self._item_tokens is None:
            raise DecoderError(
                f"expected prompts of Tokens for a language model, got {type(segment).__name__}; "
                "write the history as tokens"
            )
        rows = self._form.cut(np.asarray(segment.rows, np.int64))
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self._item_tokens):
            raise DecoderError(
                f"expected item rows in [0, {len(self._item_tokens)}), got {rows.min()} to {rows.max()}; "
                "map items to catalog rows first"
            )
        codes = np.asarray(self._item_tokens[rows], np.int64).reshape(-1)
        start, end = (np.array(ids, np.int64) for ids in (self._form.start, self._form.end))
        return np.concatenate([start, codes, end])
