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
PATH_CODES = "path_codes"
FEWEST_ITEMS, MOST_ITEMS = 50, 200  # of :attr:`NativeConfig.max_items` where data decide
DENSE_EVENTS = 50
"""Mean events of a user from which data count as dense."""
DENSE_DROPOUT = 0.1
"""Dropout of dense data. NDCG@10 on validation, one run each, with .2 and .1: MovieLens-1M, 7,000 steps, .1893,
.1992. Sparse data disagree: Beauty, 3,700 steps, .0747, .0765; Games (.3 taught), 6,000 steps, .0688, .0652."""
TEXT_FORM_KEY = "text_form"
TEXT_FORM = 3
"""Raised whenever text branches are laid out another way (positions, marks, what they see): weights do not tell, and
a model taught another form writes nonsense without an error."""


@dataclass(frozen=True, slots=True)
class NativeConfig:
    """The shape of a native model.

    The defaults make .9 M parameters for four levels of about 256 codes, own paths aside. On Amazon Beauty they
    learn more, and faster, than width 64 with dropout 0.3 or width 128 with dropout 0.4 (one run each).
    """

    code_sizes: tuple[int, ...]  # codes at each level; token id of code c at level l is offset[l] + c
    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    max_items: int = FEWEST_ITEMS  # longest history the body reads; older items are cut off
    head_size: int = 256  # inner width of the head's MLP at every level
    dropout: float = 0.2
    own_paths: int = 40_000
    """At most this many code paths, those with the most training events, get a vector of their own
    (:mod:`genrec.own_paths`). Bounded because AdamW touches every row at every step."""
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
        if self.hidden_size % (2 * self.heads):  # rotary positions turn a head's numbers in pairs
            raise DecoderError(
                f"expected hidden_size divisible by twice the heads, got {self.hidden_size} by {self.heads} heads; "
                "change one"
            )
        if self.own_paths < 0:
            raise DecoderError(f"expected own_paths >= 0, got {self.own_paths}; correct the config")
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
        IV) read of Amazon's sparse data and of MovieLens-1M. From :data:`DENSE_EVENTS` on less is dropped
        out.
        """
        mean = float(events[events > 0].mean()) if (events > 0).any() else 0.0
        most = int(np.clip(round(2 * mean), FEWEST_ITEMS, MOST_ITEMS))
        if mean >= DENSE_EVENTS:
            return cls(tuple(code_sizes), max_items=most, dropout=DENSE_DROPOUT)
        return cls(tuple(code_sizes), max_items=most)

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
                f"among {sorted(values)}; train the bundle again, or load it with the genrec version that wrote it"
            )
        return cls(**values)


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
