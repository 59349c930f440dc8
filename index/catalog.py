"""The catalog: every item a recommender may return, one row each.

It knows ids, titles and typed fields. It knows no file format (``catalog_readers`` does), no token path and
no user. Items are stored column by column, because everything that reads them (encoders, BM25, filters)
reads a column at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from index.errors import CatalogError
from index.types import Int32Array, ItemId

FIELD_TYPES: tuple[pl.DataType, ...] = (
    pl.Int64(),
    pl.Float64(),
    pl.String(),
    pl.Boolean(),
    pl.List(pl.String()),
)
"""What a field may be; a filter and a text both have to understand it, so there are few."""

# Fields whose words say nothing of what an item is: other keys for the same thing, and links.
_KEY_NAMES = frozenset(
    (
        "asin",
        "ean",
        "gtin",
        "iid",
        "image",
        "images",
        "isbn",
        "link",
        "mpn",
        "sid",
        "sku",
        "upc",
        "uri",
        "url",
    )
)
_KEY_ENDINGS = ("_id", "_ids", "_asin", "_url", "_urls", "Id", "Url", "URL", "UrlHighRes")

_FINGERPRINT_ROWS = 65_536  # rows serialised at a time: bounds memory, the digest does not depend on it


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the catalog, as a person would read it."""

    item_id: ItemId
    title: str  # may be empty: real catalogs have a few such items
    fields: Mapping[str, object]  # every field of the catalog; None where this item has no value


class Catalog:
    """N items in rows 0..N-1.

    Args:
        frame: columns ``item_id`` (String, unique, not empty), ``title`` (String, may be empty, not null),
            then any fields of the types in ``FIELD_TYPES``, nulls allowed.

    Raises:
        CatalogError: a column is missing or has another type, or an id is empty or comes twice.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        _check(frame)
        self._frame = frame.select("item_id", "title", pl.exclude("item_id", "title")).rechunk()

    @property
    def frame(self) -> pl.DataFrame:
        """The items as a table [N, 2 + fields]."""
        return self._frame

    @property
    def field_names(self) -> list[str]:
        """The columns beside ``item_id`` and ``title``, in order."""
        return self._frame.columns[2:]

    @cached_property
    def item_ids(self) -> list[ItemId]:
        """N ids, by row."""
        return self._frame["item_id"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        """N titles, by row; an empty string where the source had none."""
        return self._frame["title"].to_list()

    @cached_property
    def _rows(self) -> dict[ItemId, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    def __len__(self) -> int:
        return self._frame.height

    def __getitem__(self, row: int) -> Item:
        if not 0 <= row < len(self):
            raise IndexError(f"expected a row in [0, {len(self)}), got {row}")
        values = self._frame.row(row, named=True)
        return Item(item_id=values.pop("item_id"), title=values.pop("title"), fields=values)

    def __iter__(self) -> Iterator[Item]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"Catalog({len(self)} items, fields {self.field_names})"

    def row_of(self, item_id: ItemId) -> int | None:
        """The row of an id, or None if no item has it."""
        return self._rows.get(item_id)

    def rows_of(self, item_ids: Sequence[ItemId]) -> Int32Array:
        """int32[len(item_ids)]: the row of each id, -1 where no item has it."""
        rows = self._rows
        return np.fromiter((rows.get(i, -1) for i in item_ids), dtype=np.int32, count=len(item_ids))

    def texts(self, fields: Sequence[str] | None = None) -> list[str]:
        """What an encoder or BM25 sees of each item: ``title. field. first, second``, N strings.

        Args:
            fields: which fields to add after the title, in this order. By default every text and list field
                in column order, and ``year`` where the title does not already say it; other keys of the same
                item (``asin``, ``*_id``), links, other numbers and booleans are left out.

        Raises:
            CatalogError: a field the catalog does not have.
        """
        if fields is None:
            fields = [name for name in self.field_names if _reads_as_text(name, self._frame.schema[name])]
        unknown = [name for name in fields if name not in self.field_names]
        if unknown:
            raise CatalogError(f"expected fields among {self.field_names}, got {unknown}")
        parts = [_text_of(name, self._frame.schema[name]) for name in ("title", *fields)]
        text = pl.concat_str(parts, separator=". ", ignore_nulls=True)
        return self._frame.select(text.fill_null("").alias("text"))["text"].to_list()

    def save(self, path: Path | str) -> None:
        """Write the catalog as Parquet. Not atomic: whoever saves an index directory swaps it in whole."""
        self._frame.write_parquet(path, statistics=False)

    @classmethod
    def load(cls, path: Path | str) -> Catalog:
        """Read what ``save`` wrote.

        Raises:
            CatalogError: the file is missing, is not Parquet, or does not hold a catalog.
        """
        path = Path(path)
        if not path.is_file():
            raise CatalogError(f"expected a catalog saved as Parquet, got no file at {path}; build it again")
        try:
            # Read through an open file: a memory-mapped Parquet would break under an index that is replaced.
            with path.open("rb") as file:
                frame = pl.read_parquet(file)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise CatalogError(f"expected Parquet in {path}, got {error}; build it again") from error
        return cls(frame)

    def fingerprint(self) -> str:
        """sha256 over column names, types and values in row order: the same content, the same digest."""
        digest = hashlib.sha256()
        for name, dtype in self._frame.schema.items():
            digest.update(f"{name}\x00{dtype}\x00".encode())
        for piece in self._frame.iter_slices(_FINGERPRINT_ROWS):
            digest.update(piece.write_ndjson().encode())
        return digest.hexdigest()


def _reads_as_text(name: str, dtype: pl.DataType) -> bool:
    if name == "year":
        return True
    if dtype not in (pl.String(), pl.List(pl.String())):
        return False
    return name.lower() not in _KEY_NAMES and not name.endswith(_KEY_ENDINGS)


def _text_of(name: str, dtype: pl.DataType) -> pl.Expr:
    """The words of one column, null where it adds none (so that no separator is left dangling)."""
    column = pl.col(name)
    words = (
        column.list.join(", ", ignore_nulls=True) if dtype == pl.List(pl.String()) else column.cast(pl.String)
    )
    words = words.str.strip_chars()
    if name == "year":
        words = pl.when(pl.col("title").str.contains(words, literal=True)).then(None).otherwise(words)
    return pl.when(words != "").then(words)


def _check(frame: pl.DataFrame) -> None:
    for name in ("item_id", "title"):
        if name not in frame.columns:
            raise CatalogError(f"expected a column '{name}', got {frame.columns}; rename one of them")
        if frame.schema[name] != pl.String:
            raise CatalogError(f"expected '{name}' of type String, got {frame.schema[name]}; cast it")
        if frame[name].null_count():
            raise CatalogError(f"expected '{name}' in every row, got {frame[name].null_count()} nulls")
    for name, dtype in frame.schema.items():
        if dtype not in FIELD_TYPES:
            allowed = ", ".join(str(t) for t in FIELD_TYPES)
            raise CatalogError(
                f"expected field '{name}' of a type among {allowed}, got {dtype}; cast or drop it"
            )
    ids = frame["item_id"]
    if (ids == "").any():
        raise CatalogError(
            f"expected an id in every row, got {(ids == '').sum()} empty ones; drop those rows"
        )
    if ids.n_unique() != frame.height:
        twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True).head(3).to_list()
        raise CatalogError(f"expected unique ids, got more than one row for {twice}; drop all but one")
    if frame.height > np.iinfo(np.int32).max:
        raise CatalogError(f"expected at most {np.iinfo(np.int32).max} items, got {frame.height}")
