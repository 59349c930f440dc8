"""What one decode costs with a bundle on this machine, phase by phase, over a sweep of what a user may vary.

One request at a time runs the path of :class:`~genrec.recommender.Recommender`: seen items and filter become
allowed ranks, the search walks the trie, ranks become items. All scenarios take turns on every history, in an
order that rotates, so that whatever disturbs the machine disturbs all of them. Filters keep random items: a
random filter is the hardest of its size, it cuts into every branch. Catalogs of other sizes are made of the
bundle's own (:mod:`genrec.bench.catalog_sizes`).

It is the model's search that is measured: a bundle's history prior is not in it, as it is in batches, in recall and
in what is served (``python -m benchmarks.history_prior`` has its cost).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from genrec.bench.catalog_sizes import SizedTrie, trie_of_size
from genrec.bench.measurement import no_collector, peak_above, start_of_peak
from genrec.bench.percentiles import Summary
from genrec.bench.request_histories import RequestHistories
from genrec.bench.timed_decoder import DECODER_PHASES, TimedDecoder
from genrec.decoders.base import Decoder, Items
from genrec.search import SearchRequest, search
from genrec.tasks import TaskDefaults
from index.item_filter import Allowed, RankBitmap
from index.item_index import ItemIndex
from index.item_rules import ItemRules
from index.types import Float64Array, Int64Array

Progress: TypeAlias = Callable[[str, float, float], None]
Phase: TypeAlias = Literal["prefill", "model", "head", "search", "rest"]
PHASES: tuple[Phase, ...] = get_args(Phase)
PHASE_WORDS: dict[Phase, str] = {
    "prefill": "the model reads the history",
    "model": "the model takes up prefixes",
    "head": "the model scores the edges asked for",
    "search": "trie, filter, top-k",
    "rest": "seen items and filter into ranks, ranks into items",
}
EXPANSIONS = 10_000  # budget of an exact search: a model that knows nothing must not stop the benchmark
_WARM_UP = (
    3  # searches of each scenario before the clock counts; all but the first are asked for their memory
)


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """What to measure."""

    k: int = 10
    beams: tuple[int, ...] = (5, 10, 20, 50)
    lengths: tuple[int, ...] = (5, 20, 50)  # history items, beside the histories as they come
    kept: tuple[float, ...] = (0.5, 0.01, 0.0001)  # shares of the catalog that filters keep
    where: str | None = None  # a filter of the user's own
    exact: bool = True  # also measure proven answers
    sizes: tuple[int, ...] = ()  # items of the catalog, beside its own
    grid: bool = False  # every beam with every length and every size, beside varying one thing at a time
    seconds: float | None = None  # stop after so long, with what was measured by then
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Scenario:
    """One way to ask, over all histories."""

    name: str
    beam: int
    histories: Sequence[Int64Array]  # U of them
    history_items: int | None = None  # None: as they come
    bitmap: RankBitmap | None = None  # what the filter allows; None without one
    where: str | None = None  # the filter in words, where it has any
    items_allowed: int | None = None  # by the filter
    exact: bool = False
    sized: SizedTrie | None = None  # the trie walked; None for the bundle's own


@dataclass(frozen=True, slots=True)
class Decoded:
    """One request, measured. Seconds."""

    wall: Float64Array  # [5], one per phase; they add up to the whole
    cpu: Float64Array  # [5]
    model_calls: int
    expansions: int
    certified: int
    found: int
    state_bytes: int


@dataclass(frozen=True, eq=False)
class ScenarioResult:
    """One scenario's requests."""

    scenario: Scenario
    decoded: Sequence[Decoded]  # at least one
    peak_mb: float | None  # above what the process held, over the warm-up searches

    def whole(self, clock: Literal["wall", "cpu"]) -> Summary:
        """Milliseconds of the whole request."""
        return Summary.of([1e3 * float(getattr(one, clock).sum()) for one in self.decoded])

    def phase(self, phase: Phase, clock: Literal["wall", "cpu"]) -> Summary:
        """Milliseconds of one phase."""
        place = PHASES.index(phase)
        return Summary.of([1e3 * float(getattr(one, clock)[place]) for one in self.decoded])

    def mean(self, field: Literal["model_calls", "expansions", "found", "state_bytes"]) -> float:
        """Mean per request."""
        return float(np.mean([getattr(one, field) for one in self.decoded]))

    @property
    def certified_share(self) -> float | None:
        """Of the returned items, how many were proven to be in their place; None where none came back."""
        found = sum(one.found for one in self.decoded)
        return sum(one.certified for one in self.decoded) / found if found else None

    def as_json(self) -> dict[str, Any]:
        """For a report. Times are milliseconds."""
        one, certified = self.scenario, self.certified_share
        return {
            "name": one.name,
            "beam": one.beam,
            "history_items": one.history_items,
            "where": one.where,
            "items": None if one.sized is None else len(one.sized.trie),
            "items_from": None if one.sized is None else one.sized.source,
            "items_allowed": one.items_allowed,
            "exact": one.exact,
            "wall_ms": self.whole("wall").as_json(),
            "cpu_ms": self.whole("cpu").as_json(),
            "phases": {
                phase: {
                    "wall_ms": self.phase(phase, "wall").as_json(),
                    "cpu_ms": self.phase(phase, "cpu").as_json(),
                }
                for phase in PHASES
            },
            "model_calls": round(self.mean("model_calls"), 3),
            "expansions": round(self.mean("expansions"), 3),
            "expansions_max": max(one.expansions for one in self.decoded),
            "items_found": round(self.mean("found"), 3),
            "certified_share": None if certified is None else round(certified, 5),
            "state_kb": round(self.mean("state_bytes") / 1024, 2),
            "peak_mb": None if self.peak_mb is None else round(self.peak_mb, 2),
            "samples": {clock: self.samples(clock) for clock in ("wall_ms", "cpu_ms")},
        }

    def samples(self, clock: Literal["wall_ms", "cpu_ms"]) -> list[float]:
        """Milliseconds of every request, in their order: what a comparison with another run stands on."""
        return [round(1e3 * float(getattr(one, clock[:-3]).sum()), 3) for one in self.decoded]


