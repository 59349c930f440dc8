"""What the constraint costs a decoding step over a catalog's own trie: no model runs.

Every engine gets the same prefixes, those of a beam search over this trie, and the same log-probabilities. The
kernels do a whole step: children, beam scores added, filter, each request's best, ended items apart. The peers of
:mod:`genrec.bench.step_peers` only mask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np

from genrec.bench.decode import Progress, random_filter
from genrec.bench.race import Ratio, Timing, race
from genrec.bench.stands import Stand, rules_of, stands
from genrec.bench.step_peers import PrefixTrie, peer_tries, prefix_processor
from genrec.kernels import NumpyStep, StepKernel, step_kernel
from index.errors import IdentifierError
from index.item_filter import Allowed, RankBitmap
from index.item_index import ItemIndex
from index.item_rules import ItemRules
from index.trie import TokenTrie

PEER_ITEMS = 1_000_000  # a trie of dictionaries takes about a kilobyte an item
NUMBA = "genrec numba"
NUMPY = "genrec numpy"
_PREPARED = 30  # times each filter is prepared


@dataclass(frozen=True, slots=True)
class ConstraintSettings:
    """What to measure."""

    rows: tuple[int, ...] = (20, 140)  # prefixes of a step, at most
    kept: tuple[float, ...] = (0.5, 0.01, 0.0001)  # shares of the catalog that filters keep
    where: str | None = None  # a filter of the user's own
    peers: bool = True
    rounds: int = 21
    seed: int = 0


@dataclass(frozen=True, eq=False)
class WalkTimes:
    """All engines over the steps of one search."""

    rows: Sequence[int]  # prefixes of each step
    edges: Sequence[int]  # children of each step
    steps: Mapping[str, Sequence[Timing]]  # by engine

    def whole(self, engine: str) -> Timing:
        """All steps together."""
        return reduce(add, self.steps[engine])

    def per_edge_ns(self, engine: str) -> float:
        """Nanoseconds per edge, the fixed cost of a call included."""
        return 1e3 * self.whole(engine).us / sum(self.edges)

    def as_json(self, ours: str) -> dict[str, Any]:
        """For a report."""
        return {
            "rows": list(self.rows),
            "edges": list(self.edges),
            "engines": {
                engine: {
                    "steps": [one.as_json() for one in times],
                    "us_per_step": round(self.whole(engine).us / len(times), 3),
                    "ns_per_edge": round(self.per_edge_ns(engine), 3),
                    "ratio_to_ours": Ratio.of(self.whole(engine), self.whole(ours)).as_json(),
                }
                for engine, times in self.steps.items()
            },
        }


@dataclass(frozen=True, eq=False)
class _Filter:
    name: str
    bitmap: RankBitmap
    took: Sequence[float]  # milliseconds of each preparation


@dataclass(frozen=True, eq=False)
class FilterTimes:
    """One filter: getting it ready, and what it adds to a step."""

    name: str
    items_allowed: int
    prepare_ms: Sequence[float]  # one per preparation
    overhead: Mapping[int, Ratio | None]
    """By beam: filtered over plain time at the prefixes the filtered search stands at; None where it has none."""

    def as_json(self) -> dict[str, Any]:
        """For a report. ``overhead`` is a share: 0.1 is a tenth more."""
        return {
            "name": self.name,
            "items_allowed": self.items_allowed,
            "prepare_ms": {
                "median": round(float(np.median(self.prepare_ms)), 4),
                "min": round(min(self.prepare_ms), 4),
                "max": round(max(self.prepare_ms), 4),
                "count": len(self.prepare_ms),
            },
            "overhead": {
                str(beam): None
                if ratio is None
                else {key: round(value - 1, 4) for key, value in ratio.as_json().items()}
                for beam, ratio in self.overhead.items()
            },
        }


@dataclass(frozen=True, eq=False)
class ConstraintReport:
    """Everything measured over one trie."""

    ours: str  # the engine searches run
    walks: Mapping[int, WalkTimes]  # by beam
    filters: Sequence[FilterTimes]
    left_out: Mapping[str, str] = field(default_factory=dict)  # engine, and why it did not run


def measure_constraint(
    index: ItemIndex,
    settings: ConstraintSettings,
    progress: Progress = lambda _stage, _done, _total: None,
) -> ConstraintReport:
    """Race the kernels and the peers over the trie of an index.

    Raises:
        IdentifierError: the trie leaves nothing to decide below its root.
        FilterError: ``settings.where`` is no filter over this catalog.
    """
    trie = index.trie
    left_out: dict[str, str] = {}
    prepared = _prepared(index, settings)  # first, so that a filter that is none fails at once
    progress("tries of the peers", 0, 1)
    tries = _peers(trie, settings, left_out)
    ours = NUMPY if isinstance(step_kernel(trie, rules_of(1, Allowed(), catalog=False)), NumpyStep) else NUMBA
    if ours == NUMPY:
        left_out[NUMBA] = "not installed; pip install 'genrec[fast]'"
    walks = {}
    for beam in settings.rows:
        walk = stands(trie, beam, np.random.default_rng((settings.seed, beam)))
        if not walk:
            raise IdentifierError(
                f"expected a trie with a decision below its root, got {len(trie)} items that part at their "
                f"first token; there is no step to measure"
            )
        progress("compile", 0, 1)  # the first time on a machine; later processes load what it made
        for call in _engines(trie, {}, walk[0], beam, ours).values():
            call()
        times: dict[str, list[Timing]] = {}
        for number, stand in enumerate(walk):
            progress(f"steps at {beam} rows", number, len(walk))
            for name, timing in race(_engines(trie, tries, stand, beam, ours), settings.rounds).items():
                times.setdefault(name, []).append(timing)
        walks[beam] = WalkTimes([len(one) for one in walk], [one.edges for one in walk], times)
    filters = []
    for number, one in enumerate(prepared):
        progress("filters", number, len(prepared))
        allowed = Allowed.from_bitmap(one.bitmap)
        overhead = {beam: _overhead(trie, beam, allowed, settings) for beam in settings.rows}
        count = int(one.bitmap.count_below(np.array([len(trie)]))[0])
        filters.append(FilterTimes(one.name, count, one.took, overhead))
    return ConstraintReport(ours, walks, filters, left_out)


def _peers(trie: TokenTrie, settings: ConstraintSettings, left_out: dict[str, str]) -> dict[str, PrefixTrie]:
    runs, missing = peer_tries()
    if not settings.peers:
        left_out |= dict.fromkeys([*runs, *missing], "left out by --no-peers")
        return {}
    left_out |= missing
    if len(trie) > PEER_ITEMS:
        left_out |= dict.fromkeys(runs, f"its trie would not fit: more than {PEER_ITEMS:,} items")
        return {}
    bounds = trie.path_start(np.arange(len(trie) + 1)).tolist()
    tokens = trie.path_tokens.tolist()
    paths = [tokens[low:high] for low, high in pairwise(bounds)]
    return {name: make(paths) for name, make in runs.items()}


def _engines(
    trie: TokenTrie, tries: Mapping[str, PrefixTrie], stand: Stand, beam: int, ours: str
) -> dict[str, Callable[[], object]]:
    """One step of every engine, ready to call."""
    given, catalog = (rules_of(beam, Allowed(), catalog=one) for one in (False, True))
    engines = {
        ours: _step(step_kernel(trie, given), stand),
        f"{ours}, softmax": _step(step_kernel(trie, catalog), stand),
    }
    if ours != NUMPY:
        engines[NUMPY] = _step(NumpyStep(trie, given), stand)
    return engines | {name: prefix_processor(one, stand) for name, one in tries.items()}


def _step(kernel: StepKernel, stand: Stand) -> Callable[[], object]:
    return lambda: kernel.step(stand.request, stand.places, stand.score, stand.log_prob)


def _prepared(index: ItemIndex, settings: ConstraintSettings) -> list[_Filter]:
    """Every filter, prepared some times by the clock."""
    rng = np.random.default_rng((settings.seed, 1))
    filters = []
    for share in settings.kept:
        bitmap = random_filter(index, share, rng)
        mask = bitmap.contains(np.arange(len(index.trie)))
        took = [_milliseconds(partial(RankBitmap.from_mask, mask)) for _ in range(_PREPARED)]
        filters.append(_Filter(f"keeps {100 * share:.4g} %", bitmap, took))
    if settings.where is not None:
        filters.append(_expression(index, settings.where))
    return filters


def _expression(index: ItemIndex, where: str) -> _Filter:
    """An expression, from its text to its bitmap."""
    # A cache without room keeps the last filter only: its opposite puts it out again.
    rules = ItemRules(index.catalog, index.trie, index.removed, cache_bytes=0)
    took = []
    for _ in range(_PREPARED):
        rules.allowed(f"not ({where})")
        took.append(_milliseconds(lambda: rules.allowed(where)))
    bitmap = rules.allowed(where).bitmap
    assert bitmap is not None
    return _Filter("--where", bitmap, took)


def _milliseconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


def _overhead(trie: TokenTrie, beam: int, allowed: Allowed, settings: ConstraintSettings) -> Ratio | None:
    """Time of the fused step with a filter over that without, where a search under the filter stands."""
    plain = step_kernel(trie, rules_of(beam, Allowed(), catalog=True))
    filtered = step_kernel(trie, rules_of(beam, allowed, catalog=True))
    walk = stands(trie, beam, np.random.default_rng((settings.seed, beam)), allowed)
    if not walk:
        return None
    raced = [
        race({"plain": _step(plain, stand), "filtered": _step(filtered, stand)}, settings.rounds)
        for stand in walk
    ]
    whole = {name: reduce(add, (one[name] for one in raced)) for name in ("plain", "filtered")}
    return Ratio.of(whole["filtered"], whole["plain"])
