"""What the supervisor and a worker say to each other: one JSON object a line, over a pair of sockets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[
    "ready",  # worker: answers, with this model
    "failed",  # worker: cannot serve the bundle, and ends
    "alive",  # worker: its event loop turns and its engine does not hang
    "wish",  # worker: a client asked for a reload
    "outcome",  # supervisor: what came of the wish with this id
    "prepare",  # supervisor: load and warm what is on disk now
    "swap",  # supervisor: answer with what was prepared
    "forget",  # supervisor: do not, another worker could not prepare
    "done",  # worker: has done the last thing asked, and what its model is now
]


@dataclass(frozen=True, slots=True)
class Message:
    """One line. An error has a code (:data:`serving.errors.ERRORS`) and a text."""

    kind: Kind
    id: int = 0
    verify: bool = False
    model: str = ""
    catalog: str = ""
    code: str = ""
    text: str = ""

    def line(self) -> bytes:
        """As it goes over the wire."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Link:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Message) -> None:
        """Never waits: messages are few and short. Where the other end has gone, nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(message.line())

    async def receive(self) -> Message | None:
        """The next message; None when the other process has ended."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return Message(**json.loads(line)) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
