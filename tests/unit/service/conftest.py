from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_house import House

MEMORY = Path("/dev/shm")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def house(folder):
    house = House(folder)
    yield house
    house.ledger.close()
