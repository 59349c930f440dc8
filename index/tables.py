"""Files of rows → one table: picks the reader by name and content, and reads Parquet itself.

It knows formats. It does not know what an item or a user is: the caller looks at the column names and says
which it wants and as what.

No type is ever guessed by a file parser. Text is read as text; which columns are numbers is decided in
``field_types`` over the whole column, so a file cannot change its types halfway through.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import polars as pl

from index.delimited import read_delimited
from index.field_types import TypedColumn, text_series, type_series
from index.json_lines import read_json_lines
from index.read_report import ReadError
from index.table import Choose, Table, assemble, text_column
from index.table_source import Source

_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


def read_table(source: Source, choose: Choose, dat_columns: Sequence[str], error: ReadError) -> Table:
    """Read the columns that ``choose`` picks from the column names found.

    Args:
        source: the file.
        choose: column names → what is wanted of them.
        dat_columns: the columns of a MovieLens ``.dat`` file, which has no header.
        error: what to raise.

    Raises:
        CatalogError or HistoryError, as asked for: the file is not of the format it claims, or has no header.
    """
    if source.text is None:
        return _parquet(source, choose, error)
    if source.suffix in _JSON_SUFFIXES or source.text.lstrip().startswith("{"):
        return read_json_lines(source, choose, error)
    return read_delimited(source, choose, dat_columns, error)


def _parquet(source: Source, choose: Choose, error: ReadError) -> Table:
    try:
        found = pl.read_parquet(io.BytesIO(source.data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        reason = str(problem).partition("\n")[0]
        raise error(
            f"expected Parquet in {source.path}, got a file that does not read ({reason}); write it again"
        ) from None
    wanted = choose(found.columns)
    columns: list[TypedColumn] = []
    warnings: list[str] = []
    for name in wanted.keys:
        if found[name].dtype.is_nested() or found[name].dtype == pl.Binary:
            raise error(
                f"expected column '{name}' of {source.path} to hold one plain value per row, "
                f"got {found[name].dtype}; map another column"
            )
        columns.append(text_column(text_series(found[name])))
    for name in wanted.fields:
        column = type_series(found[name], wanted.types.get(name))
        if column is None:
            warnings.append(
                f"field '{name}' holds {found[name].dtype}, which no catalog field can, and was left out"
            )
        else:
            columns.append(column)
    rows = np.arange(1, found.height + 1)
    return assemble("parquet", columns, lambda name, row: found[name][row], rows, (), warnings)
