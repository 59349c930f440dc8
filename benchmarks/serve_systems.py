"""The two servers of the serving benchmark as processes, and how each is asked for the same thing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.serve_bundle import BEAMS
from genrec.bench import server_process
from genrec.bench.server_process import cpu_seconds, running, wait_for_port


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    name: str
    url: str
    pid: int
    facts: dict[str, Any] = field(default_factory=dict)  # what it said of itself

    def cpu(self) -> float:
        """Seconds of processor time it has used, all threads; NaN where the system does not say."""
        return cpu_seconds(self.pid)


@contextmanager
def genrec_server(bundle: Path, log: Path, queue_size: int = 1024) -> Iterator[Server]:
    """``genrec serve`` without a prompt cache; one thread searches, whatever else it is set to."""
    settings = {"GENREC_QUEUE_SIZE": str(queue_size), "GENREC_DEFAULT_TIMEOUT_MS": "60000"}
    with server_process.genrec_server(bundle, log, settings=settings) as server:
        yield Server("genrec", server.url, server.pid)


@contextmanager
def hugging_face_server(bundle: Path, log: Path, max_batch: int | None = None) -> Iterator[Server]:
    """The peer."""
    command = [sys.executable, "-m", "benchmarks.hf_server", str(bundle)]
    command += ["--max-batch", str(max_batch)] if max_batch else []
    with running(command, log, {}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"expected the peer to start, it did not: {log.read_text()[-2000:]}")
        facts = json.loads(line)
        wait_for_port(process, facts["port"], log)
        yield Server("peer", f"http://127.0.0.1:{facts['port']}/v1/recommendations", process.pid, facts)


def peer_body(history: Sequence[str]) -> bytes:
    """What the peer is asked."""
    return json.dumps({"history": list(history)}).encode()


def genrec_body(
    history: Sequence[str],
    normalize: Literal["vocabulary", "catalog"] = "vocabulary",
    synchronize: Literal["leaf", "token"] = "leaf",
) -> bytes:
    """What genrec is asked: as many beams and items as the peer, items of the history allowed as there."""
    decoding = {"beam": BEAMS, "normalize": normalize, "synchronize": synchronize}
    asked = {
        "history": list(history),
        "num_results": BEAMS,
        "filter": {"exclude_seen": False},
        "decoding": decoding,
    }
    return json.dumps(asked).encode()
