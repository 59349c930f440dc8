"""What a server's answers held: are all items of the catalog, was the held-out one among them, where did time go.

Bodies are kept as bytes while requests run and are read afterwards, so that reading costs the measurement nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genrec.bench.http_client import Reply
from genrec.bench.load_report import share_interval
from index.types import ItemId

PHASES = ("queue", "search", "rest")
"""What the server says of an answer's time: waiting for a batch, the search, everything else in its process."""


@dataclass(slots=True)
class AnswerBook:
    """Collects replies; :meth:`read` reads them. Given to the load generator as ``on_reply``."""

    replies: dict[int, Reply] = field(default_factory=dict)  # by place of the request

    def __call__(self, place: int, reply: Reply) -> None:
        """Keep a reply."""
        self.replies[place] = reply

    def read(
        self,
        catalog: Container[ItemId],
        k: int,
        histories: Sequence[Sequence[ItemId]],
        targets: Sequence[ItemId] | None = None,
    ) -> AnswersReport:
        """Sum the answers up.

        Args:
            catalog: every id that may be returned.
            k: items asked for.
            histories: of every request, what may not come back.
            targets: of every request, the id that came next; None where that is not known.
        """
        errors: Counter[str] = Counter()
        models: Counter[str] = Counter()
        phases: dict[str, list[float]] = {name: [] for name in PHASES}
        returned = foreign = seen = short = degraded = hits = answered = 0
        foreign_ids: list[str] = []
        batches: list[int] = []
        for place, reply in self.replies.items():
            try:
                body = json.loads(reply.body)
                if reply.status != 200:
                    errors[f"{reply.status} {_code(body)}"] += 1
                    continue
                ids = [str(one["item_id"]) for one in body["items"]]
            except (ValueError, KeyError, TypeError):
                errors[f"{reply.status} not readable"] += 1
                continue
            answered += 1
            strange = [one for one in ids if one not in catalog]
            returned, foreign = returned + len(ids), foreign + len(strange)
            foreign_ids += strange[: 5 - len(foreign_ids)]
            seen += len(set(ids) & set(histories[place]))
            short += len(ids) < k
            degraded += body.get("degraded") is not None
            models[str(body.get("model"))] += 1
            if targets is not None:
                hits += targets[place] in ids[:k]
            if isinstance(body.get("timings_ms"), Mapping):
                times = body["timings_ms"]
                queue, search, total = (float(times.get(name, 0.0)) for name in ("queue", "search", "total"))
                for name, value in zip(PHASES, (queue, search, total - queue - search), strict=True):
                    phases[name].append(value)
            if isinstance(body.get("usage"), Mapping) and "batch" in body["usage"]:
                batches.append(int(body["usage"]["batch"]))
        return AnswersReport(
            answered=answered,
            items_returned=returned,
            items_of_the_catalog=returned - foreign,
            foreign_ids=tuple(foreign_ids),
            items_of_the_history=seen,
            short=short,
            degraded=degraded,
            hits=hits if targets is not None else None,
            errors=dict(errors),
            models=tuple(models),
            phases_ms={name: float(np.mean(values)) for name, values in phases.items() if values},
            batch=float(np.mean(batches)) if batches else None,
        )


@dataclass(frozen=True, slots=True)
class AnswersReport:
    """All answers of one trial."""

    answered: int  # with status 200 and readable
    items_returned: int
    items_of_the_catalog: int
    foreign_ids: tuple[str, ...]  # some that are not
    items_of_the_history: int  # returned although the user had them
    short: int  # answers with fewer items than asked for
    degraded: int  # answers that say so of themselves
    hits: int | None  # answers with the held-out item in them; None where there is none to look for
    errors: Mapping[str, int]  # "429 queue_full" to how many
    models: tuple[str, ...]  # who answered
    phases_ms: Mapping[str, float]  # means, as the server says
    batch: float | None  # requests searched together, mean over requests

    @property
    def validity(self) -> float | None:
        """Share of returned ids that are in the catalog; None where nothing was returned."""
        return self.items_of_the_catalog / self.items_returned if self.items_returned else None

    @property
    def recall(self) -> float | None:
        """Share of answers that hold the item that came next."""
        return self.hits / self.answered if self.hits is not None and self.answered else None

    def as_json(self) -> dict[str, Any]:
        """For a report. Ids stay out of it, but for those that are nobody's."""
        recall = self.recall
        return {
            "answered": self.answered,
            "items_returned": self.items_returned,
            "validity": self.validity,
            "foreign_ids": list(self.foreign_ids),
            "items_of_the_history": self.items_of_the_history,
            "short": self.short,
            "degraded": self.degraded,
            "recall": None if recall is None else round(recall, 5),
            "recall_95": None
            if self.hits is None
            else [round(one, 5) for one in share_interval(self.hits, self.answered)],
            "errors": dict(self.errors),
            "models": list(self.models),
            "phases_ms": {name: round(value, 4) for name, value in self.phases_ms.items()},
            "batch": None if self.batch is None else round(self.batch, 3),
        }


def _code(body: Any) -> str:
    error = body.get("error") if isinstance(body, Mapping) else None
    return str(error.get("code", "")) if isinstance(error, Mapping) else ""
