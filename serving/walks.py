"""From a trace to what a client reads: ranks become items, tokens become codes or text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from genrec.modes import TrieMode
from genrec.search_trace import SearchTrace, TracedPrefix, TracedStep
from index.catalog import Catalog
from index.item_index import ItemIndex
from index.trie import TokenTrie
from index.types import TokenId
from serving import walk_schemas as schemas
from serving.response_schemas import RecommendationResponse

Label: TypeAlias = Callable[[Sequence[TokenId], int], str]
"""Tokens in words; the number says how many tokens stand before them."""

END, SPACE = "∎", "␣"
"""What the end of a title is called, and tokens that are nothing but space."""


def label_of(mode: TrieMode, index: ItemIndex) -> Label:
    """The tokens of a mode's trie in words: codes, pieces of a title, or codes and behind them a title."""
    codes = code_label(index)
    if not mode.spec.is_text:
        return codes
    vocabulary = mode.speech.vocabulary

    def label(tokens: Sequence[TokenId], depth: int) -> str:
        plan = [token - vocabulary.words for token in tokens if token >= vocabulary.words]
        said = [token for token in tokens if token < vocabulary.words]
        parts = [codes(plan, depth)] if plan else []
        if said:
            parts.append(vocabulary.text(said) or (END if vocabulary.end in said else SPACE))
        return " · ".join(parts)

    return label


def code_label(index: ItemIndex) -> Label:
    """Tokens of semantic IDs as the codes they are, each counted from 0 within its level."""
    first = np.concatenate([[0], np.cumsum(index.level_sizes)[:-1]]).tolist()

    def label(tokens: Sequence[TokenId], depth: int) -> str:
        return " · ".join(str(token - first[depth + place]) for place, token in enumerate(tokens))

    return label


def walk_of(
    trace: SearchTrace,
    recommendation: RecommendationResponse,
    catalog: Catalog,
    trie: TokenTrie,
    label: Label,
) -> schemas.WalkResponse:
    """The response to one watched request over a trie; ``label`` puts its tokens into words."""
    row = trie.item_at_rank
    ids, titles = catalog.item_ids, catalog.titles
    named: dict[int, int] = {}  # rank to catalog row

    def item_id(rank: int) -> str:
        return ids[named.setdefault(rank, int(row[rank]))]

    prefixes = [_prefix(one, item_id, label) for one in trace.prefixes]
    steps = [_step(one, item_id) for one in trace.steps]
    return schemas.WalkResponse.model_construct(
        object="walk",
        recommendation=recommendation,
        items=len(trie),
        prefixes=prefixes,
        steps=steps,
        titles={ids[one]: titles[one] for one in named.values()}
        | {one.item_id: one.title for one in recommendation.items},
        truncated=trace.truncated,
    )


def _prefix(one: TracedPrefix, item_id: Callable[[int], str], label: Label) -> schemas.WalkPrefix:
    return schemas.WalkPrefix.model_construct(
        id=one.id,
        parent=None if one.parent < 0 else one.parent,
        step=one.step,
        level=one.level,
        tokens=list(one.tokens),
        label=label(one.tokens, one.depth),
        start=one.start,
        end=one.end,
        allowed=one.allowed,
        score=_finite(one.score),
        order=_finite(one.order),
        fate=one.fate,
        examples=[item_id(rank) for rank in one.examples],
    )


def _step(one: TracedStep, item_id: Callable[[int], str]) -> schemas.WalkStep:
    return schemas.WalkStep.model_construct(
        expanded=list(one.expanded),
        scored=one.scored,
        counts=schemas.WalkCounts.model_validate(one.counts),
        unlisted=[
            schemas.WalkUnlisted.model_construct(
                parent=rest.parent,
                fate=rest.fate,
                count=rest.count,
                items=rest.items,
                best=_finite(rest.best),
            )
            for rest in one.unlisted
        ],
        ended=[
            schemas.WalkEnded.model_construct(id=number, score=_finite(score))
            for number, score in one.ended.items()
        ],
        bound=_finite(one.bound),
        found=[
            schemas.WalkFound.model_construct(item_id=item_id(rank), score=score)
            for rank, score in zip(one.found.ranks.tolist(), one.found.scores.tolist(), strict=True)
        ],
        certified=one.found.certified,
        model_calls=one.model_calls,
    )


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None
