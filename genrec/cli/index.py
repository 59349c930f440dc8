"""``genrec index build | inspect | verify``; ``add | remove | compact`` are in ``index_maintenance``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from genrec.cli import index_maintenance
from genrec.cli.options import (
    IndexPath,
    ItemColumn,
    JsonFlag,
    OnError,
    OptionalInteractions,
    QuietFlag,
    RayAddress,
    TimeColumn,
    UserColumn,
    read_histories,
)
from genrec.cli.output import answers, print_json, print_table, report_reading, stages
from index.artifact import open_artifact
from index.build import Holdout, IndexSettings, build_index
from index.catalog_readers import CatalogColumns, read_catalog
from index.counted import counted
from index.errors import RequestError
from index.item_index import ItemIndex, index_of, load_index
from index.ray_encoding import RayEncoding
from index.semantic_ids import Collisions

app = typer.Typer(
    help="Build item indexes from catalog files, look at them, and keep them up to date.",
    no_args_is_help=True,
)

_DEFAULTS = IndexSettings()


@app.command(
    epilog="Example: genrec index build movies.csv --interactions ratings.csv --out runs/movies.index"
)
def build(
    items: Annotated[
        Path,
        typer.Argument(
            help="The catalog: CSV, TSV, JSONL, Parquet, MovieLens movies.csv or movies.dat, Amazon metadata.",
            metavar="ITEMS",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write.", metavar="DIR")],
    interactions: OptionalInteractions = None,
    text_encoder: Annotated[
        str,
        typer.Option(
            help="Text vectors: 'minilm' (needs genrec\\[text]), 'tfidf', a sentence-transformers name or "
            "directory, or 'auto' (minilm if installed).",
        ),
    ] = _DEFAULTS.text_encoder,
    levels: Annotated[
        int, typer.Option(min=1, help="Codes per item, before the one that makes it unique.")
    ] = (_DEFAULTS.levels),
    codebook_size: Annotated[int, typer.Option(min=1, help="Codes per level.")] = _DEFAULTS.codebook_size,
    collisions: Annotated[
        Collisions, typer.Option(help="Items of one code: one more code, or the nearest free one.")
    ] = _DEFAULTS.collisions,
    cooccurrence_weight: Annotated[
        float, typer.Option(min=0.0, help="Weight of co-occurrence beside text (1.0).")
    ] = _DEFAULTS.cooccurrence_weight,
    holdout: Annotated[
        Holdout,
        typer.Option(
            help="Kept for validation and test: the last two events of every user, or the last fifth in time; "
            "'none' for production."
        ),
    ] = _DEFAULTS.holdout,
    bm25_k1: Annotated[
        float,
        typer.Option("--bm25-k1", min=0.0, help="How slowly repeats of a word saturate in text search."),
    ] = _DEFAULTS.bm25_k1,
    bm25_b: Annotated[
        float, typer.Option("--bm25-b", min=0.0, max=1.0, help="How much long texts are held back there.")
    ] = _DEFAULTS.bm25_b,
    bm25_weight: Annotated[
        list[str] | None,
        typer.Option(
            help="Whole weight of a field in text search, 'title' among them; may be repeated, fields without one "
            "do not count. All text fields count alike where none is given.",
            metavar="FIELD=N",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = _DEFAULTS.seed,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Where text becomes vectors: here, or on a Ray cluster.")
    ] = "local",
    ray_address: RayAddress = None,
    id_column: Annotated[
        str | None, typer.Option(help="Catalog column of the item id.", metavar="NAME")
    ] = None,
    title_column: Annotated[
        str | None, typer.Option(help="Catalog column of the title.", metavar="NAME")
    ] = None,
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    on_error: OnError = "fail",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Compile a catalog into token paths, a trie and BM25.

    With --interactions, items that are bought together come to share codes: better than text alone. Only
    training events are looked at (see --holdout).
    """
    started = time.monotonic()
    weights = _weights(bm25_weight or [])
    reading = read_catalog(items, CatalogColumns(item_id=id_column, title=title_column), on_error)
    report_reading(reading.report)
    histories = (
        read_histories(interactions, reading.catalog, on_error, user_column, item_column, time_column)
        if interactions
        else None
    )
    if ray_address is not None and engine != "ray":
        raise RequestError(f"expected --engine ray with --ray-address, got --engine {engine}; add it")
    settings = IndexSettings(
        text_encoder=text_encoder,
        levels=levels,
        codebook_size=codebook_size,
        collisions=collisions,
        cooccurrence_weight=cooccurrence_weight,
        holdout=holdout,
        seed=seed,
        bm25_k1=bm25_k1,
        bm25_b=bm25_b,
        bm25_weights=weights,
    )
    with stages(quiet) as progress:
        encode = RayEncoding(ray_address) if engine == "ray" else None
        index = build_index(reading.catalog, histories, settings, progress, encode)
        progress("writing", 0, 1)
        index.save(out)
        progress("writing", 1, 1)
    facts = {**_facts(index), "path": str(out), "seconds": round(time.monotonic() - started, 2)}
    if json:
        print_json(facts)
        return
    answers.print(f"Indexed {counted(facts['items'], 'item')} in {facts['seconds']:.1f} s → {out}")
    answers.print(
        f"{counted(facts['levels'], 'code')} per item, {counted(facts['trie_nodes'], 'trie node')}, "
        f"{counted(facts['training_events'], 'training event')}, text vectors by {facts['settings']['text_encoder']}"
    )
    answers.print(f"Next: genrec train --index {out} --interactions FILE --out DIR")


