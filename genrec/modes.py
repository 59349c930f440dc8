"""Modes: what a Recommender answers one task with.

A :class:`TrieMode` searches a trie with a decoder: every answer is an item because every path is one. Filters,
caps, priors, samples, exact search and certificates ride on the trie, so they are the same for codes and titles.
A :class:`QueryMode` lets the model write queries and searches the catalog with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from genrec.bundle import Bundle
from genrec.cap_rules import CapRules
from genrec.decoders.base import Decoder
from genrec.history_prior import HistoryPrior
from genrec.queries import QuerySearch
from genrec.query_search import CatalogQuerySearch
from genrec.query_writers import ModelQueries
from genrec.speech import Speech, SpeechForm
from genrec.tasks import TASKS, QueryDefaults, TaskDefaults, TaskSpec
from index.errors import IndexFormatError
from index.item_index import SEMANTIC_ID, ItemIndex
from index.item_rules import ItemRules
from index.title_paths import untitled_rows
from index.trie import TokenTrie


@dataclass(frozen=True, eq=False)
class TrieMode:
    """A task whose answers walk a trie: codes or titles."""

    spec: TaskSpec
    speech: Speech
    decoder: Decoder
    trie: TokenTrie
    rules: ItemRules  # what requests may get, over the ranks of this trie
    caps: CapRules
    defaults: TaskDefaults
    history_prior: HistoryPrior | None = None  # what requests may have mixed in; the same one for every trie

    def written(self, rank: int) -> str | None:
        """The text of the answer that names the item at a rank; None where the model writes codes."""
        return self.speech.vocabulary.text(self.trie.path(rank)) if self.spec.is_text else None


@dataclass(frozen=True, eq=False)
class QueryMode:
    """The task whose answers are queries."""

    spec: TaskSpec
    speech: Speech
    search: QuerySearch
    rules: ItemRules  # over the ranks of the trie of codes
    defaults: QueryDefaults


AnyMode: TypeAlias = TrieMode | QueryMode


def codes_mode(
    index: ItemIndex,
    decoder: Decoder,
    defaults: TaskDefaults | None = None,
    history_prior: HistoryPrior | None = None,
) -> TrieMode:
    """The mode of a model that writes semantic IDs."""
    return TrieMode(
        spec=TASKS[SEMANTIC_ID],
        speech=Speech(index, SpeechForm("compact")),
        decoder=decoder,
        trie=index.trie,
        rules=index.rules,
        caps=CapRules(index.catalog, index.trie),
        defaults=defaults or TaskDefaults(),
        history_prior=history_prior,
    )


def title_mode(
    speech: Speech,
    titles: TokenTrie,
    decoder: Decoder,
    defaults: TaskDefaults | None = None,
    history_prior: HistoryPrior | None = None,
) -> TrieMode:
    """The mode of a model that writes titles. An item without one is never returned.

    Args:
        speech: the model's.
        titles: trie of the catalog's titles in the model's tokens.
        decoder: its token ids are the vocabulary's.
        defaults: the measured ones.
        history_prior: what requests may have mixed in.
    """
    index = speech.index
    hidden = np.union1d(index.removed, untitled_rows(index.catalog.titles))
    return TrieMode(
        spec=TASKS["title"],
        speech=speech,
        decoder=decoder,
        trie=titles,
        rules=ItemRules(index.catalog, titles, hidden),
        caps=CapRules(index.catalog, titles),
        defaults=defaults or TaskDefaults(),
        history_prior=history_prior,
    )


def query_mode(speech: Speech, search: QuerySearch, defaults: QueryDefaults | None = None) -> QueryMode:
    """The mode of a model that writes queries."""
    return QueryMode(TASKS["query"], speech, search, speech.index.rules, defaults or QueryDefaults())


def modes_of(bundle: Bundle, decoders: Mapping[str, Decoder]) -> dict[str, AnyMode]:
    """The modes of an opened bundle, the default one first.

    Args:
        bundle: opened.
        decoders: by task, what :meth:`~genrec.bundle.Bundle.decoders` gives; a mode for each.

    Raises:
        IndexFormatError: a mode needs a part that the bundle lacks.
    """
    modes: dict[str, AnyMode] = {}
    for name in (one for one in bundle.modes if one in decoders):
        spec, decoder, defaults = TASKS[name], decoders[name], bundle.tasks[name]
        if spec.held_by == "codes":
            modes[name] = codes_mode(bundle.index, decoder, defaults, bundle.prior)
            continue
        if bundle.text is None:
            raise IndexFormatError(f"expected a vocabulary for the task '{name}', got none; train again")
        if spec.held_by == "titles":
            modes[name] = title_mode(bundle.speech, bundle.text.titles, decoder, defaults, bundle.prior)
        else:
            assert isinstance(defaults, QueryDefaults)
            bm25 = bundle.index.bm25_scored_by(defaults.k1, defaults.b)
            search = CatalogQuerySearch(ModelQueries(decoder, bundle.speech), bm25)
            modes[name] = query_mode(bundle.speech, search, defaults)
    return modes
