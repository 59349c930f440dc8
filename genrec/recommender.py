"""Recommender: a decoder walking an index. The one object most users need.

The story of a request: ids become rows, rows become a prompt, the search walks the trie, ranks become items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genrec.bundle import DecoderName, load_bundle
from genrec.cap_rules import CapRules
from genrec.decoders.base import Decoder, Items
from genrec.prior import CANDIDATES, Prior, PriorKind
from genrec.search import Diversity, Normalize, SearchRequest, SearchResult, Synchronize, search
from genrec.tasks import TaskDefaults
from genrec.wishes import Wishes, resolve, scores_are_shares
from index.counted import counted
from index.errors import RequestError
from index.filter_expression import Where
from index.item_filter import Allowed
from index.item_index import ItemIndex
from index.types import FloatArray, Int32Array, Int64Array, IntArray, ItemId

_USUAL = Wishes()


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
        self._cap_rules = CapRules(index.catalog, index.trie)

    @classmethod
    def load(
        cls, path: Path | str, decoder: DecoderName = "auto", *, verify: bool = False, threads: int = 1
    ) -> Recommender:
        """Open a bundle that ``genrec train`` wrote.

        Args:
            path: the bundle's directory.
            decoder: what runs the model: ``"onnx"`` its export, ``"onnx-int8"`` the quantised one, ``"torch"``,
                or ``"auto"``: the export where there is one and onnxruntime is installed, else torch.
            verify: compare every file's hash first (sizes are always compared).
            threads: CPU threads of an export.

        Raises:
            IndexFormatError: the directory is no bundle, is damaged, or is too new.
            MissingDependencyError: neither onnxruntime for an export nor torch is installed; says what to do.
            RequestError: an unknown decoder.
        """
        bundle = load_bundle(Path(path), verify=verify)
        return cls(bundle.index, bundle.decoder(decoder, threads=threads), bundle.tasks["semantic_id"])

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
        diversity: Diversity | None = None,
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
            diversity: search in groups, ``Diversity(groups=5, strength=1.0)``, each kept away from where the
                others went. Every group gives its share of the k items; scores stay the model's.

        Raises:
            RequestError: k or beam below 1, a history that is a single string, an unknown mode or field of
                ``max_per``, or wishes that contradict each other (the message says which).
            FilterError: ``where`` is no filter over this catalog.
        """
        wishes = Wishes(
            k=k,
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
            diversity=diversity,
        )
        return self.recommend_batch([history], wishes)[0]

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
        wishes: Wishes | Sequence[Wishes] = _USUAL,
    ) -> list[Recommendation]:
        """:meth:`recommend` for many histories together; each answer is that of its own call.

        Args:
            histories: B of them, as for :meth:`recommend`.
            wishes: one for all histories, or one each. Those that agree in ``normalize`` and ``synchronize``
                are searched together, however they differ otherwise.

        Raises:
            RequestError, FilterError: as :meth:`recommend`, before anything is searched; or there are as many
                wishes as histories neither once nor each.
        """
        each = _one_each(wishes, len(histories))
        results = self.search_rows([self.history_rows(one) for one in histories], each)
        return [
            self.recommendation(history, one, result)
            for history, one, result in zip(histories, each, results, strict=True)
        ]

    def search_rows(
        self, histories: Sequence[IntArray], wishes: Wishes | Sequence[Wishes] = _USUAL
    ) -> list[SearchResult]:
        """The search itself: histories as catalog rows (int[P] each, oldest first), results as trie ranks.

        ``wishes`` and errors are those of :meth:`recommend_batch`.
        """
        each = _one_each(wishes, len(histories))
        requests = self.requests(histories, each)
        groups: dict[tuple[Normalize, Synchronize], list[int]] = {}
        for place, one in enumerate(each):
            groups.setdefault((one.normalize or self.defaults.normalize, one.synchronize), []).append(place)
        results: dict[int, SearchResult] = {}
        for (normalize, synchronize), places in groups.items():
            found = search(
                self.decoder,
                self.index.trie,
                [requests[place] for place in places],
                normalize=normalize,
                synchronize=synchronize,
            )
            results.update(zip(places, found, strict=True))
        return [results[place] for place in range(len(each))]

    def requests(
        self, histories: Sequence[IntArray], wishes: Wishes | Sequence[Wishes] = _USUAL
    ) -> list[SearchRequest]:
        """What the search is given: for whoever runs it themselves, :meth:`search_rows` otherwise.

        Args:
            histories: B of them as catalog rows, int[P] each, oldest first; :meth:`history_rows` makes one.
            wishes: one for all, or one each. ``normalize`` and ``synchronize`` are checked here and are the
                caller's to pass on: requests of one search share them.

        Raises:
            RequestError: wishes that make no sense or contradict each other, or not one for all or one each.
            FilterError: ``where`` is no filter over this catalog.
        """
        shared: dict[int, SearchRequest] = {}  # by wish: all that does not depend on the history, made once
        requests = []
        for rows, one in zip(histories, _one_each(wishes, len(histories)), strict=True):
            if id(one) not in shared:
                shared[id(one)] = self._shared_request(one)
            requests.append(self._request(np.asarray(rows, np.int64), one, shared[id(one)]))
        return requests

    def recommendation(
        self, history: Sequence[ItemId | int], wishes: Wishes, result: SearchResult
    ) -> Recommendation:
        """The answer to one history: what the search found for it, as items, with what a user should know."""
        resolved = resolve(wishes, self.defaults)
        assert resolved.normalize is not None
        assert resolved.beam is not None
        catalog, is_share = self.index.catalog, scores_are_shares(resolved)
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
        ids = _ids(history)
        rows = catalog.rows_of(ids).tolist()
        unknown = tuple(dict.fromkeys(one for one, row in zip(ids, rows, strict=True) if row < 0))
        return Recommendation(
            items=items,
            certified=result.certified,
            unknown_ids=unknown,
            notes=_notes(bool(ids), any(row >= 0 for row in rows), resolved, result),
            normalize=resolved.normalize,
            beam=resolved.beam,
            expansions=result.expansions,
            model_calls=result.model_calls,
        )

    def history_rows(self, history: Sequence[ItemId | int]) -> Int32Array:
        """int32[P]: catalog rows of a history; ids that are not in the catalog are left out.

        Raises:
            RequestError: the history is a single string.
        """
        rows = self.index.catalog.rows_of(_ids(history))
        return np.asarray(rows[rows >= 0], np.int32)

    def rows_of(self, result: SearchResult) -> Int32Array:
        """int32[k]: catalog rows of a search result."""
        return np.asarray(self.index.trie.item_at_rank[result.ranks], np.int32)

    def _shared_request(self, wishes: Wishes) -> SearchRequest:
        """A request without a history."""
        resolved = resolve(wishes, self.defaults)
        assert resolved.beam is not None
        banned = self.index.catalog.rows_of([str(one) for one in resolved.exclude])
        return SearchRequest(
            prompt=(),
            k=resolved.k,
            beam=resolved.beam,
            allowed=self.index.rules.allowed(resolved.where, resolved.include, banned[banned >= 0]),
            exact=resolved.exact,
            max_expansions=resolved.max_expansions,
            prior=resolved.prior,
            caps=self._cap_rules.caps(resolved.max_per or {}),
            diversity=resolved.diversity,
        )

    def _request(self, rows: Int64Array, wishes: Wishes, shared: SearchRequest) -> SearchRequest:
        allowed = shared.allowed
        if wishes.exclude_seen:
            seen = np.asarray(self.index.trie.rank_of_item[rows], np.int64)
            allowed = Allowed.from_bitmap(allowed.bitmap, np.concatenate([allowed.excluded, seen]))
        seed = _sample_seed(wishes.seed, rows) if wishes.sample else None
        return replace(shared, prompt=(Items(rows),), allowed=allowed, sample_seed=seed)


