"""Values: what prefixes and items are worth to their request, beyond the model's score.

Priors and sampling live here, one request at a time, so that a request without them pays nothing: its value
*is* its score. It knows ranges of ranks, no model and no trie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.blend import Blend, FirstItems
from genrec.prior import Prior, best_in_ranges
from genrec.sampling import gumbel_noise, values_below
from index.item_filter import Allowed
from index.types import BoolArray, Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class Below:
    """E prefixes or items that together split the rank ranges of the prefixes they lie below."""

    request: Int64Array  # [E] non-decreasing
    row: Int64Array  # [E] which parent; non-decreasing
    start: Int64Array  # [E] first rank
    end: Int64Array  # [E] one past the last rank
    key: Int64Array  # [E] names a prefix or item within the trie, for its noise


class Values:
    """What B requests add to the model's score.

    Args:
        priors: one per request, or None.
        seeds: one per request, or None where it asks for a ranking and not for a sample.
        allowed: what each request may get.
        items: N.
        k: what each request wants: so many items of a blend are scored ahead at least.
        blends: one per request, or None; none by default. A request has a prior or a blend.
    """

    def __init__(
        self,
        priors: Sequence[Prior | None],
        seeds: Sequence[int | None],
        allowed: Sequence[Allowed],
        items: int,
        k: Sequence[int],
        blends: Sequence[Blend | None] = (),
    ) -> None:
        active = {b: prior for b, prior in enumerate(priors) if prior is not None and prior.weight}
        self._seed = {b: seed for b, seed in enumerate(seeds) if seed is not None}
        self._mixture = {b: prior for b, prior in active.items() if prior.kind == "mixture"}
        self._bonus: dict[int, Float64Array] = {}  # [N], -inf where not allowed: bounds count what may come
        self._candidates: dict[int, Int64Array] = {}  # ranks to score beside the beam
        for b, prior in active.items():
            if prior.kind == "mixture" and not prior.candidates:
                continue
            bonus = np.where(mask_of(allowed[b], items), prior.bonus, -np.inf)
            if prior.kind == "additive":
                self._bonus[b] = bonus
            if prior.candidates and b not in self._seed:
                self._candidates[b] = _best_ranks(bonus, prior.candidates)
        self._blend = {b: blend for b, blend in enumerate(blends) if blend is not None and blend.weight}
        self._first: dict[
            int, FirstItems
        ] = {}  # of blends, but for samples: their bounds are of another kind
        for b, blend in self._blend.items():
            if b not in self._seed:
                self._first[b] = blend.first(allowed[b], max(blend.ahead, k[b]))
                self._candidates[b] = self._first[b].ranks
        self._candidates = dict(sorted(self._candidates.items()))

    @property
    def are_scores(self) -> bool:
        """No request adds anything to the scores of prefixes."""
        return not (self._seed or self._mixture or self._bonus)

    def join(self, other: Values, size: int) -> None:
        """Take in what another batch's requests add; they come behind the ``size`` requests here."""
        self._seed |= {b + size: seed for b, seed in other._seed.items()}
        self._mixture |= {b + size: prior for b, prior in other._mixture.items()}
        self._bonus |= {b + size: bonus for b, bonus in other._bonus.items()}
        self._blend |= {b + size: blend for b, blend in other._blend.items()}
        self._first |= {b + size: first for b, first in other._first.items()}

    def keep(self, requests: Int64Array) -> None:
        """Forget all requests but these (ascending), which are renumbered from 0."""
        number = {b: place for place, b in enumerate(requests.tolist())}
        self._seed = {number[b]: seed for b, seed in self._seed.items() if b in number}
        self._mixture = {number[b]: prior for b, prior in self._mixture.items() if b in number}
        self._bonus = {number[b]: bonus for b, bonus in self._bonus.items() if b in number}
        self._blend = {number[b]: blend for b, blend in self._blend.items() if b in number}
        self._first = {number[b]: first for b, first in self._first.items() if b in number}

    def candidates(self) -> tuple[Int64Array, Int64Array]:
        """Requests (non-decreasing) and ranks of the items that are scored whatever the beam finds."""
        parts = self._candidates
        request = np.repeat(np.array(list(parts), np.int64), [len(ranks) for ranks in parts.values()])
        return request, np.concatenate([*parts.values(), np.zeros(0, np.int64)])

    def root(self, requests: int) -> Float64Array:
        """float64[B]: the scores of the prompts: 0, or the model's part of a blend."""
        score = np.zeros(requests)
        for b, blend in self._blend.items():
            score[b] = blend.model_part
        return score

    def leaves_a_rest(self, requests: int) -> BoolArray:
        """bool[B]: requests that may find items with a share that has not been scored ahead."""
        result = np.zeros(requests, bool)
        result[[b for b, first in self._first.items() if first.rest > -np.inf]] = True
        return result

    def open_bound(self, b: int, bound: float) -> float:
        """The most that any item not found yet can be worth, where open prefixes are worth at most ``bound``."""
        return self._first[b].on_top(bound) if b in self._first else bound

    def open_floor(self, b: int, floor: float) -> float:
        """The least that a prefix must be worth for an item below it to reach ``floor``."""
        return self._first[b].floor_of(floor) if b in self._first else floor

    def of_root(self, score: Float64Array) -> Float64Array:
        """float64[B]: what the prompts are worth; ``score`` (zeros) itself where that is all."""
        if not self._bonus and not self._seed:
            return score
        value = score.copy()
        for b, bonus in self._bonus.items():
            value[b] = bonus.max(initial=-np.inf)
        for b, seed in self._seed.items():
            value[b] = gumbel_noise(seed, np.zeros(1, np.int64))[0]
        return value

    def mix(self, log_probability: Float64Array, below: Below) -> Float64Array:
        """float64[E]: the step's log-probabilities, mixed where a request has a mixture prior."""
        for b, prior in self._mixture.items():
            rows = slice(*np.searchsorted(below.request, (b, b + 1)))
            log_probability[rows] = prior.mixed(
                log_probability[rows], below.row[rows], below.start[rows], below.end[rows]
            )
        return log_probability

    def of(self, score: Float64Array, parent_value: Float64Array, below: Below) -> Float64Array:
        """float64[E]: what prefixes or items are worth; ``score`` itself where that is all.

        ``below`` says where they stand.
        """
        if not self._bonus and not self._seed:
            return score
        value = score.copy()
        for b, bonus in self._bonus.items():
            rows = slice(*np.searchsorted(below.request, (b, b + 1)))
            value[rows] += best_in_ranges(bonus, below.start[rows], below.end[rows])
        for b, seed in self._seed.items():
            rows = slice(*np.searchsorted(below.request, (b, b + 1)))
            row = below.row[rows]
            noise = gumbel_noise(seed, below.key[rows])
            own = score[rows]
            if b in self._blend:
                own = self._blend[b].of_ranges(own, below.start[rows], below.end[rows])
            value[rows] = values_below(own, row, parent_value[row], noise)
        return value

    def of_items(
        self, score: Float64Array, parent_value: Float64Array, below: Below
    ) -> tuple[Float64Array, Float64Array]:
        """float64[M] twice: log-probabilities of items with what blends give to them, and what they are worth.

        One array where a request adds no more than that.
        """
        value = self.of(score, parent_value, below)
        if not self._blend:
            return score, value
        blended = score.copy()
        plain = value is score
        for b, blend in self._blend.items():
            rows = slice(*np.searchsorted(below.request, (b, b + 1)))
            blended[rows] = blend.of_items(score[rows], below.start[rows])
            if not plain and b not in self._seed:
                value[rows] = blended[rows]
        return blended, blended if plain else value


def mask_of(allowed: Allowed, items: int) -> BoolArray:
    """bool[N]: the ranks a request may get."""
    if allowed.bitmap is None:
        mask = np.ones(items, bool)
    else:  # the words are little-endian, so their bytes hold the bits in order
        mask = np.unpackbits(allowed.bitmap.words.view(np.uint8), count=items, bitorder="little").view(bool)
    mask[allowed.excluded] = False
    return mask


def _best_ranks(worth: Float64Array, most: int) -> Int64Array:
    """The best ``most`` ranks that are worth more than -inf, ascending."""
    rank = np.argpartition(-worth, most)[:most] if most < len(worth) else np.arange(len(worth))
    return np.sort(rank[worth[rank] > -np.inf])
