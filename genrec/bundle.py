"""A bundle: an index and the model trained on it, in one directory. What ``Recommender.load`` takes.

::

    manifest.json            kind "bundle": the index's entries, the model family, task defaults, training facts
    files-…/index/…          every file of the index, so that a bundle needs nothing beside it
    files-…/model/…          the model's own files
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genrec.decoders.base import Decoder
from genrec.tasks import TaskDefaults
from index.artifact import Artifact, changed_since, open_artifact, save_array, writing_artifact
from index.errors import IndexFormatError, require
from index.item_index import SEMANTIC_ID, ItemIndex, index_of
from index.types import IntArray, UInt64Array

TRAINED_EVENTS = "trained_events"


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle."""

    artifact: Artifact
    index: ItemIndex
    tasks: Mapping[str, TaskDefaults]

    @property
    def family(self) -> str:
        """Which kind of model the bundle holds."""
        return str(self.artifact.manifest["model"]["family"])

    def trained_events(self) -> UInt64Array:
        """uint64[T], sorted: every event the index was built on or the model trained on (index.leakage)."""
        model: IntArray = np.load(
            self.artifact.files / "model" / f"{TRAINED_EVENTS}.npy", mmap_mode="r", allow_pickle=False
        )
        return np.union1d(self.index.trained_events, np.asarray(model, np.uint64))

    def decoder(self) -> Decoder:
        """The model, ready to search with.

        Raises:
            MissingDependencyError: the model runs in torch, which is not installed.
            IndexFormatError: the model family is unknown to this version.
        """
        if self.family != "native":
            raise IndexFormatError(
                f"expected a model of family 'native' in {self.artifact.path}, got {self.family!r}; "
                f"update genrec, or train the bundle again with this version"
            )
        require("torch", extra="train", purpose="Running a native model that has not been exported")
        from genrec.decoders.native_decoder import NativeDecoder
        from genrec.native_model import NativeModel

        return NativeDecoder(NativeModel.load(self.artifact.files / "model", self.index.codes))


def save_bundle(
    path: Path,
    index: ItemIndex,
    save_model: Callable[[Path], None],
    *,
    family: str,
    tasks: Mapping[str, TaskDefaults],
    trained_events: UInt64Array,
    facts: Mapping[str, Any],
) -> None:
    """Write a bundle, atomically.

    Args:
        path: the bundle's directory; an old bundle there is replaced in one moment.
        index: copied into the bundle.
        save_model: writes the model's files into the directory it is given.
        family: how to load them again.
        tasks: defaults per task.
        trained_events: uint64[T], hashes of the events trained on.
        facts: what else the manifest records: settings, figures, times.
    """
    manifest = {
        **index.manifest(),
        "model": {"family": family, **facts},
        "tasks": {name: task.to_dict() for name, task in tasks.items()},
    }
    with writing_artifact(path, "bundle", manifest) as files:
        (files / "index").mkdir()
        index.save_files(files / "index")
        (files / "model").mkdir()
        save_model(files / "model")
        save_array(files / "model", TRAINED_EVENTS, trained_events)


def save_changed_index(artifact: Artifact, index: ItemIndex, path: Path) -> None:
    """Save an index that was opened from ``artifact`` and then changed, as the same kind of artifact.

    In a bundle everything but the index is copied as it is: a model speaks codes and reads which item has
    which from the index, so it goes on working.

    Raises:
        IndexFormatError: ``path`` holds something that is not an artifact of genrec, or another process has
            saved ``artifact`` anew since it was opened. ``path`` is left alone.
    """
    manifest = {**artifact.entries, **index.manifest()}
    replacing = artifact if path.resolve() == artifact.path.resolve() else None
    with writing_artifact(path, artifact.kind, manifest, replacing=replacing) as files:
        if artifact.kind == "index":
            index.save_files(files)
            return
        try:
            for part in artifact.files.iterdir():
                if part.name != "index":
                    shutil.copytree(part, files / part.name)
        except OSError as error:  # a save removes the files of the one before it
            if open_artifact(artifact.path).content_hash != artifact.content_hash:
                raise changed_since(artifact.path) from error
            raise
        (files / "index").mkdir()
        index.save_files(files / "index")


def load_bundle(path: Path, *, verify: bool = False) -> Bundle:
    """Open a bundle.

    Raises:
        IndexFormatError: see :func:`index.artifact.open_artifact`.
    """
    artifact = open_artifact(path, kind="bundle", verify=verify)
    tasks = {name: TaskDefaults.from_dict(values) for name, values in artifact.manifest["tasks"].items()}
    if SEMANTIC_ID not in tasks:
        raise IndexFormatError(f"expected the task '{SEMANTIC_ID}' in {path}, got {sorted(tasks)}")
    return Bundle(artifact, index_of(artifact), tasks)