def _ids(history: Sequence[ItemId | int]) -> list[ItemId]:
    if isinstance(history, str):
        raise RequestError(f"expected a list of item ids, got the single string {history!r}")
    return [str(item_id) for item_id in history]


def _one_each(wishes: Wishes | Sequence[Wishes], histories: int) -> Sequence[Wishes]:
    if isinstance(wishes, Wishes):
        return [wishes] * histories
    if len(wishes) != histories:
        raise RequestError(f"expected one Wishes for all or one per history, {histories}, got {len(wishes)}")
    return wishes


def _notes(has_history: bool, knows_an_item: bool, resolved: Wishes, result: SearchResult) -> tuple[str, ...]:
    """What a user should know about an answer."""
    notes, found = [], len(result.ranks)
    if not knows_an_item:
        notes.append(
            "no known item in the history: this is what the model recommends to a new user"
            if has_history
            else "empty history: this is what the model recommends to a new user"
        )
    if found < resolved.k:
        notes.append(
            f"{found} of {counted(resolved.k, 'item')}: no others pass the request's filters, lists and seen items"
        )
    if (resolved.exact or resolved.sample) and result.certified < found:
        notes.append(
            f"the budget ended after {counted(result.expansions, 'expansion')}: {result.certified} of "
            f"{counted(found, 'item')} proven to be in place"
        )
    return tuple(notes)


def _sample_seed(seed: int, rows: IntArray) -> int:
    """A seed of its own for every history, so that one seed does not bind a batch's draws together."""
    digest = hashlib.blake2b(np.asarray(rows, "<i8").tobytes(), digest_size=8, person=b"sample")
    digest.update(str(seed).encode())
    return int.from_bytes(digest.digest(), "little")
