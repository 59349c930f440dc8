"""What a model can be asked for, and how each task is asked by default.

A task names the trie its answers walk. The defaults of a task are measured on validation when a bundle is
trained and travel in its manifest, so a user never has to choose a normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from genrec.search_batch import Normalize
from index.errors import IndexFormatError


@dataclass(frozen=True, slots=True)
class TaskDefaults:
    """How a bundle runs a task unless a request says otherwise."""

    normalize: Normalize = "catalog"
    """The better of the two on this bundle's validation users."""
    beam: int = 50
    """Prefixes kept per step."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskDefaults:
        """Read :meth:`to_dict` back.

        Raises:
            IndexFormatError: an unknown key or value.
        """
        try:
            defaults = cls(**values)
        except TypeError as error:
            raise IndexFormatError(f"expected task defaults {cls.__slots__}, got {sorted(values)}") from error
        if defaults.normalize not in get_args(Normalize) or defaults.beam < 1:
            raise IndexFormatError(
                f"expected known task defaults, got {dict(values)}; train the bundle again"
            )
        return defaults
