"""One shard's answers: what every engine runs, wherever it runs.

A shard is searched in batches of a fixed size and written as Parquet bytes, so the same shard gives the same bytes
in any process on any machine of the same kind: engines differ in where they call this, and in nothing else.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from genrec.batch.users_file import Users
from genrec.bundle import DecoderName, load_bundle
from genrec.queries import QueryResult
from genrec.recommender import Recommender
from genrec.wishes import Wishes
from index.errors import IndexFormatError

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String,
    "item_ids": pl.List(pl.String),
    "scores": pl.List(pl.Float64),
    "certified": pl.UInt32,
    "unknown": pl.UInt32,
}
"""Columns of the output, a row a user. ``scores`` are log-probabilities or, in the mode ``query``, those of BM25; the
first ``certified`` items are proven to be in their place; ``unknown`` ids of the history are not in the catalog."""


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """What a worker needs to know to answer a shard."""

    bundle: Path
    content_hash: str  # of the bundle the job was planned for
    wishes: Wishes
    batch_users: int
    decoder: DecoderName = "auto"


class ShardAnswerer:
    """A bundle opened once, answering shard after shard with one thread.

    Raises:
        IndexFormatError: the bundle is damaged, or was saved anew since the job was planned.
    """

    def __init__(self, plan: AnswerPlan) -> None:
        self._plan = plan
        self._recommender = open_recommender(plan)
        self._ids = np.array(self._recommender.index.catalog.item_ids, object)

    def answer(self, users: Users) -> bytes:
        """The shard's table of :data:`SCHEMA`, as Parquet."""
        # Of several threads BLAS adds up in another order: an engine that starts its workers with one (Ray) and one
        # that does not would differ in last digits, and so now and then in the order of two items.
        with threadpool_limits(1):
            return self._answer(users)

    def _answer(self, users: Users) -> bytes:
        columns: dict[str, list[object]] = {name: [] for name in SCHEMA}
        for first in range(0, len(users), self._plan.batch_users):
            batch = slice(first, first + self._plan.batch_users)
            histories = users.histories[batch]
            rows = [self._recommender.history_rows(one) for one in histories]
            results = self._recommender.search_rows(rows, self._plan.wishes)
            columns["user_id"].extend(users.ids[batch])
            found = (self._recommender.rows_of(one, self._plan.wishes) for one in results)
            columns["item_ids"].extend(self._ids[one].tolist() for one in found)
            columns["scores"].extend(one.scores.tolist() for one in results)
            columns["certified"].extend(
                0 if isinstance(one, QueryResult) else one.certified for one in results
            )
            columns["unknown"].extend(
                len(history) - len(known) for history, known in zip(histories, rows, strict=True)
            )
        buffer = io.BytesIO()
        pl.DataFrame(columns, schema=SCHEMA).write_parquet(
            buffer, compression="zstd", row_group_size=len(users)
        )
        return buffer.getvalue()


def open_recommender(plan: AnswerPlan) -> Recommender:
    """The bundle of a plan.

    Raises:
        IndexFormatError: it is damaged, or was saved anew since the job was planned.
        RequestError, FilterError: the wishes do not go with it.
    """
    bundle = load_bundle(plan.bundle)
    if bundle.artifact.content_hash != plan.content_hash:
        raise IndexFormatError(
            f"expected {plan.bundle} as it was when the job was planned, got another; "
            f"answers of two bundles would be mixed: begin anew with --restart"
        )
    modes = [plan.wishes.mode] if plan.wishes.mode else None
    return Recommender.of_bundle(bundle, plan.decoder, threads=1, modes=modes)
