"""ItemIndex: a catalog compiled for generation, in memory and on disk.

It holds the catalog, the trie of semantic IDs, the codebooks and vectors that coded it, and the hashes of
the events it was built on. It knows no model. Building is :mod:`index.build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from index.artifact import Artifact, load_array, open_artifact, save_array, writing_artifact
from index.bm25.bm25s_index import Bm25sIndex
from index.bm25.documents import catalog_texts
from index.catalog import Catalog
from index.errors import IndexFormatError
from index.item_rules import ItemRules
from index.item_vectors import FusedVectors, load_item_vectors
from index.lexicon import Lexicon
from index.semantic_ids import Codebooks, load_codebooks
from index.text_encoders import TextEncoder, load_encoder
from index.trie import ARRAY_NAMES, TokenTrie
from index.types import Int32Array, IntArray, UInt64Array

SEMANTIC_ID: Final = "semantic_id"
"""Name of the trie of semantic IDs, and of the task that generates them."""

REMOVED = "removed"
LEXICON = "lexicon"


_NOTHING = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Changes:
    """What :mod:`index.maintenance` has done since the index was built."""

    generation: int = 0  # additions, removals and compactions so far
    added: int = 0  # items, those that came back after a removal included
    removed: int = 0  # items
    dropped: int = 0  # removed rows that compact has given back


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """The compiled catalog."""

    catalog: Catalog
    trie: TokenTrie  # paths are level tokens: code c of level l is token level_offsets[l] + c
    level_sizes: tuple[int, ...]  # codes per level
    codebooks: Codebooks
    vectors: FusedVectors
    encoder: TextEncoder
    bm25: Bm25sIndex
    trained_events: UInt64Array  # [T] sorted hashes of every event seen while building (index.leakage)
    settings: Mapping[str, Any]  # as the manifest records them
    removed: Int32Array = field(default_factory=lambda: _NOTHING)
    """int32[M], ascending: catalog rows no search may return. They keep their codes and stay in the trie until
    :func:`index.maintenance.compact`, so a history may name them and no other item's score changes."""
    changes: Changes = Changes()
    lexicon: Lexicon | None = None
    """Of all titles, those of removed items too. None where it has not been made yet: saving makes it."""

    @cached_property
    def rules(self) -> ItemRules:
        """What requests may get; fields that filters name are compiled once for all who ask here."""
        return ItemRules(self.catalog, self.trie, self.removed)

    @cached_property
    def level_tokens(self) -> Int32Array:
        """int32[N, L]: the path of every catalog row."""
        paths = np.asarray(self.trie.path_tokens, np.int32).reshape(len(self.catalog), -1)
        return np.asarray(paths[self.trie.rank_of_item], np.int32)

    @cached_property
    def codes(self) -> Int32Array:
        """int32[N, L]: the semantic ID of every catalog row, each level counted from 0."""
        offsets = np.concatenate([[0], np.cumsum(self.level_sizes)[:-1]])
        codes: Int32Array = (self.level_tokens - offsets).astype(np.int32)
        return codes

    def bm25_scored_by(self, k1: float | None = None, b: float | None = None) -> Bm25sIndex:
        """BM25 with other settings than the index was built with; what is not given stays.

        Raises:
            RequestError: a setting is out of range.
        """
        built = self.bm25.settings
        k1, b = built.k1 if k1 is None else k1, built.b if b is None else b
        if (k1, b) == (built.k1, built.b):
            return self.bm25
        if self.bm25.can_rescore:
            return self.bm25.rescored(k1, b)
        # An index of an earlier version holds no counts, so its texts are read again.
        texts = catalog_texts(self.catalog, built.weights, self.removed)
        return Bm25sIndex.build(texts, k1=k1, b=b, weights=built.weights)

    def save(self, path: Path | str) -> None:
        """Write the index directory, atomically.

        Raises:
            IndexFormatError: ``path`` holds something that is not an artifact of genrec.
        """
        manifest = self.manifest()
        with writing_artifact(Path(path), "index", manifest) as files:
            self.save_files(files)

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of this index beside its files."""
        return {
            "items": len(self.catalog),
            "removed": len(self.removed),
            "changes": asdict(self.changes),
            "level_sizes": list(self.level_sizes),
            "trie_nodes": self.trie.nodes,
            "catalog_fingerprint": self.catalog.fingerprint(),
            "index_settings": dict(self.settings),
        }

    def save_files(self, files: Path) -> None:
        """Write every file into an empty directory; the manifest is the caller's."""
        self.catalog.save(files / "items.parquet")
        trie = files / SEMANTIC_ID
        trie.mkdir()
        for name, array in self.trie.arrays().items():
            save_array(trie, name, array)
        for name, part in (("codebooks", self.codebooks), ("vectors", self.vectors), ("bm25", self.bm25)):
            (files / name).mkdir()
            part.save(files / name)
        (files / "text_encoder").mkdir()
        self.encoder.save(files / "text_encoder")
        save_array(files, "trained_events", self.trained_events)
        save_array(files, REMOVED, self.removed)
        (files / LEXICON).mkdir()
        (self.lexicon or Lexicon.build(self.catalog.titles)).save(files / LEXICON)

    def titles(self) -> Lexicon:
        """The titles of what may be recommended, to be found by what people type."""
        if self.lexicon is None:
            return Lexicon.build(self.catalog.titles, skip=self.removed)
        return self.lexicon.without(self.removed)


