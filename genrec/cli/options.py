"""Options that several commands share, spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from genrec.cli.output import report_reading
from index.catalog import Catalog
from index.errors import HistoryError
from index.histories import Histories
from index.history_readers import InteractionColumns, read_interactions

OnErrorName: TypeAlias = Literal["fail", "skip"]

JsonFlag: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of a table.")
]
QuietFlag: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Interactions: TypeAlias = Annotated[
    Path,
    typer.Option(
        help="User histories: a table of user, item and time (CSV, TSV, JSONL, Parquet, MovieLens, RecBole .inter) "
        "or a sequence file (user item item …).",
        metavar="FILE",
    ),
]
OptionalInteractions: TypeAlias = Annotated[
    Path | None, typer.Option(help="User histories, as for training.", metavar="FILE")
]
OnError: TypeAlias = Annotated[
    OnErrorName, typer.Option(help="Rows that cannot be read: refuse the file, or skip and report them.")
]
UserColumn: TypeAlias = Annotated[str | None, typer.Option(help="Column of the user id.", metavar="NAME")]
ItemColumn: TypeAlias = Annotated[str | None, typer.Option(help="Column of the item id.", metavar="NAME")]
TimeColumn: TypeAlias = Annotated[str | None, typer.Option(help="Column of the time.", metavar="NAME")]
Verify: TypeAlias = Annotated[bool, typer.Option("--verify", help="Compare all file hashes before use.")]
IndexPath: TypeAlias = Annotated[
    Path, typer.Argument(help="An index directory, or a bundle.", metavar="INDEX")
]
Threads: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; all cores where not given.")
]


RayAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A running cluster ('auto', ray://…); none: one on this machine.", metavar="ADDRESS"),
]


def read_histories(
    path: Path,
    catalog: Catalog,
    on_error: OnErrorName,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
) -> Histories:
    """Read interactions and say on standard error what was odd about them.

    Raises:
        HistoryError: the file cannot be read, or has no event of a known item.
    """
    columns = InteractionColumns(user=user, item=item, timestamp=time)
    reading = read_interactions(path, catalog, columns=columns, on_error=on_error)
    report_reading(reading.report)
    if not reading.histories.num_events:
        raise HistoryError(f"expected events of catalog items in {path}, got none")
    return reading.histories
