"""Other constrained decoders behind one shape: given the prefixes of a stand, a callable that does one step.

All of these mask: they return log-probabilities with -inf for what the catalog does not allow, and leave adding
scores and choosing to the caller. ``selecting`` adds what they leave out. STATIC and GENRE are run from a
checkout the user gives; nothing of theirs is in this repository.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrefixConstrainedLogitsProcessor

from benchmarks.step_data import Stand
from genrec.bench.step_peers import DictTrie, MarisaTokens
from index.types import Int64Array

__all__ = ["DictTrie", "MarisaTokens", "Static", "genre_tries", "hugging_face", "selecting"]

Step = Callable[[], Any]


def hugging_face(trie: Any, stand: Stand, beams: int) -> Step:
    """The prefix processor of ``generate`` over any trie with ``get(prefix)``."""
    processor = PrefixConstrainedLogitsProcessor(lambda _, sent: trie.get(sent.tolist()), beams)
    ids, scores = torch.from_numpy(stand.prefix), torch.from_numpy(stand.log_prob)
    return lambda: processor(ids, scores)  # type: ignore[arg-type]


def selecting(mask: Step, stand: Stand, requests: int, beams: int) -> Step:
    """A mask, then what beam search does with it: add the beams' scores, take the best of all (K of K·V)."""
    score = torch.from_numpy(stand.score.astype(np.float32))[:, None]

    def step() -> Any:
        masked = mask() + score
        return torch.topk(masked.view(requests, -1), min(beams, masked.numel() // requests))

    return step


def genre_tries(checkout: Path, paths: list[list[int]]) -> dict[str, Any]:
    """GENRE's two tries; its package is not imported, for that would need fairseq."""
    module = _load(checkout / "genre" / "trie.py", "genre_trie")
    rooted = [[2, *path] for path in paths]  # its marisa trie wants one common first token
    return {
        "genre_dict": module.Trie(paths),
        "genre_marisa": _Rooted(module.MarisaTrie(rooted)),
    }


class _Rooted:
    def __init__(self, trie: Any) -> None:
        self.trie = trie

    def get(self, prefix: list[int]) -> list[int]:
        return list(self.trie.get([2, *prefix]))


class Static:
    """STATIC's index and its masking kernel, eager or compiled."""

    def __init__(self, checkout: Path, paths: Int64Array, vocabulary: int, dense: int) -> None:
        sys.path.insert(0, str(checkout))
        try:
            from static_decoding.csr_utils import build_static_index
            from static_decoding.decoding_pt import generate_and_apply_logprobs_mask
        finally:
            sys.path.pop(0)
        ordered = paths[np.lexsort(paths.T[::-1])]
        csr, indptr, widest, _, dense_mask, dense_states = build_static_index(ordered, vocabulary, dense)
        self.sparse = generate_and_apply_logprobs_mask
        self.csr, self.indptr = torch.from_numpy(csr), torch.from_numpy(np.asarray(indptr))
        self.widest, self.vocabulary, self.dense = widest, vocabulary, dense
        self.dense_mask, self.dense_states = torch.from_numpy(dense_mask), dense_states
        self.nbytes = csr.nbytes + indptr.nbytes + dense_mask.nbytes + dense_states.nbytes

    def step(self, stand: Stand, compiled: bool) -> Step:
        """The mask of one step; dense while the next level is in the dense table, as STATIC's own loop does."""
        log_prob = torch.from_numpy(stand.log_prob)
        if stand.depth < self.dense:
            parent = torch.from_numpy(stand.prefix[:, 0])
            function: Any = torch.compile(_dense_mask, dynamic=False) if compiled else _dense_mask
            return lambda: function(log_prob, parent, self.dense_mask)
        states = torch.from_numpy(np.array([self._state(path) for path in stand.prefix.tolist()]))
        limit, device = self.widest[stand.depth], torch.device("cpu")
        function = torch.compile(self.sparse, dynamic=False) if compiled else self.sparse
        return lambda: function(log_prob, states, self.csr, self.indptr, limit, self.vocabulary, device)

    def _state(self, path: list[int]) -> int:
        state, begin = path[0] + 1, 1
        if self.dense == 2 and len(path) >= 2:
            state, begin = int(self.dense_states[path[0], path[1]]), 2
        for token in path[begin:]:
            row = self.csr[int(self.indptr[state]) : int(self.indptr[state + 1])]
            state = int(row[row[:, 0] == token][0, 1])
        return state


@torch.inference_mode()
def _dense_mask(log_prob: torch.Tensor, parent: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.where(mask[parent], log_prob, -torch.inf)


def _load(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
