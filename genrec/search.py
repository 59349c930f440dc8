"""Search over a trie: requests in, ranked items with certificates out. The one entry is :func:`search`.

Two synchronisations exist:

``leaf`` (default)
    Synchronous by *decision*: only branching prefixes take beam slots, forced tokens are fed together with
    the token before them in one call, finished items wait outside the beam. See :mod:`genrec.leaf_search`.
``token``
    Synchronous by token, for parity with Hugging Face's beam search. See :mod:`genrec.token_search`.

Scores are sums of log-probabilities in float64. With ``normalize="catalog"`` a step is normalised over the
children in the trie, so the exponentials sum to one over the catalog; with ``"vocabulary"`` over everything
the decoder could emit. An item whose path is shared by m items gets the path's score minus log m. The filter
only masks: it never changes a normaliser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from genrec.decoders.base import Decoder
from genrec.leaf_search import LeafSearch
from genrec.search_batch import Normalize, SearchRequest, SearchResult
from genrec.token_search import TokenSearch
from index.errors import RequestError
from index.trie import TokenTrie

Synchronize: TypeAlias = Literal["leaf", "token"]

__all__ = ["Normalize", "SearchRequest", "SearchResult", "Synchronize", "search"]


def search(
    decoder: Decoder,
    trie: TokenTrie,
    requests: Sequence[SearchRequest],
    *,
    normalize: Normalize = "catalog",
    synchronize: Synchronize = "leaf",
) -> list[SearchResult]:
    """Find each request's most probable allowed items.

    Args:
        decoder: the model; its token ids are the trie's.
        trie: the catalog's token paths.
        requests: any number, each with its own prompt, k, beam and allowed items; every result is that of
            the request searched alone (up to float rounding of the decoder).
        normalize: what a step's probabilities are normalised over.
        synchronize: ``"leaf"`` or ``"token"``.

    Raises:
        RequestError: k or beam below 1, or an unknown mode.
    """
    _check(requests, normalize, synchronize)
    if not requests:
        return []
    method = LeafSearch if synchronize == "leaf" else TokenSearch
    return method(decoder, trie, requests, normalize).run()


def _check(requests: Sequence[SearchRequest], normalize: str, synchronize: str) -> None:
    for value, allowed in ((normalize, get_args(Normalize)), (synchronize, get_args(Synchronize))):
        if value not in allowed:
            raise RequestError(f"expected one of {', '.join(allowed)}, got {value!r}")
    for number, request in enumerate(requests):
        if request.k < 1 or request.beam < 1:
            raise RequestError(
                f"expected k >= 1 and beam >= 1, got k={request.k}, beam={request.beam} in request {number}"
            )
        if request.exact and synchronize == "token":
            raise RequestError(
                "expected exact search to be leaf-synchronous, got synchronize='token'; leave it out"
            )
