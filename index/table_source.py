"""A file on disk as text: gzip and character encodings. It knows nothing of rows, columns or formats."""

from __future__ import annotations

import codecs
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

from index.read_report import ReadError

_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"
_PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True)
class Source:
    """One file in memory."""

    path: Path
    suffix: str  # lower case and without ".gz": ".csv"
    data: bytes  # of Parquet, unpacked; empty for text, which would be in memory twice
    text: str | None  # None for Parquet; line ends are "\n"
    warnings: tuple[str, ...]


def read_source(path: Path | str, error: ReadError) -> Source:
    """Read a file whole, unpack gzip (by its magic number, whatever its name) and decode it.

    UTF-8 and UTF-16 are recognised, with or without a byte-order mark. Other text is taken as latin-1, which
    is what MovieLens ``.dat`` files are; elsewhere with a warning.

    Raises:
        CatalogError or HistoryError, as asked for: no such file, a directory, an empty file, a damaged
            archive, or bytes that are no text.
    """
    path = Path(path)
    if path.is_dir():
        raise error(f"expected a file, got the directory {path}; name a file in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise error(f"expected a file, got nothing at {path}; check the path") from None
    except OSError as problem:
        raise error(f"expected a readable file at {path}, got {problem.strerror}") from problem
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as problem:
            raise error(
                f"expected a whole gzip archive in {path}, got {problem}; fetch it again"
            ) from problem
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _PARQUET_SUFFIXES or data.startswith(_PARQUET_MAGIC):
        return Source(path, ".parquet", data, text=None, warnings=())
    if not data.strip():
        raise error(f"expected rows in {path}, got an empty file")
    text, warnings = _decode(path, data, suffix, error)
    if "\x00" in text:
        raise error(
            f"expected text in {path}, got binary data; supported are CSV, TSV, JSONL, .dat and Parquet"
        )
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Source(path, suffix, b"", text, tuple(warnings))


def _decode(path: Path, data: bytes, suffix: str, error: ReadError) -> tuple[str, list[str]]:
    utf16 = _utf16_flavour(data)
    if utf16 is not None:
        try:
            return data.decode(utf16), []
        except UnicodeDecodeError as problem:
            raise error(f"expected UTF-16 in {path}, got {problem.reason}; save it as UTF-8") from problem
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
    # A few broken characters in good UTF-8 (a title cut by bytes) must not turn every accent into two
    # letters, so the file is latin-1 only if broken characters outnumber good ones.
    replaced = data.decode("utf-8-sig", errors="replace")
    broken = replaced.count("\N{REPLACEMENT CHARACTER}")
    beyond_ascii = len(replaced) - len(replaced.encode("ascii", errors="ignore"))
    if beyond_ascii - broken > broken:
        return replaced, [
            f"{broken} broken UTF-8 characters were replaced by U+FFFD, the first in line {line}"
        ]
    warning = (
        f"line {line} is not UTF-8, so the file was read as latin-1; save it as UTF-8 if letters look wrong"
    )
    return data.decode("latin-1"), [] if suffix == ".dat" else [warning]


def _utf16_flavour(data: bytes) -> str | None:
    """The codec if this is UTF-16, by byte-order mark or, without one, by the zeros beside ASCII letters."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    sample = data[:4096]
    if len(sample) < 4:
        return None
    if sample[1::2].count(0) > len(sample) * 0.4 and not sample[0::2].count(0):
        return "utf-16-le"
    if sample[0::2].count(0) > len(sample) * 0.4 and not sample[1::2].count(0):
        return "utf-16-be"
    return None
