"""``genrec serve`` as a process of its own: started, waited for, ended; and the processor time it used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from index.errors import DecoderError

_GENREC = "from genrec.cli.main import main; main()"  # the command, also where no script is installed
STARTS_WITHIN = 180.0  # seconds
ENDS_WITHIN = 20.0  # seconds; then it is killed
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that listens."""

    url: str
    pid: int

    def cpu(self) -> float:
        """Seconds of processor time it has used, all threads; NaN where the system does not say."""
        return cpu_seconds(self.pid)


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time a process has used, all threads; NaN where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def genrec_server(
    bundle: Path, log: Path, *, prompt_cache_mb: int = 0, settings: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """``genrec serve`` on a free port of this machine, one worker, one thread for the model.

    Args:
        bundle: what it serves.
        log: where its standard error goes.
        prompt_cache_mb: MiB of remembered prompts; with 0 every request pays for its whole prompt.
        settings: further environment variables, ``GENREC_QUEUE_SIZE`` say.

    Raises:
        DecoderError: it did not listen in time; the end of its log is in the message.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _GENREC, "serve", str(bundle), "--port", str(port)]
    command += ["--prompt-cache-mb", str(prompt_cache_mb)]
    with running(command, log, settings or {}) as process:
        wait_for_port(process, port, log)
        yield ServerProcess(f"http://127.0.0.1:{port}/v1/recommendations", process.pid)


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str], stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with one thread for its matrices, told to end and waited for when the block ends."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, env={**os.environ, **_ONE_THREAD, **environment}, stdout=stdout or errors, stderr=errors
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until somebody listens: servers here listen when their model is loaded.

    Raises:
        DecoderError: the process ended, or nobody listens in time.
    """
    begin = time.monotonic()
    while time.monotonic() - begin < STARTS_WITHIN:
        if process.poll() is not None:
            break
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise DecoderError(
        f"expected a server on port {port}, got none. It said: {log.read_text('utf-8', 'replace')[-2000:]}"
    )
