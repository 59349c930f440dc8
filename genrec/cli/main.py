"""The ``genrec`` command: verbs are registered here and live in files of their own.

Exit codes: 0 done, 1 failed with a message, 2 used wrongly, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution

import typer

import genrec
from genrec.cli import (
    batch,
    bench,
    chat,
    demo,
    doctor,
    evaluate,
    export,
    index,
    recipe,
    recommend,
    train,
    tune,
)
from genrec.cli.output import remark
from index.errors import GenrecError

app = typer.Typer(
    name="genrec",
    help="Generative retrieval for recommendation: a language model walks a trie of your catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(index.app, name="index")
app.add_typer(bench.app, name="bench")
app.add_typer(recipe.app, name="recipe")
_EXAMPLES: dict[Callable[..., None], str] = {
    train.train: "genrec train --index runs/movies.index --interactions ratings.csv --out runs/movies --minutes 15",
    recommend.recommend: "genrec recommend runs/movies --history 1,32,50 -k 5 --where 'year >= 1990'",
    evaluate.evaluate: "genrec evaluate runs/movies --interactions ratings.csv --split leave-one-out --json",
    batch.batch: "genrec batch runs/movies --input users.parquet --out recs.parquet --where 'year >= 1990'",
    tune.tune: "genrec tune runs/movies --interactions ratings.csv",
    export.export: "genrec export runs/movies --int8",
    chat.chat: "genrec chat runs/movies --history 1,32,50",
    demo.demo: "genrec demo --out runs/demo",
    doctor.doctor: "genrec doctor --json",
}
for _verb, _example in _EXAMPLES.items():
    app.command(_verb.__name__, epilog=f"Example: {_example}")(_verb)


def _commands_of_siblings() -> Iterator[typer.Typer]:
    """Commands of packages that build on this one and that it may not import: ``serve`` of :mod:`serving`.

    Only the entry points of this very distribution count, so no other installed package is loaded here.
    """
    try:
        entries = distribution("genrec").entry_points
    except PackageNotFoundError:  # run from a source tree that is not installed
        return
    for entry in entries.select(group="genrec.commands"):
        yield entry.load()


for _sibling in _commands_of_siblings():
    app.add_typer(_sibling)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(genrec.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Generative retrieval for recommendation: a language model walks a trie of your catalog."""


def main() -> None:
    """Run the command line; errors genrec raises on purpose are one message, not a traceback."""
    try:
        app()
    except GenrecError as error:
        remark(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        remark("interrupted; nothing half-written was left behind")
        sys.exit(130)