@dataclass(frozen=True, eq=False)
class DecodeReport:
    """All scenarios over the same requests."""

    source: str  # what the histories are
    requests: int  # of every scenario
    planned: int  # requests, had the time sufficed
    loaded_mb: float | None  # what the process held before the first request
    base: str  # name of the scenario that runs the bundle's defaults
    results: Sequence[ScenarioResult]


def measure_decode(
    index: ItemIndex,
    decoder: Decoder,
    defaults: TaskDefaults,
    histories: RequestHistories,
    settings: DecodeSettings,
    progress: Progress = lambda _stage, _done, _total: None,
) -> DecodeReport:
    """Run every scenario on every history, or on as many histories as ``settings.seconds`` allow (at least one).

    Raises:
        FilterError: ``settings.where`` is no filter over this catalog.
        IdentifierError: a catalog of a size asked for cannot be made.
    """
    progress("catalogs of other sizes", 0, 1)
    plan = scenarios(index, defaults, histories, settings)
    one_request = _OneRequest(index, TimedDecoder(decoder), defaults, settings.k)
    held = start_of_peak()
    peaks = []
    for done, scenario in enumerate(plan):
        progress("compile and warm up", done, len(plan))
        peaks.append(_warm_up(one_request, scenario))
    decoded: list[list[Decoded]] = [[] for _ in plan]
    users = len(histories.rows)
    end = time.monotonic() + (np.inf if settings.seconds is None else settings.seconds)
    for user in range(users):
        progress("requests", user, users)
        with no_collector():
            for turn in range(len(plan)):
                place = (turn + user) % len(plan)
                decoded[place].append(one_request(plan[place], user))
        if time.monotonic() >= end:
            break
    progress("requests", users, users)
    results = [ScenarioResult(*one) for one in zip(plan, decoded, peaks, strict=True)]
    base = f"beam {max(defaults.beam, settings.k)}"
    return DecodeReport(histories.source, len(decoded[0]), users, held, base, results)


def scenarios(
    index: ItemIndex, defaults: TaskDefaults, histories: RequestHistories, settings: DecodeSettings
) -> list[Scenario]:
    """The sweep: beams, history lengths, filters, proof, sizes. Each varies one thing of the bundle's defaults.

    Raises:
        FilterError: ``settings.where`` is no filter over this catalog.
        IdentifierError: a catalog of a size asked for cannot be made.
    """
    rng = np.random.default_rng((settings.seed, 1))
    rules = ItemRules(index.catalog, index.trie, index.removed)
    everything = rules.allowed().bitmap
    beam = max(defaults.beam, settings.k)
    beams = sorted({*(max(one, settings.k) for one in settings.beams), beam})
    plan = [Scenario(f"beam {one}", one, histories.rows, bitmap=everything) for one in beams]
    plan += [
        Scenario(f"history {items}", beam, histories.of_length(items, rng), items, bitmap=everything)
        for items in settings.lengths
    ]
    for share in settings.kept:
        bitmap = random_filter(index, share, rng)
        plan.append(_filtered(f"filter {100 * share:.4g} %", beam, histories, index, bitmap, None))
    if settings.where is not None:
        asked_for = rules.allowed(settings.where).bitmap
        assert asked_for is not None
        plan.append(_filtered("filter --where", beam, histories, index, asked_for, settings.where))
    if settings.exact:
        plan.append(Scenario("exact", beam, histories.rows, bitmap=everything, exact=True))
    sized = {items: trie_of_size(index, items, rng) for items in settings.sizes}
    plan += [Scenario(f"{items:,} items", beam, histories.rows, sized=one) for items, one in sized.items()]
    return plan + (_grid(beams, everything, histories, sized, settings, rng) if settings.grid else [])


