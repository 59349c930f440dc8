"""The two servers of the serving benchmark as processes, and how each is asked for the same thing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.serve_bundle import BEAMS

_GENREC = "from genrec.cli.main import main; main()"  # the command, also where no script is installed
STARTS_WITHIN = 180.0  # seconds
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    name: str
    url: str
    pid: int
    facts: dict[str, Any] = field(default_factory=dict)  # what it said of itself

    def cpu(self) -> float:
        """Seconds of processor time it has used, all threads; NaN where the system does not say."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def genrec_server(bundle: Path, log: Path, queue_size: int = 1024) -> Iterator[Server]:
    """``genrec serve`` without a prompt cache; one thread searches, whatever else it is set to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _GENREC, "serve", str(bundle), "--port", str(port)]
    command += ["--prompt-cache-mb", "0"]
    more = {"GENREC_QUEUE_SIZE": str(queue_size), "GENREC_DEFAULT_TIMEOUT_MS": "60000"}
    with _process(command, log, more) as process:
        _wait_for(process, port, log)
        yield Server("genrec", f"http://127.0.0.1:{port}/v1/recommendations", process.pid)


@contextmanager
def hugging_face_server(bundle: Path, log: Path, max_batch: int | None = None) -> Iterator[Server]:
    """The peer."""
    command = [sys.executable, "-m", "benchmarks.hf_server", str(bundle)]
    command += ["--max-batch", str(max_batch)] if max_batch else []
    with _process(command, log, {}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"expected the peer to start, it did not: {log.read_text()[-2000:]}")
        facts = json.loads(line)
        _wait_for(process, facts["port"], log)
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


@contextmanager
def _process(
    command: list[str], log: Path, environment: dict[str, str], stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, env={**os.environ, **_ONE_THREAD, **environment}, stdout=stdout or errors, stderr=errors
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until somebody listens; each of the two listens when its model is loaded."""
    begin = time.monotonic()
    while time.monotonic() - begin < STARTS_WITHIN:
        if process.poll() is not None:
            break
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"expected a server on port {port}, got none: {log.read_text()[-2000:]}")
