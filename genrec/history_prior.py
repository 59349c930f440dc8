"""History prior: what other people's histories and the items' texts say of the item that comes next.

A history's score of an item is Σ over its last events of recency^age · rate(event, item), plus text_weight and
word_weight times the recency-weighted mean cosine of their text vectors and of their words
(:mod:`genrec.item_words`); the rates are those of :mod:`genrec.evaluation.cooccurrence`, a strong training-free
baseline. The best :data:`SUPPORT` scores to the power of ``power`` become shares that sum to one, which the search
mixes with the model's probabilities (:mod:`genrec.blend`).

Per item only the best :data:`FOLLOWERS` rates and the :data:`NEIGHBOURS` nearest texts are kept, so that a request
costs the same in a catalog of thousands and of millions: its items' lists are looked up, and what stands in them
(about five hundred items) is scored exactly. It knows histories as catalog rows; no model, no trie, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from genrec.blend import Blend
from genrec.item_words import ItemWords
from index.artifact import load_array
from index.errors import IndexFormatError
from index.trie import TokenTrie, ragged_positions
from index.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, IntArray

FOLLOWERS = (
    100  # per item; half as many cost Amazon Beauty 1 % of validation NDCG@10, twice as many give nothing
)
NEIGHBOURS = 50  # per item; twenty cost 1 %
LAST_EVENTS = 20  # of a history that followers are looked up of; the rates' own window
LAST_TEXTS = 5  # of a history whose neighbours are looked up; all LAST_EVENTS speak in the cosine
SUPPORT = 300  # items with a share

FOLLOW_OFFSETS, FOLLOW_ROWS, FOLLOW_RATES = "follow_offsets", "follow_rows", "follow_rates"
NEAR_OFFSETS, NEAR_ROWS = "near_offsets", "near_rows"
WORD_OFFSETS, WORD_NUMBERS, WORD_WEIGHTS = "word_offsets", "word_numbers", "word_weights"
DIRECTORY = "history_prior"
"""Directory of a bundle's files, and key of its manifest."""


@dataclass(frozen=True, slots=True)
class PriorSettings:
    """How scores are made of lists; chosen on validation when a bundle is trained."""

    recency: float = 0.5
    """What an event's say is multiplied by for each event after it."""
    text_weight: float = 0.1
    """Of the cosine of text vectors against the rates."""
    power: float = 4.0
    """Makes shares of scores: a higher one trusts the best more."""
    word_weight: float = 0.1
    """Of the cosine of words against the rates."""
    unseen_boost: float = 2.0
    """What texts and words say is multiplied by this for an item that nothing is known to follow, such as a new one.
    It has texts alone to speak for it, where others have rates as well, and would hardly ever be shown; and what is
    never shown is never learned of."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PriorSettings:
        """Read a manifest's values.

        Raises:
            IndexFormatError: an unknown key, or a value that is not finite or out of range.
        """
        try:
            # A bundle from before there were words, or a boost, says nothing of them and was chosen without.
            before = {"word_weight": 0.0, "unseen_boost": 1.0}
            settings = cls(**{name: float(value) for name, value in {**before, **values}.items()})
        except (TypeError, ValueError) as error:
            names = sorted(cls.__dataclass_fields__)
            raise IndexFormatError(
                f"expected prior settings {names} as numbers, got {dict(values)}"
            ) from error
        least = min(settings.text_weight, settings.word_weight, settings.unseen_boost)
        are_numbers = all(map(math.isfinite, astuple(settings)))  # JSON as Python reads it has inf and nan
        if not (are_numbers and 0 <= settings.recency <= 1 and least >= 0 and settings.power > 0):
            raise IndexFormatError(
                "expected 0 <= recency <= 1, text_weight, word_weight and unseen_boost >= 0 and power > 0, all "
                f"finite, got {dict(values)}; train again"
            )
        return settings


@dataclass(frozen=True, eq=False)
class NeighbourLists:
    """Per item of a catalog the items that follow it in histories, and those whose text is like its own."""

    follow_offsets: Int64Array  # [N + 1]
    follow_rows: Int32Array  # [F] catalog rows; item i's are at follow_offsets[i] .. follow_offsets[i + 1]
    follow_rates: Float32Array  # [F] > 0
    near_offsets: Int64Array  # [N + 1]
    near_rows: Int32Array  # [M] catalog rows, never the item itself

    def __len__(self) -> int:
        return len(self.follow_offsets) - 1

    def arrays(self) -> dict[str, IntArray | Float32Array]:
        """By the names of files."""
        return {
            FOLLOW_OFFSETS: self.follow_offsets,
            FOLLOW_ROWS: self.follow_rows,
            FOLLOW_RATES: self.follow_rates,
            NEAR_OFFSETS: self.near_offsets,
            NEAR_ROWS: self.near_rows,
        }


@dataclass(frozen=True, eq=False)
class ItemShares:
    """A distribution over items, for one history."""

    rows: Int64Array  # [S] catalog rows, in any order
    shares: Float64Array  # [S] above 0, sum 1; both empty where nothing is known of the history

    def over(self, trie: TokenTrie, weight: float) -> Blend | None:
        """As what a search mixes in; None where there is nothing to mix."""
        if not len(self.rows) or not weight:
            return None
        ranks = np.asarray(trie.rank_of_item[self.rows], np.int64)
        order = np.argsort(ranks)
        return Blend(ranks[order], self.shares[order], weight)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one history says of the items that stand in its lists, those of the history left out."""

    rows: Int64Array  # [C] catalog rows
    rates: Float64Array  # [C] Σ recency^age · rate
    cosines: Float32Array  # [C] with the recency-weighted mean of the history's texts
    word_cosines: Float32Array  # [C] the same of words


