"""The model card: what a bundle is, what it was trained on and how well it did, as a page within it.

It says nothing that the bundle's manifest does not say, so it is written anew whenever the bundle is saved: after an
export, a tuning, or a change of the catalog. The shape follows Mitchell et al., FAT* 2019.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from index.counted import counted
from index.histories import Histories
from index.types import UInt64Array

CARD = "model_card.md"

_FAMILIES = {
    "native": "genrec's native model, trained from nothing: item positions in, codes out",
    "causal_lm": "a causal language model",
    "encoder_decoder": "an encoder-decoder language model",
}
_HOLDOUTS = {
    "last-two": "the last two events of every user: the last but one chose the weights, the last was never looked at",
    "temporal": "the last fifth of all events in time: its first half chose the weights, the rest was not looked at",
    "none": "nothing: there are no honest figures of this bundle",
}
_FIGURES = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "coverage")


def training_facts(training: Histories, hashes: UInt64Array) -> dict[str, Any]:
    """What the manifest records of the events trained on: counts, time, and a hash of them all.

    Args:
        training: the training part.
        hashes: of its events, sorted (:func:`index.leakage.event_hashes`).
    """
    facts: dict[str, Any] = {
        "training_events": training.num_events,
        "training_users": int((training.lengths > 0).sum()),
        "training_items": len(np.unique(training.items)),
        "events_sha256": hashlib.sha256(np.ascontiguousarray(hashes, "<u8").tobytes()).hexdigest(),
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if training.timestamps is not None and training.num_events:
        times = (float(training.timestamps.min()), float(training.timestamps.max()))
        facts["training_time"] = [_day(one) for one in times]
    return facts


def write_card(files: Path, manifest: Mapping[str, Any]) -> None:
    """Put the card of a bundle with this manifest among its files."""
    (files / CARD).write_text(card(manifest), "utf-8")


def card(manifest: Mapping[str, Any]) -> str:
    """The page as Markdown. What a manifest does not record (older bundles, tests) is left out."""
    model = manifest["model"]
    parts = [
        "# Model card\n",
        _what(manifest, model),
        "## Trained on\n",
        _data(manifest, model),
        "## Training\n",
        _training(model),
        "## Figures on validation\n",
        _figures(manifest, model),
        "## Limits\n",
        _limits(manifest, model),
        "## How to load\n",
        _loading(),
    ]
    return "\n".join(parts)


def _what(manifest: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    family = str(model["family"])
    lines = [
        f"A generative recommender made by genrec: {_FAMILIES.get(family, family)}. It walks a trie over "
        f"{counted(int(manifest['items']), 'item')} and answers by {', '.join(manifest['tasks'])}.",
    ]
    if "parameters" in model:
        trained = model.get("trained_parameters", model["parameters"])
        of = "" if trained == model["parameters"] else f", of which {trained:,} were trained"
        lines.append(f"It has {counted(int(model['parameters']), 'parameter')}{of}.")
    if "export" in manifest:
        lines.append("It has been exported, and runs without torch.")
    return "\n".join(lines) + "\n"


def _data(manifest: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    index = manifest.get("index_settings", {})
    rows: list[tuple[str, object]] = [
        (
            "items",
            f"{manifest['items']:,}"
            + (f", {manifest['removed']:,} removed" if manifest.get("removed") else ""),
        )
    ]
    for name, label in (
        ("training_users", "users"),
        ("training_events", "events"),
        ("training_items", "items with events"),
    ):
        if name in model:
            rows.append((label, f"{model[name]:,}"))
    if "training_time" in model:
        rows.append(("from, to", " to ".join(model["training_time"])))
    for name, label in (("catalog_fingerprint", "catalog"), ("events_sha256", "events, sha256")):
        value = manifest.get(name) or model.get(name)
        if value:
            rows.append((label, f"`{value}`"))
    rows += [
        (f"index: {name.replace('_', ' ')}", _said(value))
        for name, value in index.items()
        if name != "holdout"
    ]
    holdout = str(model.get("holdout") or index.get("holdout", ""))
    held = f"\nHeld out: {_HOLDOUTS.get(holdout, holdout)}.\n" if holdout else ""
    return _table(("what", "value"), rows) + held


def _training(model: Mapping[str, Any]) -> str:
    rows: list[tuple[str, object]] = []
    for name, label in (("trained_at", "finished"), ("steps", "steps"), ("seconds", "seconds, all told")):
        if name in model:
            value = model[name]
            rows.append((label, f"{value:,}" if isinstance(value, int) else value))
    for part in ("settings", "shape"):
        rows += [(name.replace("_", " "), _said(value)) for name, value in model.get(part, {}).items()]
    return _table(("what", "value"), rows) if rows else "Not recorded.\n"


def _figures(manifest: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    rows = []
    for task, by_name in _validation(model).items():
        chosen = manifest["tasks"].get(task, {}).get("normalize")
        for name, found in by_name.items():
            words = [f"{found[one]:.4f}" if one in found else "–" for one in _FIGURES]
            rows.append((task, f"{name} (chosen)" if name == chosen else name, *words))
    if "prior_validation" in model:
        weight = manifest["tasks"]["semantic_id"].get("prior_weight", 0.0)
        words = [f"{model['prior_validation'][one]:.4f}" for one in _FIGURES]
        rows.append(("semantic_id", f"with the history prior, weight {weight:g}", *words))
    if not rows:
        return "None: nothing was held out, or nothing was measured.\n"
    return _table(("task", "normalisation", *_FIGURES), rows) + (
        "\nOver at most 2,500 held-out users, ranking the whole catalog. They chose the weights and the "
        "normalisation, so they flatter: `genrec evaluate` measures the test events.\n"
    )


def _validation(model: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by task and normalisation; the native model records codes and titles apart."""
    found = model.get("validation") or {}
    if model["family"] == "native":
        found = {"semantic_id": found, "title": model.get("title_validation") or {}}
    return {task: dict(by_name) for task, by_name in found.items()}


def _limits(manifest: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    read = (model.get("shape") or model.get("history") or {}).get("max_items")
    newest = "the newest items" if read is None else f"the newest {counted(int(read), 'item')}"
    mixed = [name for name, task in manifest["tasks"].items() if task.get("prior_weight")]
    whose = "the model's"
    if mixed:
        others = "" if len(mixed) == len(manifest["tasks"]) else f" where it answers by {', '.join(mixed)}"
        whose += f", mixed with the history prior{others}"
    boost = (manifest.get("history_prior") or {}).get("unseen_boost", 1.0)
    found = "expect them to be found less often"
    if mixed and boost != 1.0:
        found += f", though the prior takes what their texts say {boost:g} times"
    return (
        f"- It reads {newest} of a history, in their order; it knows no user, no time of day and no reason.\n"
        "- It learned what users of these data did, and repeats what was popular and what was shown to them.\n"
        f"- Items added since have codes from their text, and no events: {found}.\n"
        f"- Probabilities are {whose}; `genrec evaluate` says how far they are from frequencies.\n"
    )


def _loading() -> str:
    return (
        "In Python `genrec.Recommender.load(BUNDLE).recommend([ID, …], k=10)`; on the command line "
        "`genrec recommend BUNDLE --history ID,ID,…`; over HTTP `genrec serve BUNDLE`, once `genrec export BUNDLE` "
        "has run. BUNDLE is the directory with `manifest.json`, which holds all of this page as JSON and a sha256 of "
        "every file, this one included; `--verify` compares them.\n"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def _said(value: object) -> str:
    return (
        "–"
        if value is None
        else f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else str(value)
    )


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
