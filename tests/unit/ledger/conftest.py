"""A ledger under a fake clock, on a disk in memory where there is one: an fsync takes 3 ms elsewhere."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lsi_ray.ledger.records import Answers, CommitResult, NewBatch, SegmentRef
from lsi_ray.ledger.service_ledger import ServiceLedger

MEMORY = Path("/dev/shm")


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Work:
    """A ledger with shorthand for tests; segments are names only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.ledger = self.open()

    def open(self) -> ServiceLedger:
        return ServiceLedger(self.folder / "ledger.sqlite", clock=self.clock, lock_wait_s=0)

    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open()

    def started(self, batch_id: str, rows: int, *, shard_rows: int = 64, **new: object) -> None:
        self.ledger.create_batch(NewBatch(batch_id, **{"model": "m", **new}))  # type: ignore[arg-type]
        self.ledger.start_batch(batch_id, rows, rows, shard_rows)

    def commit(self, session: int, batch_id: str, positions: list[int] | range, name: str = "") -> CommitResult:
        """Every third position fails; a row costs 10 + 2 tokens, 5 of them cached."""
        n = len(positions)
        name = name or f"{batch_id}-{positions[0]}-{n}"
        answers = Answers(
            batch_id,
            tuple(positions),
            tuple(position % 3 == 0 for position in positions),
            (10,) * n,
            (2,) * n,
            (5,) * n,
        )
        return self.ledger.commit(session, SegmentRef(name, 1, n, f"sha of {name}"), answers)


@pytest.fixture
def work() -> Iterator[Work]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        work = Work(Path(folder))
        yield work
        work.ledger.close()
