"""JSON lines for the daemon's log, each stamped with the operation it belongs to.

Owns the context variable that carries the operation id from dispatch to every record.
"""

import json
import logging
import os
import time
from contextvars import ContextVar
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

operation_id: ContextVar[str] = ContextVar("operation_id", default="")

_LOG_BYTES = 16 * 1024 * 1024
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One record, one line: time, level, logger, message, op, and whatever `extra` named."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if op := operation_id.get():
            line["op"] = op
        line.update((key, value) for key, value in record.__dict__.items() if key not in _STANDARD)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _PrivateFile(RotatingFileHandler):
    """0600 from its first byte on, whatever the umask says."""

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600),
        )


def start_logging(level: str, path: Path | None) -> None:
    """Sends every record to the file, or to stderr when there is none. At 16 MiB the file is renewed; two old
    ones are kept."""
    handler: logging.Handler = logging.StreamHandler()
    if path is not None:
        handler = _PrivateFile(path, maxBytes=_LOG_BYTES, backupCount=2, encoding="utf-8")
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("qemu.qmp").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
