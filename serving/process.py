"""The serving process: a socket, a bundle, an engine and uvicorn, put together from settings."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import uvicorn

from index.errors import GenrecError
from serving.app import create_app
from serving.direct import Application
from serving.engine import Engine
from serving.errors import SettingsError
from serving.live_bundle import LiveBundle
from serving.logs import log_to_stderr, logger
from serving.settings import Settings
from serving.supervisor import supervise

GRACE_S = 30
BACKLOG = 2048  # connections the system holds until they are accepted; uvicorn's own default


def run(settings: Settings) -> None:
    """Serve until the process is told to stop (SIGTERM, SIGINT); requests that have come are still answered.

    SIGHUP serves what is in the bundle's directory now, as ``POST /v1/admin/reload`` does.

    Raises:
        SettingsError: no bundle, or an address that cannot be listened on.
        GenrecError: the bundle cannot be served.
    """
    bundle = settings.bundle
    if bundle is None:
        raise SettingsError("expected a bundle to serve, got none; name one")
    # Bound before the model is loaded, so that a port that is taken is said at once.
    with _bound(settings) as listener:
        log_to_stderr(settings.log_level)
        warn_if_open(settings)
        if settings.workers > 1:
            if not hasattr(signal, "SIGHUP"):
                raise SettingsError("expected one worker on Windows, got more; leave --workers out")
            supervise(settings, listener)
        else:
            _serve(settings, bundle, listener)


def engine_of(settings: Settings, bundle: Path) -> Engine:
    """An engine with the bundle loaded.

    Raises:
        GenrecError: the bundle cannot be served.
    """

    def load(verify: bool) -> LiveBundle:
        return LiveBundle.load(bundle, verify=verify, prompt_cache_bytes=settings.prompt_cache_mb * 2**20)

    live = load(settings.verify)
    # The garbage collector goes through every object now and then, and all clients wait: 145 ms for the 230,000
    # of a server with Beauty's 12,101 items. What is loaded by now stays, so it need not be looked at again.
    gc.collect()
    gc.freeze()
    return Engine(
        live,
        load,
        queue_size=settings.queue_size,
        max_batch=settings.max_batch,
        usual_timeout=settings.default_timeout_ms / 1000,
        hang_timeout=settings.hang_timeout_s,
    )


def server_of(app: Application, engine: Engine, *, backlog: int = BACKLOG) -> uvicorn.Server:
    """uvicorn around the application; requests that run when it is told to stop have 30 s to end."""
    protocol: type[asyncio.Protocol] | Literal["auto"] = "auto"
    if find_spec("httptools"):  # else refusals go the long way, through the application
        from serving.protocol import Door, protocol_of

        protocol = protocol_of(Door(engine, app.direct_paths))
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            log_config=None,  # logs.py has set them up
            access_log=False,  # request_log.py writes a line for every request
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            backlog=backlog,
        )
    )


def _serve(settings: Settings, bundle: Path, listener: socket.socket) -> None:
    engine = engine_of(settings, bundle)
    live = engine.live
    listener.listen(BACKLOG)  # from here on clients get through, so it may be said
    host, port = listener.getsockname()[:2]
    facts = {"model": live.model, "catalog": live.catalog, "host": host, "port": port}
    logger.info("serving", extra={"facts": facts})
    server = server_of(create_app(settings, engine), engine)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_until_stopped(server, engine, listener))


async def _until_stopped(server: uvicorn.Server, engine: Engine, listener: socket.socket) -> None:
    reloads: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected before it ends

    def reload() -> None:
        task = asyncio.ensure_future(_reload(engine))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    if hasattr(signal, "SIGHUP"):  # not on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    await server.serve(sockets=[listener])


async def _reload(engine: Engine) -> None:
    """A reload that nobody waits for: what came of it stands in the log."""
    previous = engine.live.model
    try:
        live = await engine.reload()
    except GenrecError as error:
        logger.error("reload_refused", extra={"facts": {"reason": str(error), "model": previous}})
    except Exception as error:
        logger.error("reload_failed", exc_info=error, extra={"facts": {"model": previous}})
    else:
        logger.info("reloaded", extra={"facts": {"model": live.model, "previous": previous}})


def warn_if_open(settings: Settings) -> None:
    """Say so where other machines can reach the server and no key is asked for."""
    if not settings.is_loopback and not settings.api_keys:
        logger.warning(
            "open_to_others: listening beyond this machine without an API key; set GENREC_API_KEYS or --api-keys-file"
        )


def _bound(settings: Settings) -> socket.socket:
    """A socket at the address, which does not listen yet.

    Raises:
        SettingsError: the address is taken, or not one of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _no_address(settings, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _no_address(settings, error) from error
    return listener


def _no_address(settings: Settings, error: OSError) -> SettingsError:
    return SettingsError(
        f"expected a free address of this machine, got {settings.host} port {settings.port}: "
        f"{error.strerror or error}; choose another --host or --port"
    )
