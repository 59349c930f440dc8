"""A bundle: an index and the model trained on it, in one directory. What ``Recommender.load`` takes.

::

    manifest.json            kind "bundle": the index's entries, the model family, task defaults, training facts
    files-…/index/…          every file of the index, so that a bundle needs nothing beside it
    files-…/model/…          the model's own files
    files-…/onnx/…           its export, once there is one: what runs without torch
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from genrec.decoders.base import Decoder
from genrec.decoders.exported import (
    CAUSAL_LM,
    ENCODER_DECODER,
    EXPORT,
    FLOAT32,
    INT8,
    NATIVE,
    ExportFacts,
    history_reader,
    open_export,
)
from genrec.tasks import TaskDefaults
from index.artifact import Artifact, changed_since, open_artifact, save_array, writing_artifact
from index.errors import IndexFormatError, MissingDependencyError, RequestError, require
from index.item_index import SEMANTIC_ID, ItemIndex, index_of
from index.types import IntArray, UInt64Array

TRAINED_EVENTS = "trained_events"

DecoderName: TypeAlias = Literal["auto", "onnx", "onnx-int8", "torch"]
"""What runs a bundle's model: its export, the quantised one, torch, or the export where it can be run."""


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

    @property
    def export(self) -> ExportFacts | None:
        """What the manifest says of the model's export; None where there is none.

        Raises:
            IndexFormatError: the export is of another model than the bundle's, or of an unknown format.
        """
        if EXPORT not in self.artifact.manifest:
            return None
        facts = ExportFacts.from_dict(self.artifact.manifest[EXPORT])
        if facts.source != self.model_hashes():
            raise IndexFormatError(
                f"expected an export of the model in {self.artifact.path}, got one of other weights; "
                f"run: genrec export {self.artifact.path}"
            )
        return facts

    def model_hashes(self) -> dict[str, str]:
        """sha256 of every file of the model."""
        files = self.artifact.manifest["files"].items()
        return {
            name: entry["sha256"]
            for name, entry in files
            if name.startswith("model/") and name != f"model/{TRAINED_EVENTS}.npy"
        }

    def decoder(self, name: DecoderName = "auto", *, threads: int = 1) -> Decoder:
        """The model, ready to search with.

        Args:
            name: ``"auto"`` runs the export where there is one and onnxruntime is installed, else torch.
            threads: CPU threads of an export; torch has its own setting.

        Raises:
            MissingDependencyError: what would run the model is not installed; says what to do.
            IndexFormatError: there is no such export, or the model family is unknown to this version.
            RequestError: an unknown name.
        """
        if name not in get_args(DecoderName):
            raise RequestError(f"expected a decoder of {', '.join(get_args(DecoderName))}, got {name!r}")
        if name == "torch":  # also where an export is out of date, so that it can be made anew
            return self._torch_decoder()
        export = self.export
        if name == "auto" and self._prefers_torch(export):
            return self._torch_decoder()
        if export is None:
            raise IndexFormatError(
                f"expected an export in {self.artifact.path}, got none; run: genrec export {self.artifact.path}"
            )
        graph = INT8 if name == "onnx-int8" else FLOAT32
        return open_export(
            self.artifact.files, export, self.artifact.manifest["model"], self.index, graph, threads
        )

    def _prefers_torch(self, export: ExportFacts | None) -> bool:
        if export is not None and find_spec("onnxruntime"):
            return False
        if find_spec("torch"):
            return True
        raise MissingDependencyError(
            "expected onnxruntime to run the exported model, found neither it nor torch; "
            "install it with: pip install 'genrec[serve]'"
            if export is not None
            else f"expected an exported model, or torch to run one that is not, found neither; where torch is "
            f"installed run: genrec export {self.artifact.path}; or install it with: pip install 'genrec[train]'"
        )

    def _torch_decoder(self) -> Decoder:
        families = (NATIVE, CAUSAL_LM, ENCODER_DECODER)
        if self.family not in families:
            raise IndexFormatError(
                f"expected a model of family {' or '.join(map(repr, families))} in {self.artifact.path}, got "
                f"{self.family!r}; update genrec, or train the bundle again with this version"
            )
        require("torch", extra="train", purpose="Running a model that has not been exported")
        directory = self.artifact.files / "model"
        if self.family == NATIVE:
            from genrec.decoders.native_decoder import NativeDecoder
            from genrec.native_model import NativeModel

            return NativeDecoder(NativeModel.load(directory, self.index.codes))
        model = self.artifact.manifest["model"]
        offset, reader = int(model["token_offset"]), history_reader(model, self.index)
        if self.family == ENCODER_DECODER:
            from genrec.decoders.encoder_decoder import EncoderDecoder

            return EncoderDecoder.load(directory, offset, reader=reader)
        from genrec.decoders.torch_decoder import TorchDecoder

        return TorchDecoder.load(directory, offset, reader=reader)


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
        family: how to load them again: ``"native"``, or ``"causal_lm"`` or ``"encoder_decoder"`` for what Hugging
            Face saves of such a language model. The facts of a language model name its ``token_offset`` (vocabulary
            id of the trie's token 0) and, where it reads items, its ``history``
            (:class:`genrec.decoders.prompt_reader.HistoryForm`).
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


@contextmanager
def changing_bundle(bundle: Bundle, *, replacing: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Save a bundle anew with one directory of its files replaced: yields the files and the manifest's entries.

    Everything else is linked or copied as it is. When the block raises, the bundle stays what it was.

    Raises:
        IndexFormatError: another process has saved the bundle since it was opened.
    """
    artifact, manifest = bundle.artifact, bundle.artifact.entries
    with writing_artifact(artifact.path, artifact.kind, manifest, replacing=artifact) as files:
        try:
            for part in artifact.files.iterdir():
                if part.name != replacing:
                    shutil.copytree(part, files / part.name, copy_function=_link)
        except OSError as error:  # a save removes the files of the one before it
            if open_artifact(artifact.path).content_hash != artifact.content_hash:
                raise changed_since(artifact.path) from error
            raise
        yield files, manifest


def _link(source: str, target: str) -> None:
    """A second name for a file, which no artifact ever writes into; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


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
