"""The operations page names every setting, metric, error and route that the server has, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from serving.errors import ERRORS
from serving.metrics import Metrics
from serving.settings import Settings

PAGE = (Path(__file__).parents[2] / "serving" / "README.md").read_text("utf-8")


def rows_of(heading: str) -> dict[str, list[str]]:
    """The table under a heading: first code word of a row to its cells."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*`.*$", section, re.M)
    ]
    return {re.findall(r"`([^`]+)`", " ".join(cells))[0]: cells for cells in rows}


def test_every_setting_stands_there_with_its_default():
    rows = rows_of("Settings")
    assert list(rows) == list(Settings.model_fields)
    words = {None: "–", (): "none", False: "off", True: "on"}
    for name, field in Settings.model_fields.items():
        default = field.default
        is_number = isinstance(default, int | float) and not isinstance(default, bool)
        shown = (f"{default:,}" if default >= 10_000 else str(default)) if is_number else default
        assert rows[name][1] == words.get(shown, shown), name


def test_every_metric_stands_there():
    kinds = {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in Metrics().registry.collect()
    }
    assert {name: cells[1] for name, cells in rows_of("Metrics").items()} == kinds


def test_every_error_stands_there_with_its_status():
    rows = rows_of("Errors")
    assert {name: int(cells[0]) for name, cells in rows.items()} == {
        code: kind.status for code, kind in ERRORS.items()
    }