@app.command(epilog="Example: genrec index inspect runs/movies.index --item 1")
def inspect(
    index: IndexPath,
    item: Annotated[
        list[str] | None, typer.Option(help="Show this item's codes; may be repeated.", metavar="ID")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say what an index holds: sizes, codes, how it was built."""
    loaded = load_index(index)
    facts = _facts(loaded)
    rows = [loaded.catalog.row_of(one) for one in item or []]
    shown = [
        {
            "item_id": one,
            "title": loaded.catalog.titles[row] if row is not None else None,
            "codes": loaded.codes[row].tolist() if row is not None else None,
            "removed": row is not None and row in loaded.removed,
        }
        for one, row in zip(item or [], rows, strict=True)
    ]
    if json:
        print_json({**facts, "shown": shown})
    else:
        print_table(f"{index}", ("", ""), _readable(loaded), numbers_from=2)
        for one, row in zip(item or [], rows, strict=True):
            answers.print(_readable_item(loaded, one, row), markup=False)
    if any(row is None for row in rows):
        raise typer.Exit(1)


@app.command(epilog="Example: genrec index verify runs/movies.index")
def verify(index: IndexPath, json: JsonFlag = False) -> None:
    """Compare every file with the hash taken when it was saved."""
    artifact = open_artifact(index, verify=True)
    index_of(artifact)
    files = artifact.manifest["files"]
    total = sum(entry["bytes"] for entry in files.values())
    if json:
        print_json({"ok": True, "kind": artifact.kind, "files": len(files), "bytes": total})
    else:
        answers.print(
            f"{index}: {artifact.kind}, {counted(len(files), 'file')}, {total / 1e6:.1f} MB, all as saved"
        )


def _weights(given: list[str]) -> dict[str, int] | None:
    """The weights of ``FIELD=N`` options; None where there are none."""
    weights: dict[str, int] = {}
    for one in given:
        name, equals, number = one.rpartition("=")
        if not equals or not name or not number.isdecimal() or int(number) < 1:
            raise typer.BadParameter(f"expected FIELD=N with a whole N >= 1, such as title=3, got {one!r}")
        if name in weights:
            raise typer.BadParameter(f"expected one weight a field, got two of {name!r}")
        weights[name] = int(number)
    return weights or None


def _facts(index: ItemIndex) -> dict[str, Any]:
    return {
        "items": len(index.catalog),
        "removed": len(index.removed),
        "fields": index.catalog.field_names,
        "levels": len(index.level_sizes),
        "level_sizes": list(index.level_sizes),
        "trie_nodes": index.trie.nodes,
        "trie_bytes": index.trie.nbytes,
        "training_events": len(index.trained_events),
        "settings": dict(index.settings),
        "changes": asdict(index.changes),
    }


def _readable(index: ItemIndex) -> list[tuple[str, str]]:
    """What an index holds, for a person."""
    sizes, changes = index.level_sizes, index.changes
    changed = ", ".join(
        f"{value:,} {name}" for name, value in asdict(changes).items() if name != "generation"
    )
    return [
        ("items", f"{len(index.catalog):,}"),
        ("removed, not yet dropped", f"{len(index.removed):,}"),
        ("fields", ", ".join(index.catalog.field_names) or "none"),
        ("codes per item", f"{len(sizes)}, of {' × '.join(str(size) for size in sizes)}"),
        ("trie", f"{counted(index.trie.nodes, 'node')}, {index.trie.nbytes / 1e6:.2f} MB"),
        ("training events", f"{len(index.trained_events):,}"),
        *((name.replace("_", " "), str(value)) for name, value in index.settings.items()),
        (
            "since the build",
            f"{changed} in {counted(changes.generation, 'change')}" if changes.generation else "no change",
        ),
    ]


def _readable_item(index: ItemIndex, item_id: str, row: int | None) -> str:
    if row is None:
        return f"{item_id}  not in the catalog"
    codes = " ".join(str(code) for code in index.codes[row].tolist())
    removed = "  removed" if row in index.removed else ""
    return f"{item_id}  {index.catalog.titles[row] or 'no title'}  {codes}{removed}"


_MAINTENANCE: dict[Callable[..., None], str] = {
    index_maintenance.add: "genrec index add runs/movies new_movies.csv",
    index_maintenance.remove: "genrec index remove runs/movies --id 32 --id 50",
    index_maintenance.compact: "genrec index compact runs/movies",
}
for _verb, _example in _MAINTENANCE.items():
    app.command(_verb.__name__, epilog=f"Example: {_example}")(_verb)
