"""A report as one directory: all its files appear together, and an earlier report makes way in one moment.

The new directory is written and synced beside the old one, then renamed into its place. A process killed before that
leaves the old report; nothing that is not a report is ever replaced.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from index.artifact import replace_file
from index.errors import RequestError

REPORT = "report.json"
MARKDOWN = "report.md"


def check_report_place(path: Path) -> None:
    """Before minutes are spent on a report that has no place.

    Raises:
        RequestError: there is something that is not a report, or a file where a directory around it should be.
    """
    around = next(one for one in path.resolve().parents if one.exists())
    if not around.is_dir():
        raise RequestError(f"expected directories around {path}, got the file {around}; choose another place")
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / REPORT).is_file()):
        raise RequestError(
            f"expected {path} to be free or an earlier report, got something else; choose another"
        )


def write_report(path: Path, files: Mapping[str, str]) -> None:
    """Write all files of a report.

    Raises:
        RequestError: as :func:`check_report_place`.
    """
    check_report_place(path)
    path = path.resolve()
    token = secrets.token_hex(4)
    beside, old = (path.with_name(f".{path.name}.{token}.{word}") for word in ("new", "old"))
    beside.mkdir(parents=True)
    try:
        for name, text in files.items():
            replace_file(beside / name, text.encode())
        try:
            if path.exists():
                path.rename(old)
            beside.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """A report that ``genrec bench`` wrote: a file, or the directory of ``genrec bench report``.

    Raises:
        RequestError: there is none, or it is not a report.
    """
    file = path / REPORT if path.is_dir() else path
    try:
        report = json.loads(file.read_text("utf-8").strip().rpartition("\n")[2])
    except OSError as error:
        raise RequestError(f"expected a report in {file}, got: {error}") from error
    except ValueError as error:
        raise RequestError(f"expected JSON in the last line of {file}, got: {error}") from error
    if not isinstance(report, dict) or "benchmark" not in report:
        raise RequestError(f"expected a report of genrec bench in {file}, got other JSON")
    return report
