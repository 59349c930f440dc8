"""Fit the history prior of a bundle on training events, and choose on validation how much it says.

Selection is cheap: the model scores a few hundred items per validation case once (its own best and the prior's best
under every way of scoring), and all ways of mixing are compared on these numbers. It never reads a test event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import sparse

from genrec.blend import AHEAD
from genrec.evaluation.cooccurrence import Cooccurrence
from genrec.evaluation.ranking import BATCH, Told, batches
from genrec.history_prior import (
    FOLLOWERS,
    NEIGHBOURS,
    HistoryPrior,
    ItemShares,
    NeighbourLists,
    PriorSettings,
)
from genrec.item_words import ItemWords
from genrec.recommender import Recommender
from genrec.search import score_items, search
from genrec.text_neighbours import offsets_of, text_neighbours
from genrec.wishes import Wishes
from index.histories import Cases, Histories
from index.item_index import ItemIndex
from index.types import Float32Array, Float64Array, Int32Array, Int64Array

RECENCIES = (0.5, 0.8)
TEXT_WEIGHTS = (
    (0.0, 0.0),
    (0.1, 0.0),
    (0.3, 0.0),
    (0.0, 0.1),
    (0.0, 0.2),
    (0.0, 0.3),
    (0.1, 0.1),
    (0.1, 0.2),
)
"""Of text vectors and of words. On Amazon Beauty (validation, 4,000 users, all items scored) co-occurrence alone
gives Recall@10 .1008 and NDCG@10 .0640, with .3 of text vectors .1175/.0749, with .2 of words .1288/.0797, with .1
of each .1275/.0784."""
POWERS = (1.0, 2.0, 4.0)
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
PRIOR_USERS = 10_000
"""Validation cases that a prior is chosen on, at most: of hundreds of ways luck would choose one on 2,500."""
BOOSTS = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
NEW_ITEMS_MAY_COST = 0.005
"""Of NDCG@10 on validation: of :data:`BOOSTS` that cost no more, the least of those that find most of the targets
that nothing is known to follow. Of such targets, on Amazon Beauty (51; BM25 finds 5 of them) 1 is found without a
boost, 7 with 1.5 for .14 % and 8 with 2 for .54 %; on Games (36; BM25 finds none) none, 2 with 4 for .3 %, 4 with
6 for .77 %."""
DEPTH = 10  # NDCG@10 decides


@dataclass(frozen=True, slots=True)
class ChosenPrior:
    """The best way on validation."""

    settings: PriorSettings
    weight: float  # 0: the model alone is better
    ndcg: float


def fit_history_prior(index: ItemIndex, training: Histories) -> HistoryPrior:
    """The prior of an index, with settings that do well on Amazon Beauty and on MovieLens-1M.

    Args:
        index: its item texts, by which it finds what no history has.
        training: training events only.
    """
    text = np.asarray(index.vectors.text)
    follow_offsets, follow_rows, follow_rates = _best_of_rows(
        Cooccurrence(training, len(index.catalog)).rates, FOLLOWERS
    )
    words = ItemWords.of_texts(index.catalog.texts())
    near_offsets, near_rows = text_neighbours(text, NEIGHBOURS, words)
    lists = NeighbourLists(follow_offsets, follow_rows, follow_rates, near_offsets, near_rows)
    return HistoryPrior(lists, text, words=words)


def choose_prior(
    recommender: Recommender,
    prior: HistoryPrior,
    cases: Cases,
    *,
    weights: Sequence[float] = WEIGHTS,
    progress: Told | None = None,
) -> ChosenPrior:
    """How the prior is best mixed with a model's codes, by NDCG@10 of the mixtures, and how unseen items are boosted.

    Args:
        recommender: the model alone, asked with its own defaults.
        prior: fitted on training events.
        cases: validation cases; at least one.
        weights: to choose among.
        progress: told how many cases are done, twice: for the mixture, and for the boost.
    """
    ways = [
        PriorSettings(recency, text, power, words, unseen_boost=1.0)
        for recency, (text, words), power in product(RECENCIES, TEXT_WEIGHTS, POWERS)
    ]
    gain = np.zeros((len(ways), len(weights)))
    tried = np.array(weights)
    for places in batches(len(cases), BATCH, progress):
        histories = [np.asarray(cases.history_of(case), np.int64) for case in places]
        shares = _shares(prior, ways, histories)
        model = _scored(recommender, histories, shares)
        for place, case in enumerate(places):
            gain += _gains(model[place], [of_way[place] for of_way in shares], int(cases.target[case]), tried)
    gain /= len(cases)
    way, weight = divmod(int(np.argmax(gain)), len(weights))
    chosen = ChosenPrior(ways[way], weights[weight], float(gain[way, weight]))
    if not chosen.weight:  # the model alone: nothing was asked of a boost
        return replace(chosen, settings=replace(chosen.settings, unseen_boost=PriorSettings().unseen_boost))
    return _boosted(recommender, prior, cases, chosen, progress)


def _boosted(
    recommender: Recommender, prior: HistoryPrior, cases: Cases, chosen: ChosenPrior, progress: Told | None
) -> ChosenPrior:
    """With the boost of unseen items that finds most of those that came next, for what it may cost all cases.

    Where no boost finds more, and where no such item came next at all, it is the usual one, or the largest below that
    may be paid for. What items are unseen later, and how many, validation cannot say.
    """
    usual = PriorSettings().unseen_boost
    boosts = np.array([1.0, *BOOSTS])
    ways = [replace(chosen.settings, unseen_boost=float(boost)) for boost in boosts]
    plain = replace(prior, settings=chosen.settings)
    gain, found = np.zeros(len(ways)), np.zeros(len(ways))
    for places in batches(len(cases), BATCH, progress):
        histories = [np.asarray(cases.history_of(case), np.int64) for case in places]
        evidence = plain.evidence(histories)
        touched = [place for place, one in enumerate(evidence) if plain.unseen(one.rows).any()]
        if not touched:
            continue  # no boost changes anything
        shares = [
            [replace(prior, settings=way).shares_of(evidence[place]) for place in touched] for way in ways
        ]
        model = _scored(recommender, [histories[place] for place in touched], shares)
        for nth, place in enumerate(touched):
            target = int(cases.target[places[place]])
            gains = _gains(model[nth], [one[nth] for one in shares], target, np.array([chosen.weight]))[:, 0]
            gain += gains
            found += (gains > 0) & plain.unseen(np.array([target]))[0]
    ndcg = chosen.ndcg + (gain - gain[0]) / len(cases)
    found[ndcg < (1.0 - NEW_ITEMS_MAY_COST) * chosen.ndcg] = -1.0
    if found.max() > found[0]:
        best = int(np.argmax(found))
    else:
        best = int(np.flatnonzero((found >= 0) & (boosts <= usual))[-1])
    return ChosenPrior(ways[best], chosen.weight, float(ndcg[best]))


def _shares(
    prior: HistoryPrior, ways: Sequence[PriorSettings], histories: Sequence[Int64Array]
) -> list[list[ItemShares]]:
    """By way and history. What histories say depends on the recency alone, and is most of the work."""
    evidence = {
        recency: replace(prior, settings=PriorSettings(recency)).evidence(histories) for recency in RECENCIES
    }
    scored = [replace(prior, settings=way) for way in ways]
    return [[way.shares_of(one) for one in evidence[way.settings.recency]] for way in scored]


@dataclass(frozen=True, slots=True)
class _Scored:
    """Items that may be among the ten best of a case, however the prior is mixed in."""

    rows: Int64Array  # [S] ascending
    probability: Float64Array  # [S] the model's


def _scored(
    recommender: Recommender, histories: Sequence[Int64Array], shares: Sequence[Sequence[ItemShares]]
) -> list[_Scored]:
    """The model's probabilities of its own best items and of the best shares of every way."""
    mode = recommender.trie_mode(Wishes())
    normalize = mode.defaults.normalize
    requests = recommender.requests(histories, Wishes(k=AHEAD, prior="none"))
    found = search(mode.decoder, mode.trie, requests, normalize=normalize)
    rows = []
    for place, result in enumerate(found):
        own = [one[place] for one in shares]
        best = [one.rows[np.argsort(-one.shares, kind="stable")[:AHEAD]] for one in own]
        rows.append(np.unique(np.concatenate([mode.trie.item_at_rank[result.ranks], *best])).astype(np.int64))
    ranks = [mode.trie.rank_of_item[one] for one in rows]
    scores = score_items(mode.decoder, mode.trie, requests, ranks, normalize=normalize)
    return [_Scored(one, np.exp(score)) for one, score in zip(rows, scores, strict=True)]


