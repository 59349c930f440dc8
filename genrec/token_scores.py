"""Scores of tokens, for texts: over the whole vocabulary, or over what a grammar offers. It knows no search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.decoders.base import Decoder, Hidden, ScoresVocabulary
from genrec.grammars.base import Edges
from genrec.search_batch import Normalize, log_softmax_by_row
from index.types import Float32Array, Float64Array, Int64Array

# Columns whose largest value is found at once; see `largest`.
_BLOCK = 64


def free_scores(
    decoder: Decoder, hidden: Hidden, row: Int64Array, depth: Int64Array, size: int
) -> Float32Array:
    """float32[F, V]: log-probability of every token that can be written, at most 0.

    Args:
        decoder: the model. One that is no :class:`~genrec.decoders.base.ScoresVocabulary` is asked edge by edge.
        hidden: [R, H].
        row: int64[F], rows of ``hidden``, which may come several times.
        depth: int64[F], tokens of the text so far.
        size: V; the model's head may have more rows, which count in the normaliser alone.
    """
    if not len(row):
        return np.zeros((0, size), np.float32)
    distinct, first, place = np.unique(row, return_index=True, return_inverse=True)
    own = hidden[distinct]
    if isinstance(decoder, ScoresVocabulary):
        logits = decoder.logits(own)
        top = logits.max(1, keepdims=True)
        normalizer = top + np.log(np.exp(logits - top).sum(1, keepdims=True))
    else:
        every = np.tile(np.arange(size), len(own))
        logits = decoder.edge_logits(own, np.repeat(np.arange(len(own)), size), every).reshape(-1, size)
        normalizer = decoder.log_normalizer(own, depth[first])[:, None]
    score: Float32Array = np.minimum(logits[:, :size] - normalizer, 0.0)
    return score if len(distinct) == len(row) else score[place]


def edge_scores(
    decoder: Decoder,
    hidden: Hidden,
    row: Int64Array,
    depth: Int64Array,
    edges: Sequence[Edges],
    normalize: Normalize,
) -> Float64Array:
    """float64[E]: log-probability of every edge of C states, one after the other.

    Over the edges there are, taken or not, or over the vocabulary. What is given, and under catalog scores what has
    no alternative, costs nothing and asks nothing of the model.

    Args:
        decoder: the model.
        hidden: [R, H].
        row: int64[C], rows of ``hidden``.
        depth: int64[C], tokens of the text so far.
        edges: of each state.
        normalize: what to normalise over.
    """
    count = np.array([len(one.token) for one in edges], np.int64)
    score = np.zeros(int(count.sum()))
    is_scored = np.array([is_asked(one, normalize) for one in edges], bool)
    asked = np.flatnonzero(is_scored)
    if not len(asked):
        return score
    owner = np.repeat(np.arange(len(asked)), count[asked])
    token = np.concatenate([edges[place].token for place in asked.tolist()])
    own = hidden[row[asked]]
    logits = decoder.edge_logits(own, owner, token)
    result = log_softmax_by_row(logits, owner) if normalize == "catalog" else np.zeros(len(owner))
    over_all = np.array([normalize == "vocabulary" or edges[place].is_text for place in asked.tolist()], bool)
    wide = np.flatnonzero(over_all)
    if len(wide):
        normalizer = np.zeros(len(asked))
        normalizer[wide] = decoder.log_normalizer(own[wide], depth[asked[wide]])
        here = np.flatnonzero(over_all[owner])
        result[here] = np.minimum(logits[here].astype(np.float64) - normalizer[owner[here]], 0.0)
    score[np.repeat(is_scored, count)] = result
    return score


def is_asked(edges: Edges, normalize: Normalize) -> bool:
    """Whether the model is asked about the edges of a state."""
    return not edges.is_given and (normalize == "vocabulary" or edges.is_text or len(edges.token) > 1)


def largest(values: Float32Array, most: int) -> Int64Array:
    """int64[F, min(most, V)]: the columns of the largest values of each row, in any order.

    The ``most`` largest values of a row lie in the ``most`` blocks with the largest maxima, so that nothing but the
    maxima is looked at in the whole row.
    """
    rows, columns = values.shape
    if columns <= most:
        return np.tile(np.arange(columns), (rows, 1))
    if columns <= 2 * most * _BLOCK:
        return np.argpartition(-values, most - 1, axis=1)[:, :most].astype(np.int64)
    whole = columns // _BLOCK * _BLOCK
    maxima = values[:, :whole].reshape(rows, -1, _BLOCK).max(2)
    block = np.argpartition(-maxima, most - 1, axis=1)[:, :most]
    column = (block[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(rows, -1)
    rest = np.tile(np.arange(whole, columns), (rows, 1))
    column = np.concatenate([column, rest], axis=1)
    among = np.argpartition(-np.take_along_axis(values, column, 1), most - 1, axis=1)[:, :most]
    return np.take_along_axis(column, among, 1).astype(np.int64)
