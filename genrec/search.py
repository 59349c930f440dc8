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

What a request may ask beyond a ranking: a prior (:mod:`genrec.prior`), caps (:mod:`genrec.caps`), a sample
without replacement (:mod:`genrec.sampling`), unlike items (:mod:`genrec.diverse_search`). A request that asks
for none of it pays for none of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

from genrec.decoders.base import Decoder
from genrec.diverse_search import DiverseSearch
from genrec.item_scores import score_items
from genrec.leaf_search import LeafSearch
from genrec.search_batch import Diversity, Normalize, SearchRequest, SearchResult
from genrec.token_search import TokenSearch
from index.errors import RequestError
from index.trie import TokenTrie

Synchronize: TypeAlias = Literal["leaf", "token"]

__all__ = ["Diversity", "Normalize", "SearchRequest", "SearchResult", "Synchronize", "score_items", "search"]


def search(
    decoder: Decoder,
    trie: TokenTrie,
    requests: Sequence[SearchRequest],
    *,
    normalize: Normalize = "catalog",
    synchronize: Synchronize = "leaf",
    length_penalty: float = 0.0,
) -> list[SearchResult]:
    """Find each request's most probable allowed items.

    Args:
        decoder: the model; its token ids are the trie's.
        trie: the catalog's token paths.
        requests: any number, each with its own prompt, k, beam and allowed items; every result is that of
            the request searched alone (up to float rounding of the decoder).
        normalize: what a step's probabilities are normalised over.
        synchronize: ``"leaf"`` or ``"token"``.
        length_penalty: of a token-synchronous search: scores are divided by the length of the path to this power,
            as Hugging Face's beam search does; 1 ranks by the mean per token. Nothing is certified then.

    Raises:
        RequestError: k or beam below 1, an unknown mode, a prior or caps of another catalog, or wishes that
            contradict each other (the message says which).
    """
    _check(requests, normalize, synchronize, len(trie))
    if length_penalty < 0 or (length_penalty and synchronize != "token"):
        raise RequestError(
            f"expected a length_penalty >= 0 with synchronize='token', got {length_penalty} with {synchronize!r}"
        )
    if not requests:
        return []
    if synchronize == "token":
        return TokenSearch(decoder, trie, requests, normalize, length_penalty).run()
    results: dict[int, SearchResult] = {}
    for method, is_diverse in ((LeafSearch, False), (DiverseSearch, True)):
        own = [b for b, request in enumerate(requests) if (request.diversity is not None) == is_diverse]
        if own:
            found = method(decoder, trie, [requests[b] for b in own], normalize).run()
            results.update(zip(own, found, strict=True))
    return [results[b] for b in range(len(requests))]


def _check(requests: Sequence[SearchRequest], normalize: str, synchronize: str, items: int) -> None:
    for value, allowed in ((normalize, get_args(Normalize)), (synchronize, get_args(Synchronize))):
        if value not in allowed:
            raise RequestError(f"expected one of {', '.join(allowed)}, got {value!r}")
    for number, request in enumerate(requests):
        if request.k < 1 or request.beam < 1:
            raise RequestError(
                f"expected k >= 1 and beam >= 1, got k={request.k}, beam={request.beam} in request {number}"
            )
        for name, is_asked in _leaf_only(request).items():
            if is_asked and synchronize == "token":
                raise RequestError(
                    f"expected {name} to be leaf-synchronous, got synchronize='token'; leave it out"
                )
        _check_values(request, normalize, items)
        _check_diversity(request)


def _leaf_only(request: SearchRequest) -> dict[str, bool]:
    return {
        "exact search": request.exact,
        "priors": request.prior is not None or request.blend is not None,
        "caps": request.caps is not None,
        "sampling": request.sample_seed is not None,
        "diverse search": request.diversity is not None,
    }


def _check_diversity(request: SearchRequest) -> None:
    diversity = request.diversity
    if diversity is None:
        return
    if diversity.groups < 1 or not 0 <= diversity.strength < math.inf:
        raise RequestError(
            f"expected groups >= 1 and a finite strength >= 0, got groups={diversity.groups}, "
            f"strength={diversity.strength}"
        )
    for name, is_asked in _leaf_only(replace(request, diversity=None)).items():
        if is_asked:
            raise RequestError(f"expected diversity or {name}, got both; leave one out")


def _check_values(request: SearchRequest, normalize: str, items: int) -> None:
    prior = request.prior
    if prior is not None and len(prior.vector) != items:
        raise RequestError(f"expected one prior value per item, {items}, got {len(prior.vector)}")
    if request.caps is not None and len(request.caps.labels) != items:
        raise RequestError(f"expected labels of every item, {items}, got {len(request.caps.labels)} rows")
    is_sample = request.sample_seed is not None
    is_mixture = prior is not None and prior.kind == "mixture"
    if normalize != "catalog" and (is_sample or is_mixture):
        raise RequestError(
            f"expected catalog scores for a {'sample' if is_sample else 'mixture prior'}, "
            f"got normalize={normalize!r}: only they are a distribution over the items"
        )
    if request.blend is not None and prior is not None:
        raise RequestError("expected a prior or a blend, got both; leave one out")
    if request.blend is not None and len(request.blend.ranks) and request.blend.ranks[-1] >= items:
        raise RequestError(
            f"expected a blend of the {items} items of the trie, got rank {request.blend.ranks[-1]}"
        )
    if is_sample and prior is not None and not is_mixture:
        raise RequestError(
            "expected a mixture prior for a sample, got an additive one; its scores are no distribution"
        )
