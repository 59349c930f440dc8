"""What several commands take as wishes, and how their texts are read."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

MaxPer: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="At most so many items per value of a field; may be repeated.", metavar="FIELD=M"),
]


def ids_of(text: str) -> list[str]:
    """Ids separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def limits_of(max_per: list[str]) -> dict[str, int]:
    """``["genre=2"]`` as a mapping.

    Raises:
        typer.BadParameter: one is not of that form.
    """
    limits = {}
    for one in max_per:
        field, _, limit = one.rpartition("=")
        if not field.strip() or not limit.strip().isdecimal() or not int(limit):
            raise typer.BadParameter(
                f"expected FIELD=M with M of at least 1, such as genre=2, got {one!r}",
                param_hint="'--max-per'",
            )
        limits[field.strip()] = int(limit)
    return limits
