"""What each benchmark writes down: its figures, and enough of its circumstances to know what may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genrec.bench.decode import DecodeReport, DecodeSettings
from genrec.bench.machine import Company, machine
from genrec.bench.offline import OfflineReport, OfflineSettings
from genrec.bench.recall_front import RecallAt
from genrec.bench.serve import ServeReport, ServeSettings
from genrec.bundle import Bundle
from genrec.decoders.base import Decoder
from index.artifact import Artifact
from index.item_index import SEMANTIC_ID


def head(benchmark: str, artifact: Artifact, seed: int, threads: int) -> dict[str, Any]:
    """What every report opens with. The artifact's name, not where it lay: reports are shown to others."""
    return {
        "benchmark": benchmark,
        "machine": machine(),
        "threads": threads,
        "seed": seed,
        "name": artifact.path.resolve().name,
        "manifest_sha256": artifact.content_hash,
    }


def decode_section(
    bundle: Bundle,
    model: Decoder,
    measured: DecodeReport,
    settings: DecodeSettings,
    threads: int,
    company: Company,
) -> dict[str, Any]:
    """Of :func:`genrec.bench.decode.measure_decode`."""
    return {
        **head("decode", bundle.artifact, settings.seed, threads),
        "company": company.as_json(),
        **_model(bundle, model),
        "k": settings.k,
        "beams_asked": list(settings.beams),
        "histories": measured.source,
        "requests": measured.requests,
        "requests_planned": measured.planned,
        "loaded_mb": measured.loaded_mb,
        "base": measured.base,
        "scenarios": [one.as_json() for one in measured.results],
    }


def offline_section(
    bundle: Bundle,
    model: Decoder,
    measured: OfflineReport,
    settings: OfflineSettings,
    threads: int,
    company: Company,
) -> dict[str, Any]:
    """Of :func:`genrec.bench.offline.measure_offline`."""
    return {
        **head("offline", bundle.artifact, settings.seed, threads),
        "company": company.as_json(),
        **_model(bundle, model),
        "k": settings.k,
        "beam": measured.beam,
        "histories": measured.source,
        "users": measured.users,
        "batches": [one.as_json(settings.seed) for one in measured.results],
    }


def serve_section(
    artifact: Artifact,
    items: int,
    measured: ServeReport,
    settings: ServeSettings,
    company: Company,
    *,
    server: str,
    prompt_cache_mb: int | None,
) -> dict[str, Any]:
    """Of :func:`genrec.bench.serve.measure_serve`; ``server`` says in words which server it was."""
    return {
        **head("serve", artifact, settings.seed, 1),
        "company": company.as_json(),
        "server": server,
        "prompt_cache_mb": prompt_cache_mb,
        "items": items,
        "k": settings.k,
        "beam": settings.beam,
        "histories": measured.source,
        "slo_ms": settings.slo_ms,
        "arrival": "closed" if settings.concurrency else settings.arrival,
        "shape": settings.shape if settings.arrival == "gamma" else None,
        "timeout_s": settings.timeout_s,
        "cold_ms": round(measured.cold_ms, 3),
        "capacity": measured.capacity,
        "goodput": measured.goodput,
        "not_sustained": measured.not_sustained,
        "trials": [one.as_json() for one in measured.trials],
    }


def recall_section(artifact: Artifact, measured: Sequence[RecallAt], k: int, seed: int) -> dict[str, Any]:
    """Of :func:`genrec.bench.recall_front.measure_recall`."""
    return {**head("recall", artifact, seed, 1), "k": k, "beams": [one.as_json(k) for one in measured]}


def _model(bundle: Bundle, model: Decoder) -> dict[str, Any]:
    return {
        "items": len(bundle.index.catalog),
        "model": bundle.family,
        "decoder": type(model).__name__,
        "normalize": bundle.tasks[SEMANTIC_ID].normalize,
    }
