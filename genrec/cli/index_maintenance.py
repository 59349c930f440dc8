"""``genrec index add | remove | compact``: keep an index, or the index in a bundle, up to date."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from genrec.bundle import save_changed_index
from genrec.cli.options import IndexPath, JsonFlag, OnError, QuietFlag
from genrec.cli.output import answers, print_json, report_reading, stages
from index.artifact import Artifact, open_artifact
from index.catalog_readers import CatalogColumns
from index.counted import counted
from index.errors import CatalogError
from index.item_index import ItemIndex, index_of
from index.maintenance import add_items, read_new_items, remove_items
from index.maintenance import compact as compact_index
from index.types import ItemId

Out: TypeAlias = Annotated[
    Path | None, typer.Option(help="Write to this directory; INDEX itself where not given.", metavar="DIR")
]


def add(
    index: IndexPath,
    items: Annotated[
        Path,
        typer.Argument(
            help="New items, with the fields of the index's catalog: any file 'index build' reads.",
            metavar="ITEMS",
        ),
    ],
    out: Out = None,
    id_column: Annotated[
        str | None, typer.Option(help="Catalog column of the item id.", metavar="NAME")
    ] = None,
    title_column: Annotated[
        str | None, typer.Option(help="Catalog column of the title.", metavar="NAME")
    ] = None,
    on_error: OnError = "fail",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Add items: searchable at once, without training again.

    The frozen codebooks code them, so a bundle's model can return them from the next request on. An item that
    was removed and not yet compacted away comes back with the codes it had.
    """
    started = time.monotonic()
    artifact = open_artifact(index)
    loaded = index_of(artifact)
    reading = read_new_items(items, loaded, CatalogColumns(item_id=id_column, title=title_column), on_error)
    report_reading(reading.report)
    with stages(quiet) as progress:
        progress("coding", 0, 1)
        changed = add_items(loaded, reading.catalog)
        progress("writing", 0, 1)
        save_changed_index(artifact, changed, out or index)
        progress("writing", 1, 1)
    _report("added", len(reading.catalog), artifact, changed, out or index, started, json)


def remove(
    index: IndexPath,
    item: Annotated[
        list[str] | None,
        typer.Option("--item", "--id", help="Id of an item to remove; may be repeated.", metavar="ID"),
    ] = None,
    ids: Annotated[
        Path | None, typer.Option(help="A text file with one id a line, instead or besides.", metavar="FILE")
    ] = None,
    out: Out = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Remove items: no answer holds them any more, and nobody else's score changes.

    Users' histories may go on naming them until 'genrec index compact' drops them for good.
    """
    started = time.monotonic()
    wanted = [*(item or []), *(_read_ids(ids) if ids else [])]
    if not wanted:
        raise typer.BadParameter("expected --id ID or --ids FILE, got neither")
    artifact = open_artifact(index)
    loaded = index_of(artifact)
    changed = remove_items(loaded, wanted)
    with stages(quiet) as progress:
        progress("writing", 0, 1)
        save_changed_index(artifact, changed, out or index)
        progress("writing", 1, 1)
    count = len(changed.removed) - len(loaded.removed)
    _report("removed", count, artifact, changed, out or index, started, json)


def compact(index: IndexPath, out: Out = None, json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Drop removed items for good: the trie becomes that of a build without them."""
    started = time.monotonic()
    artifact = open_artifact(index)
    loaded = index_of(artifact)
    if not len(loaded.removed) and out is None and not json:
        answers.print(f"Nothing to do: no item of {index} waits to be dropped")
        return
    with stages(quiet) as progress:
        progress("compacting", 0, 1)
        changed = compact_index(loaded)
        if changed is not loaded or out is not None:
            progress("writing", 0, 1)
            save_changed_index(artifact, changed, out or index)
            progress("writing", 1, 1)
    _report("dropped", len(loaded.removed), artifact, changed, out or index, started, json)


def _read_ids(path: Path) -> list[ItemId]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(
            f"expected a text file of item ids in {path}, got {error}; to name items themselves, use --id ID"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _report(
    done: str, count: int, artifact: Artifact, index: ItemIndex, path: Path, started: float, json: bool
) -> None:
    """Say what was done: ``count`` items were ``done``, and how the index now stands."""
    live, waiting = len(index.catalog) - len(index.removed), len(index.removed)
    seconds = round(time.monotonic() - started, 2)
    if json:
        facts: dict[str, Any] = {
            done: count,
            "items": live,
            "removed_waiting": waiting,
            "changes": asdict(index.changes),
            "kind": artifact.kind,
            "path": str(path),
            "seconds": seconds,
        }
        print_json(facts)
        return
    answers.print(f"{done.capitalize()} {counted(count, 'item')} in {seconds:.1f} s → {path}")
    answers.print(
        f"{counted(live, 'item')} can be recommended"
        + (f"; {waiting:,} removed and waiting for: genrec index compact {path}" if waiting else "")
    )
