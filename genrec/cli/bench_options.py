"""What the commands of ``genrec bench`` share: options, numbers in a text, and how a report is written and shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from genrec.bench.machine import machine_line
from genrec.bench.report import last_line
from genrec.cli.output import answers

Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
ThreadCount = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Filters = Annotated[
    str, typer.Option(help="Random filters, by the percentage of items they keep.", metavar="P,P,…")
]
Where = Annotated[
    str | None, typer.Option(help="A filter of your own, such as: year >= 1990 and kind == 'film'.")
]
Json = Annotated[
    str | None,
    typer.Option(
        "--json", help="Write the report as JSON to a file, or - for standard output alone.", metavar="FILE"
    ),
]
Wanted = Annotated[int, typer.Option("-k", "--k", min=1, help="Items wanted.")]
Beam = Annotated[int | None, typer.Option(min=1, help="Beam width; the bundle's default where not given.")]


def say(text: str) -> None:
    """A line of an answer, as it is."""
    answers.print(text, highlight=False, markup=False)


def show_foot(report: Mapping[str, Any]) -> None:
    """What was measured on what, and who else was at work."""
    say(f"{report['name']}, manifest {report['manifest_sha256'][:16]}, seed {report['seed']}")
    say(f"{machine_line(report['machine'])}; threads {report['threads']}")
    company = report.get("company")
    if company is not None and company["crowded"]:
        say(
            f"others used {company['other_cores']:.2f} cores meanwhile, steal {100 * company['steal']:.1f} %: "
            f"read CPU times and ratios, not wall times"
        )


def check_target(target: str | None) -> None:
    """Before minutes are spent on a report that cannot be written."""
    if target is None or target == "-":
        return
    path = Path(target)
    if path.is_dir() or not path.parent.is_dir():
        raise typer.BadParameter(
            f"expected a file in a directory that exists, got {target!r}", param_hint="--json"
        )


def write_json(report: Mapping[str, Any], target: str | None) -> None:
    """To standard output, to a file, or nowhere."""
    if target == "-":
        typer.echo(last_line(report))
    elif target is not None:
        Path(target).write_text(last_line(report) + "\n", "utf-8")


def counts(text: str, option: str) -> tuple[int, ...]:
    """Numbers of at least one from ``5,10``; an empty text is none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(
            f"expected whole numbers above 0 such as 5,10, got {text!r}", param_hint=option
        )
    return tuple(dict.fromkeys(map(int, parts)))


def shares(text: str, option: str) -> tuple[float, ...]:
    """Shares in (0, 1] from percentages such as ``50,0.01``."""
    percentages = _numbers(text)
    if percentages is None or not all(0 < one <= 100 for one in percentages):
        raise typer.BadParameter(
            f"expected percentages above 0 such as 50,0.01, got {text!r}", param_hint=option
        )
    return tuple(one / 100 for one in percentages)


def rates(text: str, option: str) -> tuple[float, ...]:
    """Rates above 0 from ``10,20.5``, ascending; an empty text is none."""
    found = _numbers(text)
    if found is None or not all(0 < one < 1e6 for one in found):
        raise typer.BadParameter(f"expected rates above 0 such as 10,20.5, got {text!r}", param_hint=option)
    return tuple(sorted(found))


def _numbers(text: str) -> list[float] | None:
    """Different numbers in their order; None where something else stands there."""
    try:
        return list(dict.fromkeys(float(part) for part in text.split(",") if part.strip()))
    except ValueError:
        return None
