"""Stages say where a process logs; here they are many in one process."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logger() -> Iterator[None]:
    """lsi_ray's, given back as it was."""
    logger = logging.getLogger("lsi_ray")
    before = logger.handlers, logger.level, logger.propagate
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before
