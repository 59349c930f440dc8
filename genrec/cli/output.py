"""How the commands speak: answers on standard output, everything else on standard error.

``--json`` prints one JSON object and nothing else on standard output. Progress bars appear on a terminal;
elsewhere a stage is one line. Nothing here knows what the commands do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from index.read_report import ReadReport

answers = Console(soft_wrap=True)
remarks = Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on one line of standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers_from: int
) -> None:
    """A readable table; columns from ``numbers_from`` on are right-aligned."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if place >= numbers_from else "left",
            no_wrap=place == 0 or place >= numbers_from,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # not markup: titles may hold brackets
    answers.print(table)


def remark(text: str) -> None:
    """A remark for the person at the terminal."""
    remarks.print(text, markup=False)


def report_reading(report: ReadReport) -> None:
    """Say what reading a file left out or found odd."""
    if report.bad_rows or report.warnings:
        remark(report.summary())


class Stages:
    """Progress over named stages: a bar each on a terminal, a line each elsewhere."""

    def __init__(self, bars: Progress | None, quiet: bool) -> None:
        self._bars = bars
        self._quiet = quiet
        self._tasks: dict[str, Any] = {}
        self._started = time.monotonic()

    def __call__(self, stage: str, done: float, total: float | None) -> None:
        """Stage ``stage`` stands at ``done`` of ``total``, None where nobody knows; a new one ends the last."""
        if self._bars is None:
            if stage not in self._tasks and not self._quiet:
                remark(f"[{time.monotonic() - self._started:6.1f} s] {stage}")
            self._tasks[stage] = True
            return
        if stage not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, completed=self._bars.tasks[task].total)
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def note(self, text: str) -> None:
        """A line beside the bars."""
        if not self._quiet:
            (self._bars.console if self._bars else remarks).print(text, markup=False)


@contextmanager
def stages(quiet: bool = False) -> Iterator[Stages]:
    """Progress for the duration of a block; ``quiet`` shows none."""
    if quiet or not remarks.is_terminal:
        yield Stages(None, quiet)
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=remarks) as bars:
        yield Stages(bars, quiet)
