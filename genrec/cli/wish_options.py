"""What several commands take as wishes, and how their texts are read."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from genrec.wishes import PriorName

MaxPer: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="At most so many items per value of a field; may be repeated.", metavar="FIELD=M"),
]

PriorWish: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="What other people's histories and the items' texts say beside the model: none, history, or a weight "
        "in [0, 1). The bundle's measured weight where not given.",
        metavar="PRIOR",
    ),
]


def prior_of(text: str | None) -> PriorName | float | None:
    """``"none"``, ``"history"``, or a weight.

    Raises:
        typer.BadParameter: it is none of them.
    """
    if text is None:
        return None
    if text == "none":
        return "none"
    if text == "history":
        return "history"
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"expected none, history or a weight in [0, 1), got {text!r}", param_hint="'--prior'"
        ) from None


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
