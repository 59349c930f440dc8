"""Directories on disk: a manifest, hashed files, and a save that either happens or does not.

::

    beauty.index/
      manifest.json        schema version, kind, settings, and for every file its bytes and sha256
      files-3f9c2a1b…/     the generation the manifest speaks of; nothing else in the directory counts

A save writes a whole new generation beside the old one, syncs it, and then replaces ``manifest.json`` in one
``os.replace``: the moment the new artifact exists. A process killed before that leaves the old artifact, one
killed after leaves the new one (and perhaps files nobody speaks of, which the next save removes). No pickle
anywhere. This module does not know what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from index.errors import IndexFormatError
from index.types import IntArray

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_GENERATION = "files-"
_OWN_KEYS = ("schema_version", "kind", "generation", "files", "manifest_sha256")


@dataclass(frozen=True, slots=True)
class Artifact:
    """An opened artifact: its manifest, and where its files are."""

    path: Path  # the directory a user names
    manifest: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What it is: ``index`` or ``bundle``."""
        return str(self.manifest["kind"])

    @property
    def content_hash(self) -> str:
        """sha256 over the manifest: two artifacts with equal hashes hold equal files and settings."""
        return str(self.manifest["manifest_sha256"])

    @property
    def files(self) -> Path:
        """The directory the manifest's files are in."""
        return self.path / str(self.manifest["generation"])

    @property
    def entries(self) -> dict[str, Any]:
        """The manifest as :func:`writing_artifact` was given it, without what the saving itself records."""
        return {key: value for key, value in self.manifest.items() if key not in _OWN_KEYS}

    def verify(self) -> None:
        """Compare every file's sha256 with the manifest.

        Raises:
            IndexFormatError: a file differs; names it.
        """
        for name, entry in self.manifest["files"].items():
            if _sha256(self.files / name) != entry["sha256"]:
                raise IndexFormatError(
                    f"expected {self.files / name} as it was saved, got other bytes (sha256 differs); "
                    f"restore the file or rebuild {self.path}"
                )


