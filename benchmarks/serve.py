"""How many users does one core serve within a latency limit, genrec against Hugging Face `generate`?

Both serve the same random-weight Qwen3-style model (4 layers, hidden 256), prompts of 256 tokens, 10,000 items of
4 codes, 20 beams, 20 items, one thread for the model, over HTTP on this machine, one after the other.

    genrec     `genrec serve` of the exported bundle, prompt cache off, vocabulary normalisation
    catalog    the same server asked for catalog normalisation, genrec's default
    peer       `generate(prefix_allowed_tokens_fn=<trie of dicts>)` behind an equally lean FastAPI app that
               generates waiting requests together, in the batch size with which it answers most; its scores
               are normalised over the vocabulary

Every request is another user (a random history). The limit (SLO) is 3 times the peer's own unloaded p50. Load is
open-loop Poisson, timed from the planned moment. The goodput of a system is the highest offered rate at which
99 % of the requests sent were answered within the limit. genrec must show that on 1,000 requests or more. The
peer, at a rate near one a second, is tried with fewer, and then a rate counts for it unless its late answers
disprove it: that is kind to the peer.

`served_p50_minus_in_process_ms` is what HTTP and queue add to a lone request: in-process calls and served ones
take turns. `--bundle DIR` adds that figure for another exported bundle.

Run: ``python -m benchmarks.serve [--quick] [--json] [--bundle DIR]``. A full run takes about a quarter of an
hour and writes ``benchmarks/results/serve.{json,svg}``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serve_bundle import BEAMS, HISTORY, histories, write_serve_bundle
from benchmarks.serve_plot import plot
from benchmarks.serve_systems import Server, genrec_body, genrec_server, hugging_face_server, peer_body
from genrec.bench.arrivals import arrivals
from genrec.bench.goodput import Goodput, Trial, most_late, search_goodput
from genrec.bench.http_client import HttpClient
from genrec.bench.load import closed_loop, open_loop
from genrec.bench.load_report import LoadReport
from genrec.bench.machine import machine, machine_line
from genrec.bench.measurement import one_thread
from genrec.bench.percentiles import percentile
from genrec.bench.report import last_line, markdown_table
from genrec.recommender import Recommender
from genrec.wishes import Wishes

ITEMS = 10_000
RESULTS = Path(__file__).parent / "results"
SLO = 3.0  # times the peer's unloaded p50
OUT_OF_PATIENCE = 60.0  # seconds
COMPARED = 10  # users whose items are compared with the peer's

Body = Callable[[Sequence[str]], bytes]


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    unloaded: int  # requests, one at a time
    peer_unloaded: int
    requests: int  # of a trial
    peer_requests: int
    trials: int
    peer_trials: int
    closer: float  # factor between the best rate and the next that fails
    sweep: tuple[float, ...]  # further rates for the plot, shares of the best, of a third of the requests


QUICK = Effort(100, 15, 1000, 30, 2, 3, 1.25, ())
FULL = Effort(200, 20, 1000, 60, 4, 4, 1.15, (0.5,))


class Users:
    """Distinct users, every one asked for once."""

    def __init__(self, ids: Sequence[str], length: int) -> None:
        self._ids = ids
        self._length = length
        self._seed = 0

    def next(self, count: int) -> list[list[str]]:
        """The histories of the next so many."""
        self._seed += 1
        rows = histories(len(self._ids), count, self._length, self._seed)
        return [[self._ids[row] for row in one] for one in rows.tolist()]


class Asker:
    """Measures one server with one kind of request."""

    def __init__(self, name: str, server: Server, body: Body, users: Users) -> None:
        self.name = name
        self.client = HttpClient(server.url)
        self._server = server
        self.body = body
        self._users = users
        self.server_cpu_ms = float("nan")  # a request, of the last measurement

    async def answer(self, history: Sequence[str]) -> dict[str, Any]:
        """One request."""
        reply = await self.client.post(self.body(history))
        if reply.status != 200:
            raise RuntimeError(f"expected an answer, got {reply.status}: {reply.body[:500]!r}")
        answer: dict[str, Any] = json.loads(reply.body)
        return answer

    async def closed(self, count: int, in_flight: int, slo_ms: float | None = None) -> LoadReport:
        """So many requests, so many at a time."""
        bodies = [self.body(one) for one in self._users.next(count)]
        before = self._server.cpu()
        run = await closed_loop(self.client, bodies, in_flight, timeout=OUT_OF_PATIENCE)
        self.server_cpu_ms = 1000 * (self._server.cpu() - before) / count
        return LoadReport.of(run, slo_ms)

    async def offered(self, rate: float, count: int, slo_ms: float, *, kind: bool, whole: bool) -> Trial:
        """Poisson load at a rate; ``whole`` goes on to the end even where the limit cannot be kept any more."""
        bodies = [self.body(one) for one in self._users.next(count)]
        allowed = most_late(count, doubtful=kind)
        before = self._server.cpu()
        run = await open_loop(
            self.client,
            bodies,
            arrivals("poisson", rate, count, seed=1),
            timeout=OUT_OF_PATIENCE,
            late_after=slo_ms / 1000,
            most_late=None if whole else allowed,
        )
        report = LoadReport.of(run, slo_ms)
        self.server_cpu_ms = 1000 * (self._server.cpu() - before) / max(report.sent, 1)
        good = round((report.within or 0) * report.sent)
        sustained = not report.stopped_early and report.sent - good <= allowed
        verdict = "kept" if sustained else "not kept" + (" (stopped)" if report.stopped_early else "")
        print(
            f"  {self.name}: {rate:.2f} a second, {report.sent} sent, "
            f"{report.sent - good} late (at most {allowed}), p50 {_ms(report, 'p50')}, p99 {_ms(report, 'p99')}, "
            f"server CPU {self.server_cpu_ms:.1f} ms a request: {verdict}",
            flush=True,
        )
        return Trial(rate, sustained, report)

    async def goodput(
        self, start: float, slo_ms: float, count: int, trials: int, effort: Effort, *, kind: bool
    ) -> Goodput:
        """The highest rate within the limit, and a sweep below it."""
        found = await search_goodput(
            lambda rate: self.offered(rate, count, slo_ms, kind=kind, whole=False),
            start,
            closer=effort.closer,
            most_trials=trials,
        )
        if found.best is None:
            return found
        sweep = [
            await self.offered(share * found.best.rate, count // 3, slo_ms, kind=kind, whole=True)
            for share in effort.sweep
        ]
        return Goodput(
            found.best, found.refused, tuple(sorted((*found.trials, *sweep), key=lambda t: t.rate))
        )


async def added_by_serving(
    asker: Asker, recommender: Recommender, wishes: Wishes, users: Users, count: int
) -> dict[str, float]:
    """Served and in-process calls of the same kind in turn, milliseconds; each call is another user."""
    served, inside, phases = [], [], []
    for place, history in enumerate(users.next(count + 3)):
        if place % 2:  # who goes first changes
            inside.append(_timed(partial(recommender.recommend_batch, [history], wishes)))
        body = asker.body(history)
        start = time.perf_counter()
        reply = await asker.client.post(body)
        served.append(1000 * (time.perf_counter() - start))
        phases.append(json.loads(reply.body)["timings_ms"])
        if not place % 2:
            inside.append(_timed(partial(recommender.recommend_batch, [history], wishes)))
    del served[:3], inside[:3], phases[:3]
    apart = percentile(np.array(served) - np.array(inside), 0.5)
    assert apart is not None
    return {
        "calls": count,
        "served_p50_ms": float(np.median(served)),
        "in_process_p50_ms": float(np.median(inside)),
        "served_p50_minus_in_process_ms": float(np.median(served) - np.median(inside)),
        "median_difference_ms": apart.value,
        "median_difference_low_ms": apart.low or float("nan"),
        "median_difference_high_ms": apart.high or float("nan"),
        "server_says_queue_ms": float(np.median([one["queue"] for one in phases])),
        "server_says_search_ms": float(np.median([one["search"] for one in phases])),
        "server_says_total_ms": float(np.median([one["total"] for one in phases])),
    }


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def _ms(report: LoadReport, name: str) -> str:
    one = report.latency_ms[name]
    return "refused" if one is None else f"{one.value:.0f} ms"


async def measure_peer(
    bundle: Path, log: Path, effort: Effort, compared: Sequence[list[str]]
) -> dict[str, Any]:
    """The peer: unloaded, its limit, its goodput, and its items for the users to compare."""
    users = Users([f"i{row}" for row in range(ITEMS)], HISTORY)
    with hugging_face_server(bundle, log) as server:
        print(
            f"peer: CPU seconds a request by batch {server.facts['cpu_seconds_a_request_by_batch']}",
            flush=True,
        )
        asker = Asker("peer", server, peer_body, users)
        answers = [(await asker.answer(one))["items"] for one in compared]
        unloaded = await asker.closed(effort.peer_unloaded, 1)
        p50 = unloaded.latency_ms["p50"]
        assert p50 is not None
        slo_ms = SLO * p50.value
        print(f"peer: unloaded p50 {p50.value:.0f} ms, so the limit is {slo_ms:.0f} ms", flush=True)
        found = await asker.goodput(
            500 / p50.value, slo_ms, effort.peer_requests, effort.peer_trials, effort, kind=True
        )
        await asker.client.close()
        return {
            "unloaded": unloaded,
            "slo_ms": slo_ms,
            "goodput": found,
            "answers": answers,
            **server.facts,
            "server_cpu_ms": asker.server_cpu_ms,
        }


async def measure_genrec(
    bundle: Path,
    log: Path,
    effort: Effort,
    slo_ms: float,
    peer_answers: Sequence[list[str]],
    compared: Sequence[list[str]],
) -> dict[str, Any]:
    """Ours: what serving adds, capacity, goodput in both normalisations, and whether the items are the peer's."""
    users = Users([f"i{row}" for row in range(ITEMS)], HISTORY)
    wishes = Wishes(k=BEAMS, beam=BEAMS, normalize="vocabulary", exclude_seen=False)
    with genrec_server(bundle, log) as server:
        asker = Asker("genrec", server, genrec_body, users)
        parity = Asker("parity", server, lambda one: genrec_body(one, "vocabulary", "token"), users)
        same = {
            name: float(
                np.mean([
                    len({one["item_id"] for one in (await who.answer(user))["items"]} & set(theirs)) / BEAMS
                    for user, theirs in zip(compared, peer_answers, strict=True)
                ])
            )
            for name, who in (("token", parity), ("leaf", asker))
        }  # fmt: skip
        added = await added_by_serving(
            asker, Recommender.load(bundle, "onnx"), wishes, users, effort.unloaded
        )
        unloaded = await asker.closed(effort.unloaded, 1, slo_ms)
        capacity = (await asker.closed(effort.requests // 5, 16)).achieved_rate
        print(f"genrec: {capacity:.1f} answers a second with 16 under way", flush=True)
        found = await asker.goodput(
            0.85 * capacity, slo_ms, effort.requests, effort.trials, effort, kind=False
        )
        cpu = asker.server_cpu_ms
        default = Asker("genrec, catalog", server, lambda one: genrec_body(one, "catalog"), users)
        rate = found.best.rate if found.best else 0.85 * capacity
        by_default = await default.goodput(
            rate, slo_ms, effort.requests, effort.trials // 2, effort, kind=False
        )
        for one in (asker, parity, default):
            await one.client.close()
        return {
            "added": added,
            "unloaded": unloaded,
            "capacity": capacity,
            "goodput": found,
            "catalog": by_default,
            "same": same,
            "server_cpu_ms": cpu,
        }


async def measure_bundle(bundle: Path, log: Path, effort: Effort) -> dict[str, float]:
    """What serving adds for a bundle of somebody's own: defaults, random histories of 20 items."""
    recommender = Recommender.load(bundle, "onnx")
    users = Users(recommender.index.catalog.item_ids, 20)
    with genrec_server(bundle, log) as server:
        asker = Asker(bundle.name, server, lambda one: json.dumps({"history": list(one)}).encode(), users)
        added = await added_by_serving(asker, recommender, Wishes(), users, 2 * effort.unloaded)
        await asker.client.close()
        return added


async def run_all(effort: Effort, own: Path | None) -> dict[str, Any]:
    """Everything, as JSON values."""
    compared = [[f"i{row}" for row in one] for one in histories(ITEMS, COMPARED, HISTORY, seed=0).tolist()]
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        bundle = write_serve_bundle(folder / "bundle", ITEMS)
        peer = await measure_peer(bundle, folder / "peer.log", effort, compared)
        ours = await measure_genrec(
            bundle, folder / "genrec.log", effort, peer["slo_ms"], peer["answers"], compared
        )
        added = await measure_bundle(own, folder / "own.log", effort) if own else None
    rates = {
        name: one.best.rate if one.best else None
        for name, one in (
            ("peer", peer["goodput"]),
            ("genrec", ours["goodput"]),
            ("catalog", ours["catalog"]),
        )
    }
    report: dict[str, Any] = {
        "goodput_ratio_hf": _ratio(rates["genrec"], rates["peer"]),
        "goodput_ratio_hf_catalog": _ratio(rates["catalog"], rates["peer"]),
        "goodput_per_second": rates,
        "slo_ms": peer["slo_ms"],
        "served_p50_minus_in_process_ms": ours["added"]["served_p50_minus_in_process_ms"],
        "low_load": ours["added"],
        "unloaded_p50_ms": {
            "peer": peer["unloaded"].latency_ms["p50"].value,
            "genrec": ours["unloaded"].latency_ms["p50"].value,
        },
        "server_cpu_ms_a_request": {"peer": peer["server_cpu_ms"], "genrec": ours["server_cpu_ms"]},
        "same_items_as_peer": ours["same"],
        "peer_batch": {name: peer[name] for name in ("max_batch", "cpu_seconds_a_request_by_batch")},
        "genrec_capacity": ours["capacity"],
        "trials": {
            name: [{"rate": t.rate, "sustained": t.sustained, **t.report.as_json()} for t in one.trials]
            for name, one in (
                ("peer", peer["goodput"]),
                ("genrec", ours["goodput"]),
                ("catalog", ours["catalog"]),
            )
        },
        "effort": asdict(effort),
    }
    if added is not None:
        assert own is not None
        report["low_load_own"] = added
        report["served_p50_minus_in_process_ms_own"] = added["served_p50_minus_in_process_ms"]
    return report


def _ratio(ours: float | None, peer: float | None) -> float | None:
    return ours / peer if ours and peer else None


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    rows = []
    for name, trials in report["trials"].items():
        best = max((one for one in trials if one["sustained"]), key=lambda one: one["rate"], default=None)
        refused = [one["rate"] for one in trials if not one["sustained"]]
        latencies = ["–"] * 2
        if best is not None:
            found = (best["latency_ms"][share] for share in ("p50", "p99"))
            latencies = [
                "refused" if one is None else f"{one['value']:.0f} ({one['low']:.0f}–{one['high']:.0f})"
                for one in found
            ]
        rows.append((
            name,
            f"{report['unloaded_p50_ms'].get(name, float('nan')):.1f}" if name != "catalog" else "–",
            "–" if best is None else f"{best['rate']:.2f}",
            f"{min(refused):.2f}" if refused else "–",
            "–" if best is None else f"{best['requests']}",
            *latencies,
            "–" if best is None else f"{100 * best['client_busy']:.0f} %",
        ))  # fmt: skip
    header = ["system", "unloaded p50 ms", "goodput a second", "first rate not kept", "n", "p50 ms", "p99 ms"]
    return markdown_table([*header, "client busy"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer trials, five minutes")
    parser.add_argument("--json", action="store_true", help="end in one line of JSON")
    parser.add_argument("--bundle", type=Path, help="an exported bundle: what serving adds there")
    options = parser.parse_args()
    described = machine()
    print(machine_line(described), flush=True)
    with one_thread():
        report = asyncio.run(run_all(QUICK if options.quick else FULL, options.bundle))
    report["machine"] = described
    print(f"limit {report['slo_ms']:.0f} ms, both sides {BEAMS} beams and items, one model thread")
    print(table(report))
    for name in ("low_load", "low_load_own"):
        if name in report:
            one = report[name]
            print(
                f"{name}: served p50 {one['served_p50_ms']:.2f} ms, in process {one['in_process_p50_ms']:.2f}: "
                f"{one['served_p50_minus_in_process_ms']:.2f} ms more; call by call "
                f"{one['median_difference_ms']:.2f} ({one['median_difference_low_ms']:.2f} to "
                f"{one['median_difference_high_ms']:.2f})"
            )
    print(f"same items as the peer: {report['same_items_as_peer']}")
    print(f"goodput ratio: {report['goodput_ratio_hf']}, by default {report['goodput_ratio_hf_catalog']}")
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "serve.json").write_text(last_line(report) + "\n", encoding="utf-8")
        plot(report, RESULTS / "serve.svg")
    if options.json:
        print(last_line(report))


if __name__ == "__main__":
    main()
