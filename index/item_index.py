"""ItemIndex: a catalog compiled for generation, in memory and on disk.

It holds the catalog, the trie of semantic IDs, the codebooks and vectors that coded it, and the hashes of
the events it was built on. It knows no model. Building is :mod:`index.build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from index.artifact import Artifact, load_array, open_artifact, save_array, writing_artifact
from index.bm25.bm25s_index import Bm25sIndex
from index.catalog import Catalog
from index.errors import IndexFormatError
from index.item_vectors import FusedVectors, load_item_vectors
from index.semantic_ids import Codebooks, load_codebooks
from index.text_encoders import TextEncoder, load_encoder
from index.trie import ARRAY_NAMES, TokenTrie
from index.types import Int32Array, IntArray, UInt64Array

SEMANTIC_ID = "semantic_id"
"""Name of the trie of semantic IDs, and of the task that generates them."""


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

    def save(self, path: Path) -> None:
        """Write the index directory, atomically.

        Raises:
            IndexFormatError: ``path`` holds something that is not an artifact of genrec.
        """
        manifest = self.manifest()
        with writing_artifact(path, "index", manifest) as files:
            self.save_files(files)

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of this index beside its files."""
        return {
            "items": len(self.catalog),
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


def load_index(path: Path, *, verify: bool = False) -> ItemIndex:
    """Open an index directory, or the index inside a bundle.

    Raises:
        IndexFormatError: see :func:`index.artifact.open_artifact`.
    """
    return index_of(open_artifact(path, verify=verify))


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
    )
