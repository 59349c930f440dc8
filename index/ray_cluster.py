"""A Ray cluster for the duration of a block, and shards mapped over it. Ray is imported here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from index.errors import BatchError, require

Rows = Mapping[str, Any]


@contextmanager
def ray_cluster(address: str | None, remedy: str) -> Iterator[Any]:
    """The ``ray.data`` module, connected; what the caller had connected before stays so.

    Args:
        address: of a running cluster, ``auto`` or ``ray://…``; None starts one on this machine.
        remedy: what to do where it gives up, for the message.

    Raises:
        MissingDependencyError: Ray is not installed.
        BatchError: the cluster cannot be reached, or gave up on a task inside the block.
    """
    ray = require("ray", extra="ray", purpose="Running on a cluster")
    data = require("ray.data", extra="ray", purpose="Running on a cluster")
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(address=address, include_dashboard=False, logging_level="warning")
        context = data.DataContext.get_current()
        bars, context.enable_progress_bars = context.enable_progress_bars, False  # commands have their own
        try:
            yield data
        finally:
            context.enable_progress_bars = bars
    except (ray.exceptions.RayError, ConnectionError) as error:
        last = (str(error).strip().splitlines() or ["no message"])[-1]
        raise BatchError(
            f"expected the cluster to do every shard, got {type(error).__name__}: {last}; {remedy}"
        ) from error
    finally:
        if started:
            ray.shutdown()


def map_shards(
    data: Any,
    shards: Sequence[Rows],
    worker: type[Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    most: int,
) -> Iterator[Rows]:
    """Each shard once through a worker that lives on some node, in any order.

    What was lost with a node is done again on another. From one worker up: where fewer CPUs are free (or left) than
    wanted, the work goes on with those.

    Args:
        data: what :func:`ray_cluster` yields.
        shards: rows of plain values or arrays.
        worker: a class made once per worker with ``arguments``, called with columns of one row.
        arguments: of the worker's constructor.
        most: workers.
    """
    answers = data.from_items([dict(one) for one in shards], override_num_blocks=len(shards)).map_batches(
        worker,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="numpy",
        num_cpus=1,
        compute=data.ActorPoolStrategy(
            min_size=1, max_size=min(most, len(shards)), max_tasks_in_flight_per_actor=2
        ),
    )
    yield from answers.iter_rows()


def cluster_cpus() -> int:
    """CPUs of the connected cluster, at least 1."""
    ray = require("ray", extra="ray", purpose="Running on a cluster")
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