def load_index(path: Path | str, *, verify: bool = False) -> ItemIndex:
    """Open an index directory, or the index inside a bundle.

    Raises:
        IndexFormatError: see :func:`index.artifact.open_artifact`.
    """
    return index_of(open_artifact(Path(path), verify=verify))


def index_of(artifact: Artifact) -> ItemIndex:
    """The index of an opened index or bundle."""
    files = artifact.files / "index" if artifact.kind == "bundle" else artifact.files
    manifest = artifact.manifest
    catalog = Catalog.load(files / "items.parquet")
    trie = TokenTrie(**{name: load_array(files / SEMANTIC_ID, name) for name in ARRAY_NAMES})
    if not len(catalog) == len(trie) == manifest["items"]:
        raise IndexFormatError(
            f"expected {manifest['items']} items in {artifact.path}, got {len(catalog)} in the catalog and "
            f"{len(trie)} in the trie; rebuild the index"
        )
    events: IntArray = load_array(files, "trained_events")
    removed = _NOTHING
    if "removed" in manifest:  # an index of an earlier version knows no removal
        removed = np.asarray(load_array(files, REMOVED), np.int32)
        _check_removed(removed, manifest["removed"], len(catalog), files)
    lexicon = None  # nor does it have a lexicon
    if any(name.startswith(f"{LEXICON}/") for name in _index_files(artifact)):
        lexicon = Lexicon.load(files / LEXICON, len(catalog))
    return ItemIndex(
        catalog=catalog,
        trie=trie,
        level_sizes=tuple(manifest["level_sizes"]),
        codebooks=load_codebooks(files / "codebooks"),
        vectors=load_item_vectors(files / "vectors"),
        encoder=load_encoder(files / "text_encoder"),
        bm25=Bm25sIndex.load(files / "bm25"),
        trained_events=np.asarray(events, np.uint64),
        settings=manifest["index_settings"],
        removed=removed,
        changes=Changes(**manifest.get("changes", {})),
        lexicon=lexicon,
    )


def _index_files(artifact: Artifact) -> list[str]:
    """Names of the index's files that the manifest vouches for, in a bundle as in an index."""
    prefix = "index/" if artifact.kind == "bundle" else ""
    return [name.removeprefix(prefix) for name in artifact.manifest["files"] if name.startswith(prefix)]


def _check_removed(removed: IntArray, count: int, items: int, files: Path) -> None:
    outside = (removed < 0) | (removed >= items)
    if removed.shape != (count,) or outside.any() or (np.diff(removed) <= 0).any():
        raise IndexFormatError(
            f"expected {count} ascending rows of {items} items in {files / REMOVED}.npy, got other content; "
            f"restore the file or rebuild the index"
        )
