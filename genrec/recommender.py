"""Recommender: a decoder walking an index. The one object most users need.

The story of a request: ids become rows, rows become a prompt, the search walks the trie, ranks become items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genrec.bundle import load_bundle
from genrec.cap_rules import CapRules
from genrec.decoders.base import Decoder, Items
from genrec.prior import CANDIDATES, Prior, PriorKind
from genrec.search import Normalize, SearchRequest, SearchResult, Synchronize, search
from genrec.tasks import TaskDefaults
from index.errors import RequestError
from index.filter_expression import Where
from index.item_index import ItemIndex
from index.item_rules import ItemRules
from index.types import FloatArray, Int32Array, IntArray, ItemId


@dataclass(frozen=True, slots=True)
class RecommendedItem:
    """One answer: an item of the catalog."""

    item_id: ItemId
    title: str
    rank: int  # 1 is best
    score: float  # log-probability under the request's normalisation, with an additive prior's term on top
    probability: float | None
    """Share of the whole catalog's probability (they sum to one over all items, seen ones included, and removed
    ones until the index is compacted); None under vocabulary normalisation, where the sum over the catalog is
    below one, and with an additive prior."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer to one history."""

    items: tuple[RecommendedItem, ...]
    certified: int  # the first so many are proven to be the most probable allowed items, in order
    unknown_ids: tuple[ItemId, ...]  # ids of the history that are not in the catalog; they were not used
    notes: tuple[str, ...]  # what a user should know about this answer
    normalize: Normalize
    beam: int
    expansions: int
    model_calls: int


