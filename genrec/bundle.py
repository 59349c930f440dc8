"""A bundle: an index and the model trained on it, in one directory. What ``Recommender.load`` takes.

::

    manifest.json            kind "bundle": the index's entries, the model family, task defaults, training facts
    files-…/index/…          every file of the index, so that a bundle needs nothing beside it
    files-…/model/…          the model's own files
    files-…/onnx/…           its export, once there is one: what runs without torch
    files-…/vocabulary/…     of a model that writes text: its tokenizer,
    files-…/titles/…         and the trie of the titles in those tokens
    files-…/history_prior/…  which items follow each other, and whose texts are alike: what the search mixes in
    files-…/model_card.md    what all of this is, for people
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from genrec.bundle_decoders import DecoderName, open_decoders
from genrec.bundle_text import TEXT, TITLES, VOCABULARY, BundleText, load_text
from genrec.decoders.base import Decoder
from genrec.decoders.exported import EXPORT, ExportFacts
from genrec.history_prior import DIRECTORY, HistoryPrior, load_history_prior
from genrec.model_card import CARD, write_card
from genrec.prior_changes import carried_over
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TASKS, TaskDefaults, defaults_of, tasks_in_order
from index.artifact import Artifact, changed_since, open_artifact, save_array, writing_artifact
from index.errors import IndexFormatError, RequestError
from index.item_index import ItemIndex, index_of
from index.types import IntArray, UInt64Array

TRAINED_EVENTS = "trained_events"

__all__ = ["Bundle", "DecoderName", "changing_bundle", "load_bundle", "save_bundle", "save_changed_index"]


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle."""

    artifact: Artifact
    index: ItemIndex
    tasks: Mapping[str, TaskDefaults]
    text: BundleText | None = None  # None where the model speaks codes alone
    prior: HistoryPrior | None = None  # None in a bundle of an earlier version, or one trained without

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

    @property
    def card(self) -> Path | None:
        """The model card; None in a bundle of an earlier version."""
        path = self.artifact.files / CARD
        return path if CARD in self.artifact.manifest["files"] else None

    @property
    def modes(self) -> list[str]:
        """The tasks a request may name, the default one first."""
        return [name for name in tasks_in_order(list(self.tasks)) if TASKS[name].is_mode]

    @cached_property
    def speech(self) -> Speech:
        """How the model reads items and writes answers."""
        if self.text is None:
            return Speech(self.index, SpeechForm("compact"))
        return Speech(self.index, self.text.form, self.text.vocabulary)

    def decoder(self, name: DecoderName = "auto", *, task: str | None = None, threads: int = 1) -> Decoder:
        """The model, ready to search with.

        Args:
            name: ``"auto"`` runs the export where there is one and onnxruntime is installed, else torch.
            task: what it is to answer; the bundle's default mode where not given.
            threads: CPU threads of an export; torch has its own setting.

        Raises:
            MissingDependencyError: what would run the model is not installed; says what to do.
            IndexFormatError: there is no such export, or the model family is unknown to this version.
            RequestError: an unknown name, or a task that the model was not trained for.
        """
        chosen = task or self.modes[0]
        return self.decoders(name, tasks=[chosen], threads=threads)[chosen]

    def decoders(
        self, name: DecoderName = "auto", *, tasks: Sequence[str] | None = None, threads: int = 1
    ) -> Mapping[str, Decoder]:
        """:meth:`decoder` for several tasks, all of the bundle's modes where not given: one model in memory."""
        if name not in get_args(DecoderName):
            raise RequestError(f"expected a decoder of {', '.join(get_args(DecoderName))}, got {name!r}")
        chosen = self.modes if tasks is None else list(tasks)
        for one in chosen:
            if one not in self.tasks:
                raise RequestError(
                    f"expected a task that {self.artifact.path} was trained for ({', '.join(self.tasks)}), "
                    f"got {one!r}"
                )
        return open_decoders(self, chosen, name, threads)


