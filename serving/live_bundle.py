"""The bundle that answers: a recommender and everything that must change together with it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from genrec.bundle import load_bundle
from genrec.decoders.base import ReusesPrompts
from genrec.decoders.prompt_cache import PromptCache, prompt_cache_of
from genrec.modes import AnyMode, QueryMode, TrieMode, modes_of
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import ModelQueries
from genrec.recipes.chat_state import ChatWords
from genrec.recommender import Recommender
from genrec.tasks import Mode
from index.errors import IdentifierError
from index.lexicon import Lexicon
from index.types import Int32Array

NEWCOMERS = 200  # items kept for new users
_SHORT = 12  # hex digits of a hash in a name


@dataclass(frozen=True, eq=False)
class LiveBundle:
    """One version of model and catalog. A request takes hold of one and sees no other."""

    recommender: Recommender
    lexicon: Lexicon
    model: str  # name@hash of the bundle's manifest
    catalog: str  # hash of the catalog's content
    loaded: float = field(default_factory=time.time)  # Unix seconds
    prompt_caches: tuple[PromptCache, ...] = ()  # around the decoders of the modes; of this version only
    newcomers: Int32Array = field(default_factory=lambda: np.zeros(0, np.int32))
    """int32[M]: catalog rows that the model recommends to a new user, best first. A fallback gives them."""

    @property
    def modes(self) -> tuple[str, ...]:
        """What a request may name, the default first."""
        return tuple(self.recommender.modes)

    @cached_property
    def chat_words(self) -> ChatWords:
        """What users of this catalog may mean; made with the first conversation."""
        return ChatWords(self.recommender.index, self.lexicon)

    @classmethod
    def load(cls, path: Path, *, verify: bool = False, prompt_cache_bytes: int = 0) -> LiveBundle:
        """Open a bundle and warm it: the first client must not pay for lazy loading and compilation.

        Args:
            path: the bundle.
            verify: compare the hashes of all files first.
            prompt_cache_bytes: most bytes of remembered prompts, where the model can start from one, in equal
                parts for every mode; 0 remembers none.

        Raises:
            IndexFormatError: the directory is no bundle, is damaged, or is too new.
            MissingDependencyError: its model needs a package that is not installed.
        """
        bundle = load_bundle(path, verify=verify)
        decoders, caches = dict(bundle.decoders()), []
        for name, decoder in decoders.items():
            if prompt_cache_bytes and isinstance(decoder, ReusesPrompts):
                cache = prompt_cache_of(decoder, max(1, prompt_cache_bytes // len(decoders)))
                decoders[name] = cache
                caches.append(cache)
        recommender = Recommender(bundle.index, modes=modes_of(bundle, decoders))
        live = cls(
            recommender,
            bundle.index.titles(),
            f"{path.resolve().name}@{bundle.artifact.content_hash[:_SHORT]}",
            str(bundle.artifact.manifest["catalog_fingerprint"])[:_SHORT],
            prompt_caches=tuple(caches),
            newcomers=_newcomers(recommender),
        )
        live.warm()
        for cache in caches:
            cache.clear()
        return live

    def warm(self) -> None:
        """Answer a new user and a known one, so that lazy parts are there and wrong ones fail here."""
        ids = self.recommender.index.catalog.item_ids
        _ = self.recommender.index.codes  # explanations read them
        for history in ([], ids[:3]):
            for mode in self.recommender.modes:
                self.recommender.recommend(history, k=min(10, len(ids)), mode=cast(Mode, mode))
        for answering in self.recommender.modes.values():
            _make_ngrams(answering)


def _newcomers(recommender: Recommender) -> Int32Array:
    """What a mode that walks a trie says to a new user: one search, where queries would be dozens."""
    catalog = recommender.index.catalog
    walks = [name for name, mode in recommender.modes.items() if isinstance(mode, TrieMode)]
    if not walks:
        return np.zeros(0, np.int32)
    answer = recommender.recommend([], k=min(NEWCOMERS, len(catalog)), mode=cast(Mode, walks[0]))
    return np.asarray(catalog.rows_of([one.item_id for one in answer.items]), np.int32)


def _make_ngrams(mode: AnyMode) -> None:
    """What queries held to the catalog need: seconds for 100,000 titles, in which nobody else would get a step."""
    if isinstance(mode, QueryMode) and isinstance(mode.search, CatalogQuerySearch):
        writer = mode.search.writer
        if isinstance(writer, ModelQueries):
            with suppress(
                IdentifierError
            ):  # tokens that mark no words: whoever asks for such queries is told
                _ = writer.ngrams
