"""Labels: the values of catalog fields as numbers. A list field gives an item one per entry, any other field one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from index.catalog import Catalog
from index.errors import RequestError
from index.types import Int32Array

_SHARED_BY = 3
"""A text field labels items where a value stands for so many of them on average; titles and ids do not."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What kind of thing each item is."""

    table: Int32Array  # [N, F] distinct label numbers of each row, -1 where it has fewer than F
    fields: tuple[str, ...]  # that they come from

    @classmethod
    def of(cls, catalog: Catalog, fields: Sequence[str] | None = None) -> Labels | None:
        """The labels of a catalog; None where it has no field to label by.

        Args:
            catalog: the items.
            fields: which of its fields; where not given, all lists, and the texts whose values many items share.

        Raises:
            RequestError: a field the catalog does not have.
        """
        chosen = _label_fields(catalog) if fields is None else tuple(fields)
        for name in chosen:
            if name not in catalog.field_names:
                raise RequestError(
                    f"expected fields of the catalog ({', '.join(catalog.field_names)}) as labels, got {name!r}"
                )
        if not chosen:
            return None
        tables, labels = [], 0
        for name in chosen:
            table = label_table(catalog.frame[name])
            tables.append(np.where(table >= 0, table + labels, -1))
            labels += int(table.max(initial=-1)) + 1
        return cls(np.concatenate(tables, axis=1).astype(np.int32), chosen)


def _label_fields(catalog: Catalog) -> tuple[str, ...]:
    def labels(name: str) -> bool:
        column = catalog.frame[name]
        if isinstance(column.dtype, pl.List):
            return True
        return column.dtype == pl.String() and column.n_unique() * _SHARED_BY <= len(column)

    return tuple(name for name in catalog.field_names if labels(name))


def label_table(column: pl.Series) -> Int32Array:
    """int32[N, F]: a number for every distinct value of each row, -1 where a row has fewer than F."""
    values = pl.DataFrame({"row": np.arange(len(column)), "value": column})
    if isinstance(column.dtype, pl.List):
        values = values.explode("value")
    values = values.drop_nulls().unique(maintain_order=True)
    row = values["row"].to_numpy()
    label = values["value"].rank("dense").to_numpy().astype(np.int32) - 1
    place = np.arange(len(row)) - np.searchsorted(row, row)
    table = np.full((len(column), int(place.max(initial=0)) + 1), -1, np.int32)
    table[row, place] = label
    return table
