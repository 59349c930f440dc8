"""Logs as one JSON object a line, on standard error. A line never holds a key, a history or a body."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

logger = logging.getLogger("genrec.serving")
_ENCODE = json.JSONEncoder(ensure_ascii=True, default=str).encode


class JsonLines(logging.Formatter):
    """``{"ts": …, "level": …, "event": …}`` and what the caller gave under ``extra={"facts": {…}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; control characters are escaped, so a client cannot forge one."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        facts = getattr(record, "facts", None)
        if isinstance(facts, dict):
            line |= facts
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODE(line)


def log_to_stderr(level: str) -> None:
    """Send this process's logs, uvicorn's own included, to standard error as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("genrec.serving", "uvicorn", "uvicorn.error"):
        one = logging.getLogger(name)
        one.handlers = [handler] if name != "uvicorn.error" else []
        one.setLevel(level.upper())
        one.propagate = name == "uvicorn.error"