@contextmanager
def writing_artifact(
    path: Path, kind: str, manifest: dict[str, Any], *, replacing: Artifact | None = None
) -> Iterator[Path]:
    """Save an artifact: yields an empty directory to fill, and commits it when the block ends well.

    ``manifest`` may still be added to inside the block. On an exception nothing of the new artifact remains.

    Args:
        path: where.
        kind: ``index`` or ``bundle``.
        manifest: what it says beside the files.
        replacing: what the new artifact was made from, if it is to take that one's place: it may not undo
            what another process has saved there since.

    Raises:
        IndexFormatError: ``path`` exists and is not an artifact, or is no longer ``replacing``; it is left alone.
    """
    _refuse_to_overwrite(path)
    path.mkdir(parents=True, exist_ok=True)
    generation = path / f"{_GENERATION}{secrets.token_hex(8)}"
    generation.mkdir()
    try:
        yield generation
        names = sorted(p.relative_to(generation).as_posix() for p in generation.rglob("*") if p.is_file())
        entries = {
            name: {"bytes": (generation / name).stat().st_size, "sha256": _sha256(generation / name)}
            for name in names
        }
        for name in names:
            _sync(generation / name)
        for directory in {(generation / name).parent for name in names} | {generation}:
            _sync(directory)
        content: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            **manifest,
            "generation": generation.name,
            "files": entries,
        }
        content["manifest_sha256"] = _manifest_hash(content)
        if replacing is not None and open_artifact(path).content_hash != replacing.content_hash:
            raise changed_since(path)
        replace_file(path / MANIFEST, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    except BaseException:
        shutil.rmtree(generation, ignore_errors=True)
        if not any(path.iterdir()):
            path.rmdir()
        raise
    _sweep(path, generation)


def open_artifact(path: Path, *, kind: str | None = None, verify: bool = False) -> Artifact:
    """Open what :func:`writing_artifact` saved. Sizes are always checked, hashes with ``verify``.

    Raises:
        IndexFormatError: not an artifact, of another kind, of a newer schema, damaged, or with a file
            missing or of another size; says which and what to do.
    """
    artifact = Artifact(path, _read_manifest(path))
    if kind is not None and artifact.kind != kind:
        made_by = {"index": "genrec index build", "bundle": "genrec train"}.get(kind, "genrec")
        raise IndexFormatError(
            f"expected {path} to be of kind '{kind}', got kind '{artifact.kind}'; make one with: {made_by}"
        )
    try:
        _check_sizes(artifact)
    except IndexFormatError:
        # A save that has just landed removes the generation this manifest spoke of: look again.
        if _read_manifest(path)["generation"] == artifact.manifest["generation"]:
            raise
        return open_artifact(path, kind=kind, verify=verify)
    if verify:
        artifact.verify()
    return artifact


def _check_sizes(artifact: Artifact) -> None:
    for name, entry in artifact.manifest["files"].items():
        _check_name(artifact.path, name)
        file = artifact.files / name
        if not file.is_file():
            raise IndexFormatError(
                f"expected the file {file}, got none; restore it or rebuild {artifact.path}"
            )
        if file.stat().st_size != entry["bytes"]:
            raise IndexFormatError(
                f"expected {file} to have {entry['bytes']} bytes, got {file.stat().st_size}; "
                f"restore it or rebuild {artifact.path}"
            )


def changed_since(path: Path) -> IndexFormatError:
    """The error of a save that would undo another."""
    return IndexFormatError(
        f"expected {path} as it was opened, got one that another process has saved since; run again"
    )


def save_array(directory: Path, name: str, array: IntArray) -> None:
    """Write ``name.npy``, never pickled."""
    np.save(directory / f"{name}.npy", array, allow_pickle=False)


def load_array(directory: Path, name: str) -> IntArray:
    """Memory-map ``name.npy``.

    Raises:
        IndexFormatError: the file is not a plain numpy array.
    """
    path = directory / f"{name}.npy"
    try:
        # A plain view: indexing a memmap costs microseconds more.
        array: IntArray = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise IndexFormatError(
            f"expected a numpy array in {path}, got: {error}; restore the file or rebuild the artifact"
        ) from error
    return array


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a mixture."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sweep(path: Path, generation: Path) -> None:
    """Remove the old generation, and what killed saves have left."""
    for old in path.glob(f"{_GENERATION}*"):
        if old != generation:
            shutil.rmtree(old, ignore_errors=True)
    for half_written in path.glob(f".{MANIFEST}.*"):
        half_written.unlink(missing_ok=True)


def _refuse_to_overwrite(path: Path) -> None:
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not _looks_like_ours(path)):
        raise IndexFormatError(
            f"expected {path} to be free or an artifact of genrec, got something else; choose another --out"
        )


def _looks_like_ours(path: Path) -> bool:
    names = [entry.name for entry in path.iterdir()]
    return MANIFEST in names or all(n.startswith((_GENERATION, f".{MANIFEST}")) for n in names)


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / MANIFEST
    if not file.is_file():
        raise IndexFormatError(
            f"expected an index or bundle directory, got {path}, which has no {MANIFEST}; "
            f"make one with: genrec index build, or genrec train"
        )
    try:
        manifest = json.loads(file.read_text("utf-8"))
        version = manifest["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise IndexFormatError(
                f"expected schema version {SCHEMA_VERSION} or older in {file}, got {version}; "
                f"update genrec, or rebuild with this version"
            )
        intact = manifest["manifest_sha256"] == _manifest_hash(manifest)
        intact = intact and {"kind", "generation", "files"} <= manifest.keys()
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise IndexFormatError(
            f"expected a genrec manifest in {file}, got damaged content; {_REBUILD}"
        ) from error
    if not intact:
        raise IndexFormatError(f"expected {file} as it was saved, got edited or damaged content; {_REBUILD}")
    _check_name(path, manifest["generation"])
    return dict(manifest)


_REBUILD = "restore the file or rebuild the artifact"


def _check_name(path: Path, name: str) -> None:
    """A manifest may only speak of files below its own directory."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise IndexFormatError(f"expected file names inside {path}, got {name!r}; {_REBUILD}")


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force a file or directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