def _gains(model: _Scored, shares: Sequence[ItemShares], target: int, weights: Float64Array) -> Float64Array:
    """float64[ways, weights]: 1 / log2(rank + 1) of the target, 0 behind the tenth."""
    gain = np.zeros((len(shares), len(weights)))
    at = int(np.searchsorted(model.rows, target))
    if at == len(model.rows) or model.rows[at] != target:
        return gain
    weight = weights[:, None]
    for way, one in enumerate(shares):
        share = np.zeros(len(model.rows))
        place = np.minimum(np.searchsorted(model.rows, one.rows), len(model.rows) - 1)
        known = model.rows[place] == one.rows
        share[place[known]] = one.shares[known]
        mixed = (1 - weight) * model.probability + weight * share  # [weights, S]
        rank = 1 + (mixed > mixed[:, at : at + 1]).sum(axis=1)
        gain[way] = np.where(rank <= DEPTH, 1 / np.log2(rank + 1), 0.0)
    return gain


def _best_of_rows(matrix: sparse.csr_array, most: int) -> tuple[Int64Array, Int32Array, Float32Array]:
    """The largest ``most`` values of each row as offsets, columns and values, best first; ties by column."""
    length = np.diff(matrix.indptr).astype(np.int64)
    row = np.repeat(np.arange(matrix.shape[0]), length)
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.arange(len(order)) - np.repeat(np.asarray(matrix.indptr[:-1], np.int64), length)
    kept = order[place < most]
    return (
        offsets_of(np.minimum(length, most)),
        matrix.indices[kept].astype(np.int32),
        matrix.data[kept].astype(np.float32),
    )
