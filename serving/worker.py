"""One of several serving processes, as the supervisor starts it: ``python -m serving.worker LISTENER CONTROL``.

Both arguments are numbers of inherited sockets. The settings come over the second one, so that no key stands in a
list of processes. A worker ends when its supervisor has ended.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import sys
from importlib.util import find_spec

import uvicorn

from index.errors import GenrecError
from serving.app import create_app
from serving.engine import Engine
from serving.errors import ApiError, NotReady, api_error
from serving.live_bundle import LiveBundle
from serving.logs import log_to_stderr, logger
from serving.process import BACKLOG, engine_of, server_of
from serving.settings import Settings
from serving.worker_link import Kind, Link, Message

BEAT_S = 0.5  # between two signs of life


class _SharedListener(socket.socket):
    """A socket that other workers listen on too: nobody may shorten its queue."""

    def listen(self, _: int = BACKLOG, /) -> None:
        """As long as it always was, whatever the event loop asks for."""
        super().listen(BACKLOG)


class Worker:
    """Does what the supervisor says, and tells it what clients wish."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._link: Link | None = None
        self._prepared: LiveBundle | None = None
        self._ids = itertools.count(1)
        self._wishes: dict[int, asyncio.Future[Message]] = {}

    async def serve(self, server: uvicorn.Server, listener: socket.socket, control: socket.socket) -> None:
        """Answer clients until the server is stopped, or the supervisor has gone."""
        self._link = Link(*await asyncio.open_connection(sock=control))
        listener.listen(BACKLOG)
        self._send("ready")
        tasks = [asyncio.create_task(one) for one in (self._obey(self._link, server), self._watch(server))]
        await server.serve(sockets=[listener])
        for task in tasks:
            task.cancel()

    async def reload(self, verify: bool) -> LiveBundle:
        """Ask the supervisor to let all workers reload, and wait until they have.

        Raises:
            ApiError: why they have not.
            NotReady: there is no supervisor any more.
        """
        if self._link is None:
            raise NotReady("expected a supervisor, got none yet; send the request again")
        wish = next(self._ids)
        self._wishes[wish] = asyncio.get_running_loop().create_future()
        try:
            self._link.send(Message("wish", wish, verify))
            outcome = await self._wishes[wish]
        finally:
            del self._wishes[wish]
        if outcome.code:
            raise ApiError(outcome.code, outcome.text)
        return self._engine.live

    async def _obey(self, link: Link, server: uvicorn.Server) -> None:
        preparing: set[asyncio.Task[None]] = set()
        while (message := await link.receive()) is not None:
            if message.kind == "prepare":
                task = asyncio.create_task(self._prepare(message.verify))
                preparing.add(task)
                task.add_done_callback(preparing.discard)
            elif message.kind == "swap":
                assert self._prepared is not None  # the supervisor has heard that it is there
                self._engine.swap(self._prepared)
                self._prepared = None
                self._send("done")
            elif message.kind == "forget":
                self._prepared = None
            elif message.kind == "outcome" and message.id in self._wishes:
                self._wishes[message.id].set_result(message)
        logger.error("supervisor_gone")
        server.should_exit = True

    async def _prepare(self, verify: bool) -> None:
        try:
            self._prepared = await self._engine.prepare(verify=verify)
        except Exception as error:
            refused = api_error(error)
            if not isinstance(error, GenrecError):
                logger.error("reload_failed", exc_info=error)
            self._send("done", code=refused.kind.code, text=refused.message)
        else:
            self._send("done", self._prepared)

    async def _watch(self, server: uvicorn.Server) -> None:
        """Give signs of life; end where the engine has died, so that the supervisor starts another worker."""
        while self._engine.ready:
            if not self._engine.hangs:
                self._send("alive")
            await asyncio.sleep(BEAT_S)
        if not server.should_exit:
            logger.error("engine_died")
            server.should_exit = True

    def _send(self, kind: Kind, live: LiveBundle | None = None, *, code: str = "", text: str = "") -> None:
        assert self._link is not None
        live = live or self._engine.live
        self._link.send(Message(kind, model=live.model, catalog=live.catalog, code=code, text=text))


def main() -> None:
    """The process."""
    listener = _SharedListener(fileno=int(sys.argv[1]))
    control = socket.socket(fileno=int(sys.argv[2]))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor reloads all workers together
    with control.makefile("rb", buffering=0) as lines:
        settings = Settings.model_validate_json(lines.readline())
    log_to_stderr(settings.log_level)
    assert settings.bundle is not None
    try:
        engine = engine_of(settings, settings.bundle)
    except GenrecError as error:
        control.sendall(Message("failed", text=str(error)).line())
        sys.exit(1)
    engine.metrics.workers.set(1)
    engine.metrics.starts.inc()
    worker = Worker(engine)
    # One connection at a time, so that the others get some: they all wait on one socket. uvloop asks the system
    # itself, past the class above, and would leave it a queue of one.
    backlog = BACKLOG if find_spec("uvloop") else 1
    server = server_of(create_app(settings, engine, worker.reload), engine, backlog=backlog)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(worker.serve(server, listener, control))


if __name__ == "__main__":
    main()