def _grid(
    beams: Sequence[int],
    everything: RankBitmap | None,
    histories: RequestHistories,
    sized: Mapping[int, SizedTrie],
    settings: DecodeSettings,
    rng: np.random.Generator,
) -> list[Scenario]:
    """Beams, history lengths and catalog sizes, all with all; where no size is asked for, the bundle's own."""
    asked = {items: histories.of_length(items, rng) for items in settings.lengths}
    tries: Mapping[int, SizedTrie | None] = sized or {0: None}
    return [
        Scenario(
            f"beam {beam}, history {items}" + (f", {size:,} items" if size else ""),
            beam,
            asked[items],
            items,
            bitmap=None if size else everything,
            sized=tries[size],
        )
        for beam, items, size in product(beams, settings.lengths, tries)
    ]


def random_filter(index: ItemIndex, share: float, rng: np.random.Generator) -> RankBitmap:
    """A filter that keeps ``share`` of the items that can be recommended, drawn at random, and at least one."""
    live = np.ones(len(index.trie), bool)
    live[index.trie.rank_of_item[index.removed]] = False
    ranks = np.flatnonzero(live)
    mask = np.zeros(len(index.trie), bool)
    mask[rng.choice(ranks, max(1, round(share * len(ranks))), replace=False)] = True
    return RankBitmap.from_mask(mask)


def _filtered(
    name: str, beam: int, histories: RequestHistories, index: ItemIndex, bitmap: RankBitmap, where: str | None
) -> Scenario:
    count = int(bitmap.count_below(np.array([len(index.trie)]))[0])
    return Scenario(name, beam, histories.rows, bitmap=bitmap, where=where, items_allowed=count)


def _warm_up(one_request: _OneRequest, scenario: Scenario) -> float | None:
    """Compile and fill caches; the peak memory of a search, in MiB above what the process held."""
    peaks = []
    for number in range(_WARM_UP):
        held = start_of_peak()
        one_request(scenario, number % len(scenario.histories))
        peaks.append(peak_above(held))
    known = [peak for peak in peaks[1:] if peak is not None]
    return max(known) if known else None


class _OneRequest:
    """The path of one request, measured."""

    def __init__(self, index: ItemIndex, decoder: TimedDecoder, defaults: TaskDefaults, k: int) -> None:
        self._index, self._decoder, self._defaults, self._k = index, decoder, defaults, k

    def __call__(self, scenario: Scenario, user: int) -> Decoded:
        decoder, rows, sized = self._decoder, scenario.histories[user], scenario.sized
        trie = self._index.trie if sized is None else sized.trie
        decoder.restart()
        begin = _clocks()
        request = SearchRequest(
            prompt=(Items(rows),),
            k=self._k,
            beam=scenario.beam,
            allowed=Allowed.from_bitmap(
                scenario.bitmap, trie.rank_of_item[rows] if sized is None else sized.ranks(rows)
            ),
            exact=scenario.exact,
            max_expansions=EXPANSIONS if scenario.exact else None,
        )
        asked = _clocks()
        (result,) = search(decoder, trie, [request], normalize=self._defaults.normalize)
        answered = _clocks()
        catalog = self._index.catalog
        found = trie.item_at_rank[result.ranks]
        for row in (found if sized is None else sized.row_of_item[found]).tolist():
            _ = catalog.item_ids[row], catalog.titles[row]
        end = _clocks()
        spent = [decoder.spent[phase] for phase in DECODER_PHASES]
        inside = np.array([[one.wall for one in spent], [one.cpu for one in spent]])  # [2, 3]
        searching = answered - asked
        wall, cpu = np.column_stack([inside, searching - inside.sum(1), end - begin - searching])
        return Decoded(
            wall,
            cpu,
            result.model_calls,
            result.expansions,
            result.certified,
            len(result.ranks),
            decoder.state_bytes,
        )


def _clocks() -> Float64Array:
    """float64[2]: seconds by the wall and by the processor."""
    return np.array([time.perf_counter(), time.process_time()])