class Recommender:
    """Recommends items of one index with one decoder.

    Example::

        recommender = Recommender.load("runs/beauty")
        for item in recommender.recommend(["1", "2", "3"], k=5).items:
            print(item.rank, item.title, item.probability)
    """

    def __init__(self, index: ItemIndex, decoder: Decoder, defaults: TaskDefaults | None = None) -> None:
        self.index = index
        self.decoder = decoder
        self.defaults = defaults or TaskDefaults()
        self._rules = ItemRules(index.catalog, index.trie, index.removed)
        self._cap_rules = CapRules(index.catalog, index.trie)

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = False) -> Recommender:
        """Open a bundle that ``genrec train`` wrote.

        Args:
            path: the bundle's directory.
            verify: compare every file's hash first (sizes are always compared).

        Raises:
            IndexFormatError: the directory is no bundle, is damaged, or is too new.
            MissingDependencyError: the bundle's model needs torch and it is not installed.
        """
        bundle = load_bundle(Path(path), verify=verify)
        return cls(bundle.index, bundle.decoder(), bundle.tasks["semantic_id"])

    def recommend(
        self,
        history: Sequence[ItemId | int],
        k: int = 10,
        *,
        beam: int | None = None,
        normalize: Normalize | None = None,
        synchronize: Synchronize = "leaf",
        exclude_seen: bool = True,
        where: Where | None = None,
        include: Sequence[ItemId] | None = None,
        exclude: Sequence[ItemId] = (),
        exact: bool = False,
        max_expansions: int | None = None,
        max_per: Mapping[str, int] | None = None,
        prior: Prior | None = None,
        sample: bool = False,
        seed: int = 0,
    ) -> Recommendation:
        """The k items most likely to come next after a history.

        Args:
            history: item ids, oldest first. May be empty; ids that are not in the catalog are reported back
                and not used.
            k: items wanted. Fewer come back only where the catalog has fewer allowed ones.
            beam: prefixes kept per step; the bundle's default where not given, never below k.
            normalize: ``"catalog"`` or ``"vocabulary"``; the bundle's default (measured) where not given.
            synchronize: ``"leaf"``, or ``"token"`` for parity with Hugging Face's beam search.
            exclude_seen: leave out items of the history, inside the search.
            where: a filter over catalog fields, ``'year >= 1990 and "Comedy" in genres'`` or its structured
                form (:mod:`index.filter_expression`). It acts inside the search: exactly min(k, allowed)
                items come back.
            include: only these items are allowed.
            exclude: these items are not.
            exact: go on until the k best are proven. ``beam`` prefixes are then taken up at a time.
            max_expansions: budget of an exact search or a sample, in prefixes.
            max_per: at most so many items with one value of a field, ``{"brand": 2}``; the best ones by
                score. A list field counts each of its values.
            prior: what is known of the items beside the model; :meth:`prior` makes one.
            sample: draw k items without replacement instead of ranking them, in the model's proportions
                (catalog scores). Items come in the order drawn.
            seed: of the sample. The same seed and history draw the same items.

        Raises:
            RequestError: k or beam below 1, a history that is a single string, an unknown mode or field of
                ``max_per``, or wishes that contradict each other (the message says which).
            FilterError: ``where`` is no filter over this catalog.
        """
        return self.recommend_batch(
            [history],
            k,
            beam=beam,
            normalize=normalize,
            synchronize=synchronize,
            exclude_seen=exclude_seen,
            where=where,
            include=include,
            exclude=exclude,
            exact=exact,
            max_expansions=max_expansions,
            max_per=max_per,
            prior=prior,
            sample=sample,
            seed=seed,
        )[0]

    def prior(
        self,
        values: Mapping[ItemId, float] | FloatArray,
        weight: float,
        kind: PriorKind = "mixture",
        *,
        candidates: int = CANDIDATES,
    ) -> Prior:
        """What is known of the items beside the model, for any number of calls of :meth:`recommend`.

        Args:
            values: by item id (others are 0, ids that are not in the catalog are not used), or float[N] in
                catalog order.
            weight: how much it counts; below 1 for a mixture.
            kind: ``"mixture"`` takes the values for a distribution (popularity, clicks) and mixes it into
                every step; ``"additive"`` adds weight * value to an item's log-probability.
            candidates: so many of the best items by value are scored whatever the beam finds.

        Raises:
            RequestError: values that are not finite, one per item, or make no distribution.
        """
        if isinstance(values, Mapping):
            rows = self.index.catalog.rows_of([str(one) for one in values])
            by_row = np.zeros(len(self.index.catalog))
            by_row[rows[rows >= 0]] = np.array(list(values.values()), np.float64)[rows >= 0]
            values = by_row
        return Prior.of_rows(self.index.trie, values, weight, kind, candidates=candidates)

    def recommend_batch(
        self,
        histories: Sequence[Sequence[ItemId | int]],
        k: int = 10,
        *,
        beam: int | None = None,
        normalize: Normalize | None = None,
        synchronize: Synchronize = "leaf",
        exclude_seen: bool = True,
        where: Where | None = None,
        include: Sequence[ItemId] | None = None,
        exclude: Sequence[ItemId] = (),
        exact: bool = False,
        max_expansions: int | None = None,
        max_per: Mapping[str, int] | None = None,
        prior: Prior | None = None,
        sample: bool = False,
        seed: int = 0,
    ) -> list[Recommendation]:
        """:meth:`recommend` for many histories in one search; each answer is that of its own call."""
        ids = [self._ids(history) for history in histories]
        rows = [self.index.catalog.rows_of(one) for one in ids]
        known = [one[one >= 0] for one in rows]
        beam = max(beam if beam is not None else self.defaults.beam, k)
        normalize = normalize or self.defaults.normalize
        results = self.search_rows(
            known,
            k,
            beam=beam,
            normalize=normalize,
            synchronize=synchronize,
            exclude_seen=exclude_seen,
            where=where,
            include=include,
            exclude=exclude,
            exact=exact,
            max_expansions=max_expansions,
            max_per=max_per,
            prior=prior,
            sample=sample,
            seed=seed,
        )
        is_share = normalize == "catalog" and (prior is None or prior.kind == "mixture")
        return [
            self._recommendation(one_ids, one_rows, result, k, normalize, beam, exact or sample, is_share)
            for one_ids, one_rows, result in zip(ids, rows, results, strict=True)
        ]

    def search_rows(
        self,
        histories: Sequence[IntArray],
        k: int,
        *,
        beam: int | None = None,
        normalize: Normalize | None = None,
        synchronize: Synchronize = "leaf",
        exclude_seen: bool = True,
        where: Where | None = None,
        include: Sequence[ItemId] | None = None,
        exclude: Sequence[ItemId] = (),
        exact: bool = False,
        max_expansions: int | None = None,
        max_per: Mapping[str, int] | None = None,
        prior: Prior | None = None,
        sample: bool = False,
        seed: int = 0,
    ) -> list[SearchResult]:
        """The search itself: histories as catalog rows (int[P] each, oldest first), results as trie ranks."""
        banned = self.index.catalog.rows_of([str(one) for one in exclude])
        banned = banned[banned >= 0]
        caps = self._cap_rules.caps(max_per or {})
        requests = [
            SearchRequest(
                prompt=(Items(np.asarray(rows, np.int64)),),
                k=k,
                beam=beam if beam is not None else self.defaults.beam,
                allowed=self._rules.allowed(
                    where, include, np.concatenate([rows, banned]) if exclude_seen else banned
                ),
                exact=exact,
                max_expansions=max_expansions,
                prior=prior,
                caps=caps,
                sample_seed=_sample_seed(seed, rows) if sample else None,
            )
            for rows in histories
        ]
        return search(
            self.decoder,
            self.index.trie,
            requests,
            normalize=normalize or self.defaults.normalize,
            synchronize=synchronize,
        )

    def rows_of(self, result: SearchResult) -> Int32Array:
        """int32[k]: catalog rows of a search result."""
        return np.asarray(self.index.trie.item_at_rank[result.ranks], np.int32)

    def _ids(self, history: Sequence[ItemId | int]) -> list[ItemId]:
        if isinstance(history, str):
            raise RequestError(f"expected a list of item ids, got the single string {history!r}")
        return [str(item_id) for item_id in history]

    def _recommendation(
        self,
        ids: list[ItemId],
        rows: Int32Array,
        result: SearchResult,
        k: int,
        normalize: Normalize,
        beam: int,
        best_first: bool,
        is_share: bool,
    ) -> Recommendation:
        catalog = self.index.catalog
        items = tuple(
            RecommendedItem(
                item_id=catalog.item_ids[row],
                title=catalog.titles[row],
                rank=place + 1,
                score=float(score),
                probability=float(np.exp(score)) if is_share else None,
            )
            for place, (row, score) in enumerate(
                zip(self.rows_of(result).tolist(), result.scores.tolist(), strict=True)
            )
        )
        notes = []
        if not (rows >= 0).any():
            notes.append(
                "no known item in the history: this is what the model recommends to a new user"
                if ids
                else "empty history: this is what the model recommends to a new user"
            )
        if len(items) < k:
            notes.append(
                f"{len(items)} of {k} items: no others pass the request's filters, lists and seen items"
            )
        if best_first and result.certified < len(items):
            notes.append(
                f"the budget ended after {result.expansions} expansions: {result.certified} of {len(items)} "
                f"items are proven to be in their place"
            )
        unknown = tuple(dict.fromkeys(one for one, row in zip(ids, rows.tolist(), strict=True) if row < 0))
        return Recommendation(
            items,
            result.certified,
            unknown,
            tuple(notes),
            normalize,
            beam,
            result.expansions,
            result.model_calls,
        )


def _sample_seed(seed: int, rows: IntArray) -> int:
    """A seed of its own for every history, so that one seed does not bind a batch's draws together."""
    digest = hashlib.blake2b(np.asarray(rows, "<i8").tobytes(), digest_size=8, person=b"sample")
    digest.update(str(seed).encode())
    return int.from_bytes(digest.digest(), "little")
