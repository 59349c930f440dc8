"""The server under Ray Serve: the same routes and answers, replicas spread over a cluster.

::

    serve run serving.ray_app:app bundle=/models/movies replicas=4

On one machine ``genrec serve --workers`` is several times cheaper a request: Serve's HTTP proxy is a process of its
own that every request passes. What is different here: each replica counts for itself at ``/metrics`` (Ray adds its
own), and ``/v1/admin/reload`` is refused, because it would reach one replica of many: deploy again instead, and Serve
replaces the replicas one by one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from index.errors import require
from serving.app import create_app
from serving.direct import Application
from serving.errors import ApiError, SettingsError
from serving.live_bundle import LiveBundle
from serving.logs import log_to_stderr
from serving.process import engine_of
from serving.settings import Settings


def app(arguments: Mapping[str, Any]) -> Any:
    """What ``serve run`` deploys.

    Args:
        arguments: ``bundle`` (a path that every node has), ``replicas`` (1), ``cpus`` a replica (1), and any setting
            of :class:`serving.settings.Settings`; ``GENREC_*`` variables count too.

    Raises:
        MissingDependencyError: Ray Serve is not installed.
        SettingsError: no bundle, or a value that cannot be.
    """
    serve = require("ray.serve", extra="ray", purpose="Serving on a cluster")
    options = dict(arguments)
    replicas, cpus = (_number(options, name) for name in ("replicas", "cpus"))
    settings = Settings.read(os.environ, **options)
    if settings.bundle is None or settings.workers != 1:
        raise SettingsError(
            f"expected a bundle and one worker a replica, got bundle={settings.bundle}, workers={settings.workers}; "
            f"run: serve run serving.ray_app:app bundle=PATH replicas=N"
        )

    def build() -> Application:
        return application(settings)

    deployment = serve.deployment(
        name="genrec",
        num_replicas=int(replicas),
        ray_actor_options={"num_cpus": cpus},
        max_ongoing_requests=settings.queue_size + settings.max_batch,  # the engine's own queue says 429
    )
    return deployment(serve.ingress(build)()).bind()


def application(settings: Settings) -> Application:
    """One replica: the bundle loaded, behind the usual routes."""
    assert settings.bundle is not None
    log_to_stderr(settings.log_level)
    return create_app(settings, engine_of(settings, Path(settings.bundle)), _refuse_reload)


async def _refuse_reload(verify: bool) -> LiveBundle:
    raise ApiError(
        "bundle_refused",
        "expected a single server, got one replica of a cluster, which would be the only one to reload; deploy again",
    )


def _number(options: dict[str, Any], name: str) -> float:
    value = options.pop(name, 1)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if number <= 0:
        raise SettingsError(f"expected a number above 0 for {name}, got {value!r}")
    return number
