"""The fused step of the search: children, scores, filter and choice in one call.

``step_kernel`` picks the compiled kernel where the extra ``fast`` is installed and the numpy one otherwise;
their results are equal.
"""

from __future__ import annotations

from genrec.kernels.numpy_step import NumpyStep
from genrec.kernels.step import Edges, StepKernel, StepResult, StepRules
from index.trie import TokenTrie

__all__ = ["Edges", "NumpyStep", "StepKernel", "StepResult", "StepRules", "step_kernel"]


def step_kernel(trie: TokenTrie, rules: StepRules) -> StepKernel:
    """The fastest kernel this installation has for a trie and a batch's rules."""
    try:
        from genrec.kernels.numba_step import NumbaStep
    except (ImportError, RuntimeError):  # RuntimeError: numba finds no directory it may cache in
        return NumpyStep(trie, rules)
    return NumbaStep(trie, rules)
