"""Metrics over ranked lists of catalog rows. It knows no recommender, no split and no user.

``ranked`` is int32[C, K]: for each of C cases the recommended rows, best first, padded with -1 where fewer
than K came back. ``targets`` is int[C]: the one item that came next. An entry counts at the place where it
stands, so an invalid or repeated entry costs the places behind it.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable
from typing import TypedDict

import numpy as np

from index.errors import RequestError
from index.types import Float64Array, FloatArray, Int64Array, IntArray

CUTOFF = 10
"""Length of the lists that coverage looks at, and the longest cut-off in ``Metrics``."""

Metrics = TypedDict(
    "Metrics",
    {
        "recall@5": float,
        "recall@10": float,
        "hr@5": float,
        "hr@10": float,
        "ndcg@5": float,
        "ndcg@10": float,
        "coverage": float,
        "validity": float,
    },
)
"""What a row of the evaluation table holds; every value is a share in [0, 1]."""


def measure(ranked: IntArray, targets: IntArray, items: int, validity: float | None = None) -> Metrics:
    """All metrics of one system.

    Args:
        ranked: int[C, K], K >= 10, padded with -1.
        targets: int[C], catalog rows.
        items: N, the size of the catalog.
        validity: ``validity_rate`` of what the recommender itself returned, for one that returns ids or text.
            By default the rate of ``ranked``: entries that are neither padding nor in [0, N) are invalid.

    Raises:
        RequestError: the shapes do not fit, there is no case, or a target is not a catalog row.
    """
    if ranked.ndim == 2 and ranked.shape[1] < CUTOFF:
        raise RequestError(f"expected at least {CUTOFF} places per case, got {ranked.shape[1]}; pad with -1")
    if len(targets) and np.max(targets) >= items:
        raise RequestError(f"expected targets in [0, {items}), got {np.max(targets)}")
    if validity is None:
        validity = validity_rate([ranked[ranked != -1].tolist()], range(items))
    recall5, recall10 = (float(recall(ranked, targets, k).mean()) for k in (5, 10))
    return {
        "recall@5": recall5,
        "recall@10": recall10,
        "hr@5": recall5,
        "hr@10": recall10,
        "ndcg@5": float(ndcg(ranked, targets, 5).mean()),
        "ndcg@10": float(ndcg(ranked, targets, 10).mean()),
        "coverage": coverage(ranked, items),
        "validity": validity,
    }


def recall(ranked: IntArray, targets: IntArray, k: int) -> Float64Array:
    """float64[C]: 1 where the target is among the first k, else 0.

    With one target per case recall@k and the hit rate hr@k are the same number; tables show both names
    because papers use either.
    """
    return (_places(ranked, targets, k) < k).astype(np.float64)


def ndcg(ranked: IntArray, targets: IntArray, k: int) -> Float64Array:
    """float64[C]: 1 / log2(2 + place) where the target stands at 0-based ``place`` < k, else 0.

    Discounted cumulative gain with binary relevance (Järvelin & Kekäläinen 2002); with one target the ideal
    list scores 1, so it needs no further division.
    """
    places = _places(ranked, targets, k)
    return np.where(places < k, 1.0 / np.log2(places + 2.0), 0.0)


def coverage(ranked: IntArray, items: int) -> float:
    """The share of the catalog's N items that appear in the first ten places of any list."""
    if items < 1:
        raise RequestError(f"expected a catalog of at least one item, got {items}")
    shown = np.unique(ranked[:, :CUTOFF])
    return int(((shown >= 0) & (shown < items)).sum()) / items


def validity_rate(returned: Iterable[Iterable[Hashable]], catalog: Container[Hashable]) -> float:
    """The share of returned entries that name a catalog item; 1 where nothing was returned.

    Args:
        returned: for each case, the entries as the recommender returned them (ids, titles or rows), without
            padding: leaving out what it could not ground would hide the very fault this measures.
        catalog: what an entry must be in.
    """
    valid = [entry in catalog for entries in returned for entry in entries]
    return sum(valid) / len(valid) if valid else 1.0


def standard_error(values: FloatArray, resamples: int = 1000, seed: int = 0) -> float:
    """Bootstrap standard error of the mean of per-case values, such as ``recall`` or ``ndcg`` return.

    The deviation of the mean over resamples of the C cases with replacement (Efron 1979). The values of one
    metric are few (K + 1 places), so a resample is drawn as counts of distinct values, never as C cases.

    Raises:
        RequestError: there is no value, or fewer than two resamples.
    """
    if values.ndim != 1 or len(values) == 0:
        raise RequestError(f"expected per-case values float[C] with C >= 1, got shape {list(values.shape)}")
    if resamples < 2:
        raise RequestError(f"expected at least 2 resamples, got {resamples}")
    distinct, counts = np.unique(values, return_counts=True)
    cases = len(values)
    draws = np.random.default_rng(seed).multinomial(cases, counts / cases, size=resamples)
    return float((draws @ distinct / cases).std(ddof=1))


def _places(ranked: IntArray, targets: IntArray, k: int) -> Int64Array:
    """int64[C]: the 0-based place where each target first stands among the first k, k where it does not."""
    if ranked.ndim != 2 or targets.shape != (ranked.shape[0],):
        raise RequestError(
            f"expected ranked [C, K] and targets [C], got {list(ranked.shape)} and {list(targets.shape)}"
        )
    if len(targets) == 0:
        raise RequestError("expected at least one case, got none; a mean over nothing is no result")
    if np.min(targets) < 0:
        raise RequestError(
            f"expected targets >= 0, got {np.min(targets)}; -1 is padding and would match itself"
        )
    if not 1 <= k <= ranked.shape[1]:
        raise RequestError(f"expected 1 <= k <= {ranked.shape[1]} places, got k={k}")
    found = ranked[:, :k] == targets[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1), k).astype(np.int64)
