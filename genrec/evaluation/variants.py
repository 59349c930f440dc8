"""Other ways to ask the same model, beside its modes: what the constraint, the scores and m are worth.

========================  =========================================================================================
title-vocabulary          titles under the normalisation that is not the bundle's default (or ``title-catalog``)
title-length-normalised   beam search as Hugging Face's ``generate`` does it by default, under the trie of titles:
                          log-probabilities divided by the number of tokens
title-unconstrained       as many beams of free text; an item is found where a text is its title to the letter
                          (GenRec, Ji et al. 2023, arXiv 2307.00457), its plan as free as its words. Its validity
                          is the share of texts that are the title of an item.
query-1                   one query and what it finds, where the mode writes m: m = 1 of GPT4Rec (Li et al. 2023,
                          arXiv 2304.03879). Lists are short where it finds few.
query-one-by-one          one query at a time, the next one written for what is left to find, until the list is full
query-catalog_ngrams      queries held to runs of words of the catalog, where the mode writes them freely (or
                          ``query-free``)
========================  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from genrec.evaluation.metrics import validity_rate
from genrec.evaluation.ranking import BATCH, Ranked, Told, batches, rank_cases
from genrec.grammars.planned import freely
from genrec.grammars.text import Text
from genrec.mode_requests import requests_of
from genrec.modes import QueryMode, TrieMode
from genrec.queries import QueryRequest
from genrec.query_search import CatalogQuerySearch
from genrec.recommender import Recommender
from genrec.search import Normalize, search
from genrec.tasks import QueryConstraint
from genrec.text_beams import Beams
from genrec.text_search import write
from genrec.wishes import Wishes
from index.histories import Cases
from index.title_paths import untitled_rows

TEXT_BATCH = 32  # free texts remember more than paths of a trie do: every beam lives to its end

Way: TypeAlias = Callable[[Cases, int, Told | None], Ranked]
"""Ranks cases to a depth."""


def variants(recommender: Recommender, modes: Sequence[str]) -> dict[str, Way]:
    """The rows beside the given modes, by name."""
    ways: dict[str, Way] = {}
    for mode in (recommender.modes[name] for name in modes):
        if isinstance(mode, QueryMode):
            if mode.defaults.queries > 1:
                ways["query-1"] = _one_query(recommender, mode)
                ways["query-one-by-one"] = _queries(recommender, Wishes(queries=1))
            if not isinstance(mode.search, CatalogQuerySearch) or mode.search.writer.finds_always:
                held: QueryConstraint = "catalog_ngrams" if mode.defaults.constraint == "free" else "free"
                ways[f"query-{held}"] = _queries(recommender, Wishes(constraint=held))
        elif mode.spec.is_text:
            other: Normalize = "vocabulary" if mode.defaults.normalize == "catalog" else "catalog"
            ways[f"title-{other}"] = _normalised(recommender, other)
            ways["title-length-normalised"] = _by_length(recommender, mode)
            ways["title-unconstrained"] = _unconstrained(recommender, mode)
    return ways


def _queries(recommender: Recommender, wishes: Wishes) -> Way:
    def rank(cases: Cases, k: int, progress: Told | None) -> Ranked:
        return Ranked(rank_cases(recommender, cases, k, "query", progress, wishes))

    return rank


def _one_query(recommender: Recommender, mode: QueryMode) -> Way:
    def rank(cases: Cases, k: int, progress: Told | None) -> Ranked:
        ranked = np.full((len(cases), k), -1, np.int32)
        wishes = Wishes(k=k, mode="query", queries=1)
        for places in batches(len(cases), BATCH, progress):
            histories = [cases.history_of(case) for case in places]
            each = [mode] * len(histories), histories, [wishes] * len(histories)
            requests = requests_of(recommender.index, *each)
            once = [replace(one, refill=False) for one in requests if isinstance(one, QueryRequest)]
            for case, found in zip(places, mode.search.search(once), strict=True):
                ranked[case, : len(found.rows)] = found.rows
        return Ranked(ranked)

    return rank


def _normalised(recommender: Recommender, normalize: Normalize) -> Way:
    def rank(cases: Cases, k: int, progress: Told | None) -> Ranked:
        return Ranked(rank_cases(recommender, cases, k, "title", progress, Wishes(normalize=normalize)))

    return rank


def _by_length(recommender: Recommender, mode: TrieMode) -> Way:
    def rank(cases: Cases, k: int, progress: Told | None) -> Ranked:
        ranked = np.full((len(cases), k), -1, np.int32)
        wishes = Wishes(k=k, mode="title")
        for places in batches(len(cases), BATCH, progress):
            found = search(
                mode.decoder,
                mode.trie,
                recommender.requests([cases.history_of(case) for case in places], wishes),
                normalize="vocabulary",
                synchronize="token",
                length_penalty=1.0,
            )
            for case, result in zip(places, found, strict=True):
                rows = recommender.rows_of(result, wishes)
                ranked[case, : len(rows)] = rows
        return Ranked(ranked)

    return rank


def _unconstrained(recommender: Recommender, mode: TrieMode) -> Way:
    def rank(cases: Cases, k: int, progress: Told | None) -> Ranked:
        rows_of = _rows_by_title(recommender, mode)
        vocabulary, beam = mode.speech.vocabulary, max(mode.defaults.beam, k)
        ranked = np.full((len(cases), k), -1, np.int32)
        returned = []
        for places in batches(len(cases), TEXT_BATCH, progress):
            prompts = [mode.spec.prompt(mode.speech, cases.history_of(case)) for case in places]
            written = write(
                mode.decoder,
                vocabulary,
                prompts,
                freely(Text(), vocabulary),
                Beams(beam, answers=k),
                max_tokens=vocabulary.facts.longest + len(vocabulary.facts.plan),
            )
            for case, texts in zip(places, written, strict=True):
                titles = [vocabulary.text(text.ids) for text in texts]
                returned.append(titles)
                seen = set(cases.history_of(case).tolist())
                for place, title in enumerate(titles):
                    free = [row for row in rows_of.get(title, []) if row not in seen]
                    if free:  # two items of one title: each text names one of them
                        ranked[case, place] = free[0]
                        seen.add(free[0])
        return Ranked(ranked, validity_rate(returned, rows_of))

    return rank


def _rows_by_title(recommender: Recommender, mode: TrieMode) -> dict[str, list[int]]:
    """The rows that an answer names, by what the vocabulary makes of their titles."""
    index, vocabulary = recommender.index, mode.speech.vocabulary
    hidden = set(np.union1d(index.removed, untitled_rows(index.catalog.titles)).tolist())
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(vocabulary.answers(index.catalog.titles)):
        if row not in hidden:
            rows_of.setdefault(vocabulary.text(path), []).append(row)
    return rows_of
