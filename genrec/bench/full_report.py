"""Everything about one bundle in one report: served, alone, in batches, over catalogs of other sizes, and recall.

One call after another, never two at a time: each would be the other's busy neighbour.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genrec.bench.decode import DecodeSettings, Progress, measure_decode
from genrec.bench.machine import CompanyWatch
from genrec.bench.offline import OfflineSettings, measure_offline
from genrec.bench.recall_front import measure_recall
from genrec.bench.request_histories import RequestHistories, held_out, random_items
from genrec.bench.sections import decode_section, head, offline_section, recall_section, serve_section
from genrec.bench.serve import Asked, ServeSettings, measure_serve
from genrec.bench.server_process import genrec_server
from genrec.bundle import Bundle, DecoderName
from genrec.modes import codes_mode
from genrec.recommender import Recommender
from index.histories import Cases, Histories, leave_one_out
from index.item_index import SEMANTIC_ID, ItemIndex
from index.leakage import leaked


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What a report measures."""

    decode: DecodeSettings
    offline: OfflineSettings
    serve: ServeSettings | None  # None leaves the server out
    users: int = 200  # histories of the in-process part
    recall_cases: int = 4000
    decoder: DecoderName = "auto"
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Users:
    """Who asks in a report."""

    cases: Cases | None  # held-out events; None where no file was given or its users have too few
    no_recall: str | None = None  # why recall is not measured, in words
    facts: dict[str, Any] = field(default_factory=dict)

    def draw(self, index: ItemIndex, count: int, rng: np.random.Generator) -> RequestHistories:
        """So many histories: of held-out cases, or of random items."""
        if self.cases is None:
            return random_items(len(index.catalog), count, rng)
        return held_out(self.cases, count, rng)


def users_of(bundle: Bundle, histories: Histories | None) -> Users:
    """Users with their last event held out, and whether recall of it would be honest.

    Raises:
        HistoryError: nobody has three events.
    """
    if histories is None:
        return Users(None, "no interactions were given")
    cases = leave_one_out(histories, "test")
    guilty = int(
        leaked(cases, histories.user_ids, bundle.index.catalog.item_ids, bundle.trained_events()).sum()
    )
    seen = f"the bundle was trained on {guilty:,} of the {len(cases):,} held-out events" if guilty else None
    return Users(cases, seen)


def asked_of(index: ItemIndex, histories: RequestHistories, *, with_targets: bool) -> Asked:
    """Histories as the ids a server is sent."""
    ids = index.catalog.item_ids
    targets = histories.targets if with_targets else None
    return Asked(
        histories.source,
        [[ids[row] for row in rows.tolist()] for rows in histories.rows],
        None if targets is None else [ids[row] for row in targets.tolist()],
    )


def measure_report(
    bundle: Bundle, users: Users, settings: ReportSettings, progress: Callable[[str], Progress]
) -> dict[str, Any]:
    """All sections as JSON values.

    Args:
        bundle: what is measured.
        users: who asks.
        settings: how much.
        progress: given a section's name, what to tell its progress.

    Raises:
        GenrecError: as the measurements themselves.
    """
    watch = CompanyWatch()
    index, defaults = bundle.index, bundle.tasks[SEMANTIC_ID]
    model = bundle.decoder(settings.decoder, task=SEMANTIC_ID, threads=settings.threads)
    asked = users.draw(index, settings.users, np.random.default_rng((settings.seed, 0)))
    own = CompanyWatch()
    decoded = measure_decode(index, model, defaults, asked, settings.decode, progress("one request"))
    report: dict[str, Any] = {
        **head("report", bundle.artifact, settings.seed, settings.threads),
        "histories": asked.source,
        "no_recall": users.no_recall,
        "decode": decode_section(bundle, model, decoded, settings.decode, settings.threads, own.company()),
    }
    many = users.draw(index, settings.offline.users, np.random.default_rng((settings.seed, 1)))
    own = CompanyWatch()
    batched = measure_offline(
        index, model, defaults, many, settings.offline, progress("batches"), bundle.prior
    )
    report["offline"] = offline_section(
        bundle, model, batched, settings.offline, settings.threads, own.company()
    )
    report["recall"] = None
    if users.cases is not None and users.no_recall is None:
        cases = _some(users.cases, settings.recall_cases, settings.seed)
        beams = (*settings.decode.beams, defaults.beam)
        answering = Recommender(index, modes={SEMANTIC_ID: codes_mode(index, model, defaults, bundle.prior)})
        found = measure_recall(answering, cases, beams, settings.decode.k, progress("recall"))
        report["recall"] = recall_section(bundle.artifact, found, settings.decode.k, settings.seed)
    if settings.serve is not None:
        report["serve"] = serve_own(bundle, users, settings.serve, progress("server"))
    report["company"] = watch.company().as_json()
    return report


def serve_own(
    bundle: Bundle, users: Users, settings: ServeSettings, progress: Progress, prompt_cache_mb: int = 0
) -> dict[str, Any]:
    """The ``serve`` section of a server that is started for it, on this machine, and ended."""
    index = bundle.index
    # Twice as many users as a trial has requests: none asks twice in one trial, few ever.
    asked = users.draw(index, 2 * settings.requests, np.random.default_rng((settings.seed, 2)))
    with tempfile.TemporaryDirectory() as directory:
        progress("start the server", 0, 1)
        watch = CompanyWatch()
        log = Path(directory) / "server.log"
        with genrec_server(bundle.artifact.path, log, prompt_cache_mb=prompt_cache_mb) as server:
            measured = asyncio.run(
                measure_serve(
                    server.url,
                    asked_of(index, asked, with_targets=users.no_recall is None),
                    frozenset(index.catalog.item_ids),
                    settings,
                    server_cpu=server.cpu,
                    progress=progress,
                )
            )
        company = watch.company()
    return serve_section(
        bundle.artifact,
        len(index.catalog),
        measured,
        settings,
        company,
        server="one worker of genrec serve beside the client on this machine, one thread for the model, "
        + (f"{prompt_cache_mb} MiB of remembered prompts" if prompt_cache_mb else "no remembered prompts"),
        prompt_cache_mb=prompt_cache_mb,
    )


def _some(cases: Cases, count: int, seed: int) -> Cases:
    if count >= len(cases):
        return cases
    return cases.take(np.sort(np.random.default_rng((seed, 3)).choice(len(cases), count, replace=False)))
