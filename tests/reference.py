"""Slow and obvious twins of the engine: a trie of dicts, and a search that scores every item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.fake_decoder import FakeDecoder


def dict_trie(paths: Sequence[Sequence[int]]) -> dict[int, dict]:
    root: dict[int, dict] = {}
    for path in paths:
        node = root
        for token in path:
            node = node.setdefault(int(token), {})
    return root


def score_all(
    decoder: FakeDecoder, prompt_seed: int, paths: Sequence[Sequence[int]], normalize: str
) -> np.ndarray:
    """float64[N]: log-probability of every row, straight from the definition in DESIGN §4."""
    trie = dict_trie(paths)
    sharing = {tuple(path): 0 for path in paths}
    for path in paths:
        sharing[tuple(path)] += 1
    scores = []
    for path in paths:
        node, total = trie, 0.0
        for depth, token in enumerate(path):
            logits = decoder.logits_after(prompt_seed, tuple(int(t) for t in path[:depth])).astype(np.float64)
            over = logits[sorted(node)] if normalize == "catalog" else logits
            total += logits[token] - np.log(np.exp(over).sum())
            node = node[int(token)]
        scores.append(total - np.log(sharing[tuple(path)]))
    return np.array(scores)


def score_all_mixed(
    decoder: FakeDecoder, prompt_seed: int, paths: Sequence[Sequence[int]], prior: np.ndarray, weight: float
) -> np.ndarray:
    """float64[N]: log-probability of every row, each step mixed with the prior's share (float[N] by row)."""
    scores = np.zeros(len(paths))

    def go_down(rows: list[int], depth: int, log_p: float) -> None:
        mass = prior[rows].sum()
        if all(len(paths[row]) == depth for row in rows):
            for row in rows:
                share = prior[row] / mass if mass > 0 else 1 / len(rows)
                scores[row] = log_p + np.log((1 - weight) / len(rows) + weight * share)
            return
        below: dict[int, list[int]] = {}
        for row in rows:
            below.setdefault(int(paths[row][depth]), []).append(row)
        tokens = sorted(below)
        prefix = tuple(int(token) for token in paths[rows[0]][:depth])
        logits = decoder.logits_after(prompt_seed, prefix).astype(np.float64)[tokens]
        model = np.exp(logits) / np.exp(logits).sum()
        for token, p in zip(tokens, model, strict=True):
            share = prior[below[token]].sum() / mass if mass > 0 else p
            go_down(below[token], depth + 1, log_p + np.log((1 - weight) * p + weight * share))

    go_down(list(range(len(paths))), 0, 0.0)
    return scores


def best_rows(scores: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[int]:
    """The k best allowed rows, ties by row."""
    rows = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    return [int(r) for r in rows[np.lexsort((rows, -scores[rows]))][:k]]


def best_rows_under_caps(
    scores: np.ndarray, k: int, allowed: np.ndarray, labels: Sequence[Sequence[int]], most: Sequence[int]
) -> list[int]:
    """Rows taken one by one, best first, each only if none of its labels is full. ``labels`` go by row."""
    taken: list[int] = []
    count = [0] * len(most)
    for row in best_rows(scores, len(scores), allowed):
        if len(taken) < k and all(count[label] < most[label] for label in labels[row]):
            taken.append(row)
            for label in labels[row]:
                count[label] += 1
    return taken
