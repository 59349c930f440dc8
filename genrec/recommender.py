"""Recommender: a decoder walking an index. The one object most users need.

The story of a request: ids become rows, rows become a prompt, the search walks the trie, ranks become items. In
query mode the model writes queries instead, and what they find become items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from genrec.bundle import Bundle, DecoderName, load_bundle
from genrec.decoders.base import Decoder
from genrec.mode_requests import Found, requests_of, run_mode
from genrec.modes import AnyMode, QueryMode, TrieMode, codes_mode, modes_of
from genrec.prior import CANDIDATES, Prior, PriorKind
from genrec.queries import QueryRequest, QueryResult
from genrec.recommendation import Recommendation, RecommendedItem, items_of, notes_on
from genrec.search import Diversity, Normalize, SearchRequest, Synchronize
from genrec.tasks import Mode, QueryConstraint, TaskDefaults
from genrec.wishes import PriorName, Wishes, resolve
from index.errors import RequestError
from index.filter_expression import Where
from index.item_index import SEMANTIC_ID, ItemIndex
from index.types import FloatArray, Int32Array, IntArray, ItemId

__all__ = ["Recommendation", "RecommendedItem", "Recommender"]

_USUAL = Wishes()


class Recommender:
    """Recommends items of one index with one decoder.

    Example::

        recommender = Recommender.load("runs/beauty")
        for item in recommender.recommend(["1", "2", "3"], k=5).items:
            print(item.rank, item.title, item.probability)
    """

    def __init__(
        self,
        index: ItemIndex,
        decoder: Decoder | None = None,
        defaults: TaskDefaults | None = None,
        *,
        modes: Mapping[str, AnyMode] | None = None,
    ) -> None:
        """Put one together; :meth:`load` does it for a bundle.

        Args:
            index: the items.
            decoder: a model that writes semantic IDs, for the mode ``semantic_id`` alone.
            defaults: how it is asked.
            modes: what answers instead, the default mode first (:mod:`genrec.modes`).

        Raises:
            RequestError: neither a decoder nor a mode, or both.
        """
        if (decoder is None) == (not modes):
            raise RequestError("expected either a decoder or modes, got both or neither")
        self.index = index
        self.modes: dict[str, AnyMode] = dict(modes or {})
        if decoder is not None:
            self.modes[SEMANTIC_ID] = codes_mode(index, decoder, defaults)

    @classmethod
    def load(
        cls,
        path: Path | str,
        decoder: DecoderName = "auto",
        *,
        verify: bool = False,
        threads: int = 1,
        modes: Sequence[str] | None = None,
    ) -> Recommender:
        """Open a bundle that ``genrec train`` wrote.

        Args:
            path: the bundle's directory.
            decoder: what runs the model: ``"onnx"`` its export, ``"onnx-int8"`` the quantised one, ``"torch"``,
                or ``"auto"``: the export where there is one and onnxruntime is installed, else torch.
            verify: compare every file's hash first (sizes are always compared).
            threads: CPU threads of an export.
            modes: which of the bundle's to load; all where not given.

        Raises:
            IndexFormatError: the directory is no bundle, is damaged, or is too new.
            MissingDependencyError: neither onnxruntime for an export nor torch is installed; says what to do.
            RequestError: an unknown decoder, or a mode that the bundle was not trained for.
        """
        return cls.of_bundle(load_bundle(Path(path), verify=verify), decoder, threads=threads, modes=modes)

    @classmethod
    def of_bundle(
        cls,
        bundle: Bundle,
        decoder: DecoderName = "auto",
        *,
        threads: int = 1,
        modes: Sequence[str] | None = None,
    ) -> Recommender:
        """:meth:`load` for a bundle that is open already."""
        decoders = bundle.decoders(decoder, tasks=modes, threads=threads)
        return cls(bundle.index, modes=modes_of(bundle, decoders))

    @property
    def default_mode(self) -> str:
        """The mode of a request that names none."""
        return next(iter(self.modes))

    @property
    def defaults(self) -> TaskDefaults:
        """How the default mode is asked."""
        return self.modes[self.default_mode].defaults

    @property
    def decoder(self) -> Decoder:
        """The decoder of the default mode.

        Raises:
            RequestError: the default mode searches no trie.
        """
        return self.trie_mode(_USUAL).decoder

    def mode_of(self, wishes: Wishes) -> AnyMode:
        """What answers a request.

        Raises:
            RequestError: this recommender does not have the mode asked for.
        """
        name = wishes.mode or self.default_mode
        if name not in self.modes:
            raise RequestError(
                f"expected a mode that the model was trained for ({', '.join(self.modes)}), got {name!r}"
            )
        return self.modes[name]

    def trie_mode(self, wishes: Wishes) -> TrieMode:
        """:meth:`mode_of` for a caller that searches the trie itself.

        Raises:
            RequestError: as :meth:`mode_of`, or the mode searches no trie.
        """
        mode = self.mode_of(wishes)
        if isinstance(mode, QueryMode):
            raise RequestError(
                f"expected a mode that searches a trie, got {mode.spec.name!r}, which writes queries"
            )
        return mode

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
        prior: Prior | PriorName | float | None = None,
        sample: bool = False,
        seed: int = 0,
        diversity: Diversity | None = None,
        mode: Mode | None = None,
        queries: int | None = None,
        constraint: QueryConstraint | None = None,
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
            prior: what is known of the items beside the model. The bundle's history prior where not given (other
                people's histories and the items' texts), ``"none"`` for the model alone, a number for its weight,
                or a prior of your own, which :meth:`prior` makes.
            sample: draw k items without replacement instead of ranking them, in the model's proportions
                (catalog scores). Items come in the order drawn.
            seed: of the sample. The same seed and history draw the same items.
            diversity: search in groups, ``Diversity(groups=5, strength=1.0)``, each kept away from where the
                others went. Every group gives its share of the k items; scores stay the model's.
            mode: what the model writes: ``"semantic_id"``, ``"title"`` or ``"query"``; the bundle's first mode
                where not given.
            queries: of query mode: how many are written; each finds its share of the k items.
            constraint: of query mode: ``"free"`` text, or ``"catalog_ngrams"``: only words that stand together
                in the catalog.

        Raises:
            RequestError: k or beam below 1, a history that is a single string, a mode the model was not trained
                for, an unknown field of ``max_per``, or wishes that contradict each other (the message says which).
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
            mode=mode,
            queries=queries,
            constraint=constraint,
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
            wishes: one for all histories, or one each. Those that agree in ``mode``, ``normalize`` and
                ``synchronize`` are searched together, however they differ otherwise.

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
    ) -> list[Found]:
        """The search itself: histories as catalog rows (int[P] each, oldest first), results as ranks or rows.

        ``wishes`` and errors are those of :meth:`recommend_batch`.
        """
        each = _one_each(wishes, len(histories))
        requests = self._requests(histories, each)
        groups: dict[tuple[str, Normalize, Synchronize], list[int]] = {}
        for place, one in enumerate(each):
            mode = self.mode_of(one)
            group = (mode.spec.name, one.normalize or mode.defaults.normalize, one.synchronize)
            groups.setdefault(group, []).append(place)
        results: dict[int, Found] = {}
        for (name, normalize, synchronize), places in groups.items():
            found = run_mode(self.modes[name], [requests[place] for place in places], normalize, synchronize)
            results.update(zip(places, found, strict=True))
        return [results[place] for place in range(len(each))]

    def requests(
        self, histories: Sequence[IntArray], wishes: Wishes | Sequence[Wishes] = _USUAL
    ) -> list[SearchRequest]:
        """What the search of a trie is given: for whoever runs it themselves, :meth:`search_rows` otherwise.

        Args:
            histories: B of them as catalog rows, int[P] each, oldest first; :meth:`history_rows` makes one.
            wishes: one for all, or one each. ``mode``, ``normalize`` and ``synchronize`` are checked here and
                are the caller's to pass on: requests of one search share them.

        Raises:
            RequestError: wishes that make no sense or contradict each other, a mode without a trie, or not one
                for all or one each.
            FilterError: ``where`` is no filter over this catalog.
        """
        each = _one_each(wishes, len(histories))
        for one in each:
            self.trie_mode(one)
        return [one for one in self._requests(histories, each) if isinstance(one, SearchRequest)]

    def recommendation(
        self, history: Sequence[ItemId | int], wishes: Wishes, result: Found
    ) -> Recommendation:
        """The answer to one history: what the search found for it, as items, with what a user should know."""
        mode = self.mode_of(wishes)
        resolved = resolve(wishes, mode.defaults)
        assert resolved.normalize is not None
        assert resolved.beam is not None
        ids = _ids(history)
        rows = self.index.catalog.rows_of(ids).tolist()
        unknown = tuple(dict.fromkeys(one for one, row in zip(ids, rows, strict=True) if row < 0))
        return Recommendation(
            items=items_of(self.index.catalog, mode, self.rows_of(result, wishes), resolved, result),
            certified=0 if isinstance(result, QueryResult) else result.certified,
            unknown_ids=unknown,
            notes=notes_on(bool(ids), any(row >= 0 for row in rows), resolved, result),
            normalize=resolved.normalize,
            beam=resolved.beam,
            expansions=result.expansions,
            model_calls=result.model_calls,
            mode=cast(Mode, mode.spec.name),
            queries=result.queries if isinstance(result, QueryResult) else (),
        )

    def history_rows(self, history: Sequence[ItemId | int]) -> Int32Array:
        """int32[P]: catalog rows of a history; ids that are not in the catalog are left out.

        Raises:
            RequestError: the history is a single string.
        """
        rows = self.index.catalog.rows_of(_ids(history))
        return np.asarray(rows[rows >= 0], np.int32)

    def rows_of(self, result: Found, wishes: Wishes = _USUAL) -> Int32Array:
        """int32[k]: catalog rows of a result of a search with these wishes."""
        if isinstance(result, QueryResult):
            return result.rows
        return np.asarray(self.trie_mode(wishes).trie.item_at_rank[result.ranks], np.int32)

    def _requests(
        self, histories: Sequence[IntArray], each: Sequence[Wishes]
    ) -> list[SearchRequest | QueryRequest]:
        return requests_of(self.index, [self.mode_of(one) for one in each], histories, each)


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
