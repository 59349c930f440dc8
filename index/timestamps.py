"""Times as files write them → unix seconds. It knows numbers, their likely unit, and ISO 8601; no rows, no users."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

# A unit is told by the size of the median: 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973.
_UNITS: tuple[tuple[float, str], ...] = (
    (1e17, "nanoseconds"),
    (1e14, "microseconds"),
    (1e11, "milliseconds"),
)
_PER_SECOND = {"nanoseconds": 1e9, "microseconds": 1e6, "milliseconds": 1e3}

_ISO_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
_OFFSET = (
    r":\d{2}(?:\.\d+)?\s*(Z|[+-]\d{2}:?\d{2})$"  # after a clock time only: "2020-01-02" ends in no offset
)


@dataclass(frozen=True)
class Times:
    """A column of times."""

    seconds: pl.Series  # Float64[R], unix time; null where the value is no time
    unit: str  # what the numbers were taken for, and why


def parse_times(values: pl.Series) -> Times:
    """Read a String column (null where blank) as numbers or as ISO 8601, whichever more of it is.

    Dates without an offset are taken as UTC: a common shift changes no order.
    """
    numbers = values.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite().fill_null(True), None)
    given = len(values) - values.null_count()
    if 2 * (len(numbers) - numbers.null_count()) >= given:
        return _scaled(numbers)
    return Times(_iso_seconds(values), "ISO 8601, UTC where no offset is given")


def _scaled(numbers: pl.Series) -> Times:
    median = numbers.abs().median()
    size = float(median) if isinstance(median, int | float) else 0.0
    for least, unit in _UNITS:
        if size >= least:
            return Times(
                numbers / _PER_SECOND[unit], f"{unit} (the median is {size:.3g}, at least {least:.0e})"
            )
    return Times(numbers, "seconds")


def _iso_seconds(values: pl.Series) -> pl.Series:
    column = pl.col("time")
    offset = column.str.extract(_OFFSET)
    sign = pl.when(offset.str.starts_with("-")).then(-1.0).otherwise(1.0)
    minutes = offset.str.slice(1, 2).cast(pl.Float64, strict=False) * 60
    minutes += offset.str.slice(-2).cast(pl.Float64, strict=False)
    local = column.str.replace(r"\s*(?:Z|[+-]\d{2}:?\d{2})$", "")
    clock = pl.when(offset.is_null()).then(column).otherwise(local).str.replace("T", " ", literal=True)
    parsed = pl.coalesce(
        clock.str.to_datetime(pattern, time_unit="us", strict=False) for pattern in _ISO_FORMATS
    )
    seconds = parsed.dt.epoch("us").cast(pl.Float64) / 1e6 - sign * minutes.fill_null(0.0) * 60
    return values.rename("time").to_frame().select(seconds.alias("seconds"))["seconds"]
