"""The fused step of the search: children, scores, filter and choice in one call.

``step_kernel`` picks the compiled kernel where the extra ``fast`` is installed and the numpy one otherwise;
their results are equal. ``device_kernel`` is for those whose model runs on a device: it keeps a trie there and
makes the torch kernel (extra ``train``) of every batch. See :mod:`genrec.kernels.torch_step` for what waits for
the host and what does not.
"""

from __future__ import annotations

from collections.abc import Callable

from genrec.kernels.numpy_step import NumpyStep
from genrec.kernels.step import Edges, StepKernel, StepResult, StepRules
from index.trie import TokenTrie

__all__ = ["Edges", "NumpyStep", "StepKernel", "StepResult", "StepRules", "device_kernel", "step_kernel"]


def step_kernel(trie: TokenTrie, rules: StepRules) -> StepKernel:
    """The fastest kernel this installation has for a trie and a batch's rules."""
    try:
        from genrec.kernels.numba_step import NumbaStep
    except (ImportError, RuntimeError):  # RuntimeError: numba finds no directory it may cache in
        return NumpyStep(trie, rules)
    return NumbaStep(trie, rules)


def device_kernel(trie: TokenTrie, device: str) -> Callable[[StepRules], StepKernel]:
    """Bring a trie to a torch device (``"cuda"``, ``"cuda:1"``, ``"cpu"``), once.

    Returns:
        What makes the kernel of a batch from its rules.
    """
    from genrec.kernels.torch_step import DeviceTrie, TorchStep

    on_device = DeviceTrie(trie, device)
    return lambda rules: TorchStep(trie, rules, on_device)
