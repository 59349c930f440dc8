"""The demo catalog: where its file lies, and what its fields may hold.

It knows nothing of catalogs in general: ``index build`` reads the same file like any user's JSONL.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import polars as pl

KINDS = ("film", "novel", "series", "album", "game", "play")
"""Every work is one of these; its id is the kind and a running number, such as ``film-0001``."""

GENRES = (
    "action",
    "adventure",
    "animation",
    "biography",
    "comedy",
    "coming of age",
    "crime",
    "drama",
    "dystopia",
    "electronic",
    "espionage",
    "family",
    "fantasy",
    "folk",
    "hip hop",
    "historical",
    "horror",
    "jazz",
    "musical",
    "mystery",
    "philosophical",
    "political",
    "pop",
    "puzzle",
    "rock",
    "role-playing",
    "romance",
    "satire",
    "science fiction",
    "simulation",
    "soul",
    "strategy",
    "thriller",
    "tragedy",
    "war",
    "western",
)
"""The closed list of genres, shared by all kinds so that a taste can cross from novels to games."""

WORKS_SCHEMA = {
    "item_id": pl.String(),
    "title": pl.String(),
    "year": pl.Int32(),
    "kind": pl.String(),
    "creators": pl.List(pl.String()),
    "genres": pl.List(pl.String()),
    "description": pl.String(),
}
"""Columns of the demo catalog. ``creators`` is never empty; ``genres`` holds one to four of :data:`GENRES`."""


def works_path() -> Path:
    """The catalog file, to hand to ``genrec index build``.

    genrec is installed as plain files, never run from a zip archive, so the resource is a real path.
    """
    return Path(str(resources.files("genrec.demo") / "works.jsonl"))


def read_works() -> pl.DataFrame:
    """All works in file order, with the columns of :data:`WORKS_SCHEMA`."""
    return pl.read_ndjson(works_path(), schema=WORKS_SCHEMA)