def save_bundle(
    path: Path,
    index: ItemIndex,
    save_model: Callable[[Path], None],
    *,
    family: str,
    tasks: Mapping[str, TaskDefaults],
    trained_events: UInt64Array,
    facts: Mapping[str, Any],
    text: BundleText | None = None,
    prior: HistoryPrior | None = None,
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
        text: what the model needs to write text; with it the model may have text tasks.
        prior: what tasks with a ``prior_weight`` mix in.
    """
    model = {"family": family, **facts}
    if text is not None:
        model[VOCABULARY] = text.vocabulary.content_hash
    manifest = {
        **index.manifest(),
        **({} if text is None else {TEXT: text.manifest()}),
        **({} if prior is None else {DIRECTORY: prior.manifest()}),
        "model": model,
        "tasks": {name: task.to_dict() for name, task in tasks.items()},
    }
    with writing_artifact(path, "bundle", manifest) as files:
        (files / "index").mkdir()
        index.save_files(files / "index")
        (files / "model").mkdir()
        save_model(files / "model")
        save_array(files / "model", TRAINED_EVENTS, trained_events)
        if text is not None:
            text.save_files(files)
        if prior is not None:
            prior.save_files(files)
        write_card(files, manifest)


def save_changed_index(artifact: Artifact, index: ItemIndex, path: Path) -> None:
    """Save an index that was opened from ``artifact`` and then changed, as the same kind of artifact.

    In a bundle the model is copied as it is: it speaks codes and reads which item has which from the index, so it
    goes on working; one that writes titles gets the trie of the new ones. A history prior is carried over: new items
    are found by their texts.

    Raises:
        IndexFormatError: ``path`` holds something that is not an artifact of genrec, or another process has
            saved ``artifact`` anew since it was opened. ``path`` is left alone.
    """
    manifest = {**artifact.entries, **index.manifest()}
    text = load_text(artifact, int(artifact.manifest["items"])) if artifact.kind == "bundle" else None
    if text is not None:
        text = text.over(index)
        manifest[TEXT] = text.manifest()
    changed = {"index", DIRECTORY} if text is None else {"index", DIRECTORY, VOCABULARY, TITLES}
    prior = _prior_of_changed(artifact, index)
    replacing = artifact if path.resolve() == artifact.path.resolve() else None
    with writing_artifact(path, artifact.kind, manifest, replacing=replacing) as files:
        if artifact.kind == "index":
            index.save_files(files)
            return
        try:
            for part in _directories(artifact.files):
                if part.name not in changed:
                    shutil.copytree(part, files / part.name)
        except OSError as error:  # a save removes the files of the one before it
            if open_artifact(artifact.path).content_hash != artifact.content_hash:
                raise changed_since(artifact.path) from error
            raise
        (files / "index").mkdir()
        index.save_files(files / "index")
        if text is not None:
            text.save_files(files)
        if prior is not None:
            prior.save_files(files)
        write_card(files, manifest)


def _prior_of_changed(artifact: Artifact, index: ItemIndex) -> HistoryPrior | None:
    """The history prior of a bundle, if it has one, over its changed index."""
    if DIRECTORY not in artifact.manifest:
        return None
    before = index_of(artifact)
    prior = load_history_prior(artifact.files, artifact.manifest[DIRECTORY], before.vectors.text)
    return carried_over(prior, index.catalog.rows_of(before.catalog.item_ids), index)


@contextmanager
def changing_bundle(bundle: Bundle, *, replacing: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Save a bundle anew with one directory of its files replaced: yields the files and the manifest's entries.

    The card says what the manifest says when the block ends; everything else is linked or copied as it is. When the
    block raises, the bundle stays what it was.

    Raises:
        IndexFormatError: another process has saved the bundle since it was opened.
    """
    artifact, manifest = bundle.artifact, bundle.artifact.entries
    with writing_artifact(artifact.path, artifact.kind, manifest, replacing=artifact) as files:
        try:
            for part in _directories(artifact.files):
                if part.name != replacing:
                    shutil.copytree(part, files / part.name, copy_function=_link)
        except OSError as error:  # a save removes the files of the one before it
            if open_artifact(artifact.path).content_hash != artifact.content_hash:
                raise changed_since(artifact.path) from error
            raise
        yield files, manifest
        write_card(files, manifest)


def _directories(files: Path) -> list[Path]:
    """The parts of a bundle; its card, which lies beside them, is written anew with every save."""
    return [part for part in files.iterdir() if part.is_dir()]


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
    tasks = {name: defaults_of(name, values) for name, values in artifact.manifest["tasks"].items()}
    index = index_of(artifact)
    prior = None
    if DIRECTORY in artifact.manifest:
        prior = load_history_prior(artifact.files, artifact.manifest[DIRECTORY], index.vectors.text)
    bundle = Bundle(artifact, index, tasks, load_text(artifact, len(index.catalog)), prior)
    if not bundle.modes:
        raise IndexFormatError(f"expected a task that answers requests in {path}, got {sorted(tasks)}")
    without_text = [name for name in tasks if TASKS[name].is_text and bundle.text is None]
    if without_text:
        raise IndexFormatError(
            f"expected a vocabulary for the tasks {', '.join(without_text)} in {path}, got none; "
            "restore the bundle or train it again"
        )
    return bundle
