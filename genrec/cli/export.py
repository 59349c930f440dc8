"""``genrec export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.bundle import load_bundle
from genrec.cli.options import (
    ItemColumn,
    JsonFlag,
    OnError,
    OptionalInteractions,
    QuietFlag,
    TimeColumn,
    UserColumn,
    read_histories,
)
from genrec.cli.output import answers, print_json, print_table, stages
from genrec.decoders.exported import DEFAULT_CHECKS, DEFAULT_GATE
from index.errors import require
from index.types import IntArray

_MOST_HISTORIES = 500  # int8 is measured on


def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as genrec train writes it.", metavar="BUNDLE")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Add a quantised variant; it must pass the gate.")
    ] = False,
    gate: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the float model's top 20 that int8 has to find."),
    ] = DEFAULT_GATE,
    check: Annotated[
        int, typer.Option(min=1, help="Random batches compared with torch.", metavar="N")
    ] = DEFAULT_CHECKS,
    interactions: OptionalInteractions = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Export a bundle's model to ONNX, so that it runs without torch, and faster.

    The export is compared with the model in torch, logit by logit, and refused where they differ. It becomes part
    of the bundle; exporting again replaces it. With --interactions, int8 is measured on real histories.
    """
    require("torch", extra="export", purpose="Exporting a model")
    from genrec.decoders.onnx_export import OVERLAP_TOP, export_bundle

    histories: list[IntArray] | None = None
    if interactions is not None:
        catalog = load_bundle(bundle).index.catalog
        users = read_histories(interactions, catalog, on_error, user_column, item_column, time_column)
        every = -(-len(users) // _MOST_HISTORIES)
        histories = [users.events(user) for user in range(0, len(users), every)]
    with stages(quiet or json) as progress:
        report = export_bundle(
            bundle,
            int8=int8,
            gate=gate,
            checks=check,
            histories=histories,
            stage=lambda name: progress(name, 0, 1),
        )
    if json:
        print_json(
            {
                "path": str(report.path),
                "family": report.family,
                "seconds": round(report.seconds, 2),
                "worst_difference": report.worst.share,
                "worst_case": report.worst.case,
                "logits_compared": report.worst.logits,
                "int8_overlap": report.overlap,
                "files": report.files,
            }
        )
        return
    print_table(
        f"Exported {report.path} ({report.family}) in {report.seconds:.1f} s",
        ("file", "bytes"),
        [
            *((name, f"{size:,}") for name, size in report.files.items()),
            ("all", f"{sum(report.files.values()):,}"),
        ],
        numbers_from=1,
    )
    answers.print(
        f"Compared {report.worst.logits:,} logits with torch: at most {report.worst.share:.1e} of the largest "
        f"apart, at {report.worst.case}.",
        highlight=False,
    )
    if report.overlap is not None:
        answers.print(
            f"int8 finds {report.overlap:.1%} of the float model's top {OVERLAP_TOP}; choose it with "
            "decoder='onnx-int8'.",
            highlight=False,
        )
