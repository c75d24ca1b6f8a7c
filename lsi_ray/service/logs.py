"""Structured logs: one JSON object a line on standard error, which Ray keeps per process. Nothing signed gets in."""

from __future__ import annotations

import json
import logging
import re

from lsi_ray.storage.redact import redact

_BATCH = re.compile(r"\bbatch_\d{8}_[0-9a-f]{16}\b")


class JsonLines(logging.Formatter):
    """`time, level, logger, message`, with `batch` where the message names one, and `error` for an exception."""

    def format(self, record: logging.LogRecord) -> str:
        message = redact(record.getMessage())
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if (named := _BATCH.search(message)) is not None:
            line["batch"] = named[0]
        if record.exc_info:
            line["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def log_lines() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("lsi_ray")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
