"""The native model's shape and its code tables: all that is known of it without torch.

The model itself is :mod:`genrec.native_model`; this is what it shares with a decoder that runs its export.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from index.errors import DecoderError, IndexFormatError
from index.types import Int32Array, Int64Array, IntArray

CONFIG_FILE = "native_config.json"
WEIGHTS_FILE = "native_model.safetensors"
RESIDUAL_CODES = "residual_codes"
PATH_CODES = "path_codes"
FEWEST_ITEMS, MOST_ITEMS = 50, 200  # of :attr:`NativeConfig.max_items` where data decide
TEXT_FORM_KEY = "text_form"
TEXT_FORM = 2
"""Raised whenever text branches are laid out another way (positions, marks, what they see): weights do not tell, and
a model taught another form writes nonsense without an error."""


@dataclass(frozen=True, slots=True)
class NativeConfig:
    """The shape of a native model.

    The defaults make 0.9 M parameters for four levels of about 256 codes, residuals aside. On Amazon Beauty they
    learn more, and faster, than width 64 with dropout 0.3 or width 128 with dropout 0.4 (one run each).
    """

    code_sizes: tuple[int, ...]  # codes at each level; token id of code c at level l is offset[l] + c
    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    max_items: int = FEWEST_ITEMS  # longest history the body reads; older items are cut off
    head_size: int = 256  # inner width of the head's MLP at every level
    dropout: float = 0.2
    residual_items: int = 20_000
    """At most this many items, those with the most training events, get a vector of their own beside their
    codes' sum. On Amazon Beauty, 1,000 steps, validation NDCG@10 over all users: .0405 with, .0379 without.
    Bounded because AdamW touches every row at every step."""
    own_paths: int = 40_000
    """At most this many code paths, those with the most training events, get a vector of their own on the way out
    (:mod:`genrec.own_paths`). Bounded for the same reason."""
    text_size: int = 0  # V, tokens of the text vocabulary, marks included; 0: the model writes no text
    max_text: int = 0  # most words of an answer, its terminator counted

    def __post_init__(self) -> None:
        object.__setattr__(self, "code_sizes", tuple(int(size) for size in self.code_sizes))
        for name in ("hidden_size", "layers", "heads", "max_items", "head_size"):
            if getattr(self, name) < 1:
                raise DecoderError(
                    f"expected {name} >= 1, got {getattr(self, name)}; correct the model config"
                )
        if not self.code_sizes or min(self.code_sizes) < 1:
            raise DecoderError(
                f"expected code_sizes >= 1 at every level, got {self.code_sizes}; rebuild the index"
            )
        if self.hidden_size % self.heads:
            raise DecoderError(
                f"expected hidden_size divisible by heads, got {self.hidden_size} by {self.heads}; change one"
            )
        for name in ("residual_items", "own_paths"):
            if getattr(self, name) < 0:
                raise DecoderError(f"expected {name} >= 0, got {getattr(self, name)}; correct the config")
        if not 0.0 <= self.dropout < 1.0:
            raise DecoderError(f"expected 0 <= dropout < 1, got {self.dropout}; correct the model config")
        if min(self.text_size, self.max_text) < 0 or bool(self.text_size) != bool(self.max_text):
            raise DecoderError(
                f"expected text_size and max_text both above 0 or both 0, got {self.text_size} and "
                f"{self.max_text}; correct the model config"
            )

    @classmethod
    def sized(cls, code_sizes: Sequence[int], events: IntArray) -> Self:
        """The default shape for users with int[U] training events: long histories are read further back.

        Twice the mean of those who have any (not tuned), from 50 to 200, which Kang and McAuley (ICDM 2018, section
        IV) read of Amazon's sparse data and of MovieLens-1M.
        """
        mean = float(events[events > 0].mean()) if (events > 0).any() else 0.0
        return cls(tuple(code_sizes), max_items=int(np.clip(round(2 * mean), FEWEST_ITEMS, MOST_ITEMS)))

    @property
    def levels(self) -> int:
        """L, the codes of an item."""
        return len(self.code_sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """L + 1 token offsets: level l owns the tokens [offsets[l], offsets[l + 1])."""
        return (0, *(int(end) for end in np.cumsum(self.code_sizes)))

    @property
    def positions(self) -> int:
        """Most positions of the body: the start, the items, and behind them a mark, a plan and words."""
        return 1 + self.max_items + (2 + self.max_text if self.text_size else 0)

    @property
    def text_position(self) -> int:
        """Position of a mark, whatever stands before it; the plan and the words count on from there.

        Positions are learned one by one: text that began where its history ends would have to learn at every place
        what follows what.
        """
        return 1 + self.max_items

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON values."""
        values = {**asdict(self), "code_sizes": list(self.code_sizes)}
        return values | {TEXT_FORM_KEY: TEXT_FORM} if self.text_size else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a config back.

        Raises:
            IndexFormatError: a key is unknown or missing, or the model was taught another form of text.
        """
        known = {field.name for field in fields(cls)}
        form = values.get(TEXT_FORM_KEY, 0)
        if values.get("text_size") and form != TEXT_FORM:
            raise IndexFormatError(
                f"expected a native model taught text in form {TEXT_FORM}, got form {form}; it would write nonsense: "
                "train the bundle again, or load it with the genrec version that wrote it"
            )
        values = {name: value for name, value in values.items() if name != TEXT_FORM_KEY}
        unknown = sorted(set(values) - known)
        if unknown or "code_sizes" not in values:
            raise IndexFormatError(
                f"expected a native model config with keys {sorted(known)}, got unknown keys {unknown} "
                f"among {sorted(values)}; load it with the genrec version that wrote it"
            )
        return cls(**values)


def residual_place(residual_codes: Int32Array, codes: Int32Array) -> Int64Array:
    """int64[N]: 1 + the place of each row's code path among ``residual_codes``, 0 where it is not there."""
    if not len(residual_codes):
        return np.zeros(len(codes), np.int64)
    paths, path = np.unique(np.concatenate([residual_codes, codes]), axis=0, return_inverse=True)
    path = path.reshape(-1)  # numpy 2.0 keeps the axis
    place = np.zeros(len(paths), np.int64)
    place[path[: len(residual_codes)]] = np.arange(1, len(residual_codes) + 1)
    of_rows: Int64Array = place[path[len(residual_codes) :]]
    return of_rows


def item_tokens(config: NativeConfig, codes: Int32Array) -> Int64Array:
    """Token ids int64[N, L] of a checked code table.

    Raises:
        DecoderError: the codes do not have the shape or the range the config gives.
    """
    if codes.ndim != 2 or codes.shape[1] != config.levels:
        raise DecoderError(
            f"expected codes of shape [N, {config.levels}], got {list(codes.shape)}; "
            "use the index the model was trained on"
        )
    if len(codes) == 0:
        raise DecoderError(
            "expected codes for at least one item, got none; build the index from a catalog with items"
        )
    low, high = codes.min(0), codes.max(0)
    if (low < 0).any() or (high >= np.array(config.code_sizes)).any():
        raise DecoderError(
            f"expected codes below {list(config.code_sizes)}, got {low.tolist()} to {high.tolist()}; "
            "use the index the model was trained on"
        )
    return np.asarray(codes.astype(np.int64) + np.array(config.offsets[:-1], np.int64))
