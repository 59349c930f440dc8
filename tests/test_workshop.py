"""The rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import genrec

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for package in ("genrec", "index", "serving") for path in (ROOT / package).rglob("*.py")
)


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text("utf-8").splitlines()) <= 400


def test_importing_genrec_imports_no_torch():
    code = "import genrec, genrec.cli.main, index, serving, sys; print({'torch', 'transformers'} & set(sys.modules))"
    assert run(code, ROOT).stdout.strip() == "set()"


def test_another_package_named_index_is_reported(tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "__init__.py").touch()
    done = run("import genrec", tmp_path)
    assert "expected the package 'index' that comes with genrec" in done.stderr
    assert "another module of that name shadows it" in done.stderr


def test_the_version_is_said_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert genrec.__version__ == project["version"]


def test_nothing_can_be_unpickled_or_run():
    for path in SOURCES:
        text = path.read_text("utf-8")
        for word in ("import pickle", "allow_pickle=True", "trust_remote_code=True"):
            assert word not in text, f"{word!r} in {path}"
        # Not a model's .eval(), nor asyncio's create_subprocess_exec, which starts a program by its arguments.
        assert not re.search(r"(?<![\w.])(eval|exec)\(", text), path
