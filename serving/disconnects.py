"""Work that stops when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from serving.errors import ClientGone

Result = TypeVar("Result")
LOOKS_AFTER_S = 0.025
"""From when on it is looked whether the client is still there. Most answers are made by then, and watching costs a
task and two turns of the loop for each."""


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do ``work``; cancel it as soon as the client closes the connection. The body must have been read.

    Raises:
        ClientGone: the client hung up.
    """
    loop, working = asyncio.get_running_loop(), asyncio.current_task()
    assert working is not None
    watcher: asyncio.Task[None] | None = None
    has_gone = False

    def watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(_disconnected(request))
        watcher.add_done_callback(stop)

    def stop(watched: asyncio.Task[None]) -> None:
        nonlocal has_gone
        if not watched.cancelled():
            has_gone = True
            working.cancel()

    timer = loop.call_later(LOOKS_AFTER_S, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if has_gone and not working.uncancel():  # nobody else has cancelled it
            raise ClientGone from None
        raise
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.remove_done_callback(stop)
            watcher.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
