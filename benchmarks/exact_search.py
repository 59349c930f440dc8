"""On a trained bundle: what does a beam miss under filters, and what does it cost to be exact?

For a sample of users and filters that keep a random share of the items: recall@10 of beam search against the
exact filtered top ten (by the model's own scores), with and without look-ahead, the share of results that the
beam itself could certify, and the prefixes expanded. The exact search takes prefixes up a few at a time.

Run: ``python -m benchmarks.exact_search BUNDLE INTERACTIONS [--users 200] [--json]``. The last line is JSON
with ``--json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from genrec.bench.machine import machine, machine_line
from genrec.bench.report import last_line, markdown_table
from genrec.bundle import load_bundle
from genrec.decoders.base import Decoder, Items
from genrec.search import SearchRequest, SearchResult, search
from index.histories import leave_one_out
from index.history_readers import read_interactions
from index.item_filter import Allowed
from index.trie import TokenTrie

TOP = 10
BEAMS = (10, 50, 200)
KEPT = (1.0, 0.1, 0.01, 0.001)
EXACT_BATCH = 5  # prefixes an exact search takes up together
CHUNK = 50  # requests searched together


def run_search(decoder: Decoder, trie: TokenTrie, requests: Sequence[SearchRequest]) -> list[SearchResult]:
    """All requests, in chunks."""
    chunks = [requests[i : i + CHUNK] for i in range(0, len(requests), CHUNK)]
    return [result for chunk in chunks for result in search(decoder, trie, chunk)]


def overlap(found: Sequence[SearchResult], exact: Sequence[SearchResult]) -> float:
    """Mean share of the exact top that was found."""
    shares = [
        len(np.intersect1d(one.ranks, best.ranks)) / len(best.ranks)
        for one, best in zip(found, exact, strict=True)
        if len(best.ranks)
    ]
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("interactions", type=Path)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    bundle = load_bundle(options.bundle)
    trie, decoder = bundle.index.trie, bundle.decoder()
    histories = read_interactions(options.interactions, bundle.index.catalog).histories
    cases = leave_one_out(histories, "test")
    rng = np.random.default_rng(0)
    users = rng.choice(len(cases), min(options.users, len(cases)), replace=False)

    rows, report = [], []
    for kept in KEPT:
        requests = []
        for case in users:
            history = cases.history_of(int(case)).astype(np.int64)
            mask = None if kept == 1.0 else rng.random(len(trie)) < kept
            allowed = Allowed.build(mask, trie.rank_of_item[history])
            requests.append(SearchRequest((Items(history),), TOP, EXACT_BATCH, allowed, exact=True))
        exact = run_search(decoder, trie, requests)
        assert all(one.certified == len(one.ranks) for one in exact)
        line: dict[str, float] = {
            "kept": kept,
            "exact_expansions_median": float(np.median([one.expansions for one in exact])),
            "exact_model_calls_mean": float(np.mean([one.model_calls for one in exact])),
        }
        for beam in BEAMS:
            for look_ahead in (False, True):
                wider = [replace(one, beam=beam, exact=False, look_ahead=look_ahead) for one in requests]
                found = run_search(decoder, trie, wider)
                name = f"beam{beam}{'_look_ahead' if look_ahead else ''}"
                line[f"{name}_recall"] = overlap(found, exact)
                line[f"{name}_certified"] = float(
                    np.mean([one.certified / max(len(one.ranks), 1) for one in found])
                )
                line[f"{name}_expansions"] = float(np.median([one.expansions for one in found]))
        report.append(line)
        rows.append(
            (
                f"{100 * kept:g} %",
                *(
                    f"{line[f'beam{b}_recall']:.3f} / {line[f'beam{b}_look_ahead_recall']:.3f}"
                    f" ({100 * line[f'beam{b}_look_ahead_certified']:.0f} %)"
                    for b in BEAMS
                ),
                f"{line['beam50_look_ahead_expansions']:.0f}",
                f"{line['exact_expansions_median']:.0f}",
                f"{line['exact_expansions_median'] / line['beam50_look_ahead_expansions']:.2f}",
            )
        )
    described = machine()
    print(machine_line(described))
    print(f"{len(users)} users, {len(trie):,} items; recall@10 against exact: plain / look-ahead (certified)")
    header = ("items kept", *(f"beam {b}" for b in BEAMS), "beam 50 expands", "exact expands", "ratio")
    print(markdown_table(header, rows))
    if options.json:
        print(last_line({"machine": described, "users": len(users), "items": len(trie), "filters": report}))


if __name__ == "__main__":
    main()
