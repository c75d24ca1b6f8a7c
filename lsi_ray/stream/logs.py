"""Structured logs: one JSON object a line, on standard error, which Ray keeps per process, or in the work dir.

Nothing signed gets in, and nothing of the user's: a row is named by its batch and its number.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from lsi_ray.errors import RowError
from lsi_ray.storage.redact import redact

_BATCH = re.compile(r"\bbatch_\d{8}_[0-9a-f]{16}\b")
LOG_FILE = "stream.log"
"""In the work dir of `lsi run`, whose terminal is for people."""

_ROWS = 1000
_FIELD_CHARS = 500


class JsonLines(logging.Formatter):
    """`time, level, logger, pid, message` and what `fields` gave, `batch` also where only the message names one, and
    `error` for an exception."""

    def format(self, record: logging.LogRecord) -> str:
        message = redact(record.getMessage())
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": message,
        }
        if (named := _BATCH.search(message)) is not None:
            line["batch"] = named[0]
        for name, value in getattr(record, "fields", {}).items():
            line[name] = redact(value)[:_FIELD_CHARS] if isinstance(value, str) else value
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def fields(**values: Any) -> dict[str, Any]:
    """For `extra=` of a log call: they stand beside the message in the line."""
    return {"fields": values}


def log_lines(path: Path | None = None) -> None:
    """From now on, what lsi_ray logs in this process goes to the file, to which other processes append too, or to
    standard error."""
    handler = logging.StreamHandler() if path is None else _appending(path)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("lsi_ray")
    for old in logger.handlers:
        old.close()
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _appending(path: Path) -> logging.Handler:
    """One write to the end of the file a line, so that lines of several processes do not mix."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return logging.FileHandler(path)


class RowLog:
    """A line for each row that failed, the first thousand of a batch: the output tells of all of them."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: Counter[str] = Counter()

    def failed(self, batch_id: str, row: int, error: RowError) -> None:
        self._told[batch_id] += 1
        if self._told[batch_id] > _ROWS:
            return
        level = logging.WARNING if error.code == "internal_error" else logging.INFO
        self._logger.log(level, "row failed", extra=fields(batch=batch_id, row=row, code=error.code))
        if self._told[batch_id] == _ROWS:
            self._logger.warning("no more lines for failed rows of this batch", extra=fields(batch=batch_id))
