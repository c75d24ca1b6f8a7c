"""The ledger's backup, as docs/operations.md has it: taken while the service runs, put back after its disk was lost."""

from __future__ import annotations

import json
import sqlite3
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "service"))

from service_house import ANN, House

from lsi_ray.service.desk import sweep


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.ledger.close()


def back_up(house: House) -> Path:
    """`sqlite3 ledger.sqlite ".backup FILE"` does the same."""
    copy = house.folder / "backup.sqlite"
    with closing(sqlite3.connect(house.work.ledger)) as live, closing(sqlite3.connect(copy)) as kept:
        live.backup(kept)
    return copy


def lose_and_restore(house: House, copy: Path) -> None:
    house.ledger.close()
    for path in house.work.path.glob("ledger.sqlite*"):
        path.unlink()
    house.work.ledger.write_bytes(copy.read_bytes())
    house.open()


def answered(house: House, name: str = "out.tar.gz") -> list[Any]:
    with tarfile.open(house.folder / name) as tar:
        lines = tar.extractfile("output.jsonl").read().splitlines()  # type: ignore[union-attr]
    return [json.loads(line)["custom_id"] for line in lines]


def test_rows_answered_after_the_backup_are_answered_again_and_once(house: House) -> None:
    batch_id = house.submit(6, output_url=house.output())
    house.tick()
    house.answer(batch_id, {0, 1, 2})
    copy = back_up(house)
    house.answer(batch_id, {3, 4})
    lose_and_restore(house, copy)
    assert house.ledger.progress(batch_id).completed == 3
    house.answer(batch_id)
    house.tick(4)
    assert house.status(batch_id) == "completed"
    assert answered(house) == [f"r{number}" for number in range(6)]


def test_a_batch_submitted_after_the_backup_is_unknown_and_its_folder_goes(house: House) -> None:
    copy = back_up(house)
    batch_id = house.submit(2, output_url=house.output())
    house.tick()
    lose_and_restore(house, copy)
    sweep(house.work, house.ledger, house.clock.now)
    assert not house.ledger.unfinished()
    assert not house.work.batch(batch_id).path.exists()


def test_a_batch_that_ended_after_the_backup_is_not_run_without_its_input(house: House) -> None:
    batch_id = house.submit(2, output_url=house.output())
    house.tick()
    copy = back_up(house)
    house.answer(batch_id)
    house.tick(4)
    assert house.status(batch_id) == "completed"
    lose_and_restore(house, copy)
    assert house.status(batch_id) == "in_progress"
    sweep(house.work, house.ledger, house.clock.now)
    house.tick(2)
    view = house.desk.get(ANN, batch_id)
    assert view.status == "failed"
    assert [finding.code for finding in view.findings] == ["work_lost"]
    assert answered(house) == ["r0", "r1"], "what was delivered stays"
