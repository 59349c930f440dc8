"""What a runtime must know of a body graph, as the manifest of an export records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from index.errors import IndexFormatError


@dataclass(frozen=True, slots=True)
class BodyShape:
    """Sizes of a body graph."""

    layers: int
    key_heads: int  # Hkv
    head_size: int  # D
    hidden_size: int  # H

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read a manifest's entry.

        Raises:
            IndexFormatError: a key is unknown or missing.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise IndexFormatError(
                f"expected a body shape of {cls.__slots__}, got {sorted(values)}; export the bundle again"
            ) from error
