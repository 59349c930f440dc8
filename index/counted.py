"""Numbers of things as a person writes them: ``1 step``, ``1,200 steps``."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """``number`` and its noun; ``many`` is the plural where it is not ``one`` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