_NOTHING = ItemShares(np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True, eq=False)
class HistoryPrior:
    """The lists of a catalog, ready to be asked.

    Args:
        lists: of N items.
        text: float32[N, D], rows of length 1 (or 0: an item without text); may be memory-mapped.
        settings: how scores are made.
        words: of the N items; None where nobody has counted them (bundles from before): they say nothing then.
    """

    lists: NeighbourLists
    text: Float32Array
    settings: PriorSettings = PriorSettings()
    words: ItemWords | None = None

    def __post_init__(self) -> None:
        words = self.text if self.words is None else self.words
        for what, count in (("lists", len(self.lists)), ("words", len(words))):
            if count != len(self.text):
                raise IndexFormatError(
                    f"expected {what} of the {len(self.text)} items of the index, got {count}; train again"
                )

    def shares(self, histories: Sequence[IntArray]) -> list[ItemShares]:
        """What comes next after each of B histories, int[P] catalog rows, oldest first.

        Items of a history have no share: that somebody comes back to one is the model's to say. A share does not
        depend on what a request may get.
        """
        return [self.shares_of(one) for one in self.evidence(histories)]

    def evidence(self, histories: Sequence[IntArray]) -> list[Evidence]:
        """What B histories say of items, before ``text_weight`` and ``power`` make shares of it."""
        if not histories:
            return []
        events = _last_events(histories, LAST_EVENTS)
        found = self._candidates(events)
        bounds = np.searchsorted(found.case, np.arange(len(histories) + 1)).tolist()
        profiles = self._profiles(events, len(histories))
        result = []
        for case, (begin, end) in enumerate(pairwise(bounds)):
            rows, rates = found.row[begin:end], found.rate[begin:end]
            new = ~np.isin(rows, histories[case])
            rows, rates = rows[new], rates[new]
            own = slice(*np.searchsorted(events.case, (case, case + 1)))
            in_words = self._word_cosines(events.row[own], events.age[own], rows)
            result.append(Evidence(rows, rates, self.text[rows] @ profiles[case], in_words))
        return result

    def shares_of(self, evidence: Evidence) -> ItemShares:
        """A distribution over the items that speak for themselves best."""
        said = (
            self.settings.text_weight * evidence.cosines + self.settings.word_weight * evidence.word_cosines
        )
        score = evidence.rates + said * np.where(self.unseen(evidence.rows), self.settings.unseen_boost, 1.0)
        may = np.flatnonzero(score > 0)
        if not len(may):
            return _NOTHING
        if len(may) > SUPPORT:
            may = may[np.argpartition(-score[may], SUPPORT)[:SUPPORT]]
        share = (score[may] / score[may].max()) ** self.settings.power
        kept = share > 0  # a high power leaves nothing of a small score
        return ItemShares(evidence.rows[may[kept]], share[kept] / share[kept].sum())

    def unseen(self, rows: IntArray) -> BoolArray:
        """bool[n]: whether nothing is known to follow each of the catalog rows int[n]."""
        offsets = self.lists.follow_offsets
        nothing: BoolArray = offsets[rows] == offsets[np.asarray(rows) + 1]
        return nothing

    def reason(self, history: IntArray, row: int) -> int | None:
        """The event of a history (its catalog row) that says most for an item; None where none says anything."""
        last = np.asarray(history, np.int64)[-LAST_EVENTS:]
        if not len(last):
            return None
        weight = self.settings.recency ** np.arange(len(last) - 1, -1, -1.0)
        said = self.settings.text_weight * (self.text[last] @ self.text[row]).astype(np.float64)
        if self.words is not None:
            profile = self.words.profile(np.array([row]), np.ones(1, np.float32))
            said += self.settings.word_weight * self.words.products(profile, last)
        said *= (self.settings.unseen_boost if self.unseen(np.array([row]))[0] else 1.0) / weight.sum()
        for place, item in enumerate(last.tolist()):
            own = slice(*self.lists.follow_offsets[item : item + 2].tolist())
            said[place] += self.lists.follow_rates[own][self.lists.follow_rows[own] == row].sum()
        said *= weight
        best = int(np.argmax(said))
        return int(last[best]) if said[best] > 0 else None

    def _candidates(self, events: _Events) -> _Candidates:
        """All items in the lists of the histories' last events, with the rates' part of their scores."""
        lists = self.lists
        weight = self.settings.recency**events.age
        begin = lists.follow_offsets[events.row]
        count = lists.follow_offsets[events.row + 1] - begin
        followers = ragged_positions(begin, count)
        rates = lists.follow_rates[followers] * np.repeat(weight, count)
        recent = events.age < LAST_TEXTS
        begin = lists.near_offsets[events.row[recent]]
        near_count = lists.near_offsets[events.row[recent] + 1] - begin
        near = ragged_positions(begin, near_count)
        case = np.concatenate([np.repeat(events.case, count), np.repeat(events.case[recent], near_count)])
        row = np.concatenate([lists.follow_rows[followers], lists.near_rows[near]]).astype(np.int64)
        key, which = np.unique(case * len(lists) + row, return_inverse=True)
        rate = np.bincount(which[: len(rates)], weights=rates, minlength=len(key)).astype(np.float64)
        return _Candidates(key // len(lists), key % len(lists), rate)

    def _profiles(self, events: _Events, cases: int) -> Float32Array:
        """float32[B, D]: the weighted mean of the texts of each history's last events."""
        weight = (self.settings.recency**events.age).astype(np.float32)
        profiles = np.zeros((cases, self.text.shape[1]), np.float32)
        total = np.bincount(events.case, weights=weight, minlength=cases)
        np.add.at(profiles, events.case, self.text[events.row] * weight[:, None])
        return profiles / np.maximum(total, 1e-30).astype(np.float32)[:, None]

    def _word_cosines(self, events: Int64Array, age: Int64Array, rows: Int64Array) -> Float32Array:
        """float32[C]: rows' words with the weighted mean of the words of one history's last events."""
        if self.words is None or not len(events):
            return np.zeros(len(rows), np.float32)
        weight = (self.settings.recency**age).astype(np.float32)
        return self.words.products(self.words.profile(events, weight / weight.sum()), rows)

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of it beside its files."""
        return asdict(self.settings)

    def save_files(self, files: Path) -> None:
        """Write its directory into a bundle's files; the texts are the index's."""
        (files / DIRECTORY).mkdir()
        arrays: dict[str, IntArray | Float32Array] = self.lists.arrays()
        if self.words is not None:
            arrays |= {WORD_OFFSETS: self.words.offsets, WORD_NUMBERS: self.words.words}
            arrays |= {WORD_WEIGHTS: self.words.weights}
        for name, array in arrays.items():
            np.save(files / DIRECTORY / f"{name}.npy", array, allow_pickle=False)


@dataclass(frozen=True, slots=True)
class _Events:
    """The last events of B histories."""

    case: Int64Array  # [E] non-decreasing
    row: Int64Array  # [E]
    age: Int64Array  # [E] 0 is the newest


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Items that may have a share, each once per history."""

    case: Int64Array  # [C] non-decreasing
    row: Int64Array  # [C]
    rate: Float64Array  # [C] the rates' part of the score


def load_history_prior(files: Path, settings: Mapping[str, Any], text: Float32Array) -> HistoryPrior:
    """Read what :meth:`HistoryPrior.save_files` wrote; arrays stay memory-mapped.

    Raises:
        IndexFormatError: a file is missing or damaged, or it is of another catalog.
    """
    directory = files / DIRECTORY
    names = (FOLLOW_OFFSETS, FOLLOW_ROWS, FOLLOW_RATES, NEAR_OFFSETS, NEAR_ROWS)
    offsets, rows, rates, near_offsets, near = (load_array(directory, name) for name in names)
    for begin, content in ((offsets, rows), (offsets, rates), (near_offsets, near)):
        if len(begin) != len(text) + 1 or int(begin[-1]) != len(content):
            raise IndexFormatError(
                f"expected lists of {len(text)} items in {directory}, got {len(begin) - 1} with {len(content)} "
                "entries; restore the bundle or train it again"
            )
    lists = NeighbourLists(
        np.asarray(offsets, np.int64),
        np.asarray(rows, np.int32),
        np.asarray(rates, np.float32),
        np.asarray(near_offsets, np.int64),
        np.asarray(near, np.int32),
    )
    return HistoryPrior(lists, text, PriorSettings.from_dict(settings), _words(directory))


def _words(directory: Path) -> ItemWords | None:
    if not (directory / f"{WORD_OFFSETS}.npy").is_file():
        return None
    offsets, numbers, weights = (
        load_array(directory, name) for name in (WORD_OFFSETS, WORD_NUMBERS, WORD_WEIGHTS)
    )
    if not len(offsets) or int(offsets[-1]) != len(numbers) or len(numbers) != len(weights):
        raise IndexFormatError(
            f"expected offsets, numbers and weights of words in {directory} that fit together, got others; "
            "restore the bundle or train it again"
        )
    return ItemWords(
        np.asarray(offsets, np.int64), np.asarray(numbers, np.int32), np.asarray(weights, np.float32)
    )


def _last_events(histories: Sequence[IntArray], most: int) -> _Events:
    cut = [np.asarray(one, np.int64)[-most:] for one in histories]
    lengths = [len(one) for one in cut]
    ages = [np.arange(length - 1, -1, -1) for length in lengths]
    return _Events(np.repeat(np.arange(len(cut)), lengths), np.concatenate(cut), np.concatenate(ages))
