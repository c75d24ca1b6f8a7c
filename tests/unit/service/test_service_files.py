from __future__ import annotations

import pytest
from service_house import ANN, BOB, House

from lsi_ray.ledger.service_records import File
from lsi_ray.service.backend import ServiceError
from lsi_ray.service.file_store import FileStore, new_file_id


@pytest.fixture
def house(folder):
    house = House(folder, admission={"max_file_bytes_per_caller": 1000})
    yield house
    house.ledger.close()


def durable(house, size):
    store = FileStore(house.work.path)
    temporary, file = store.begin()
    file.write(b"x" * size)
    file_id = new_file_id()
    store.finish(temporary, file, file_id)
    return File(file_id, "", "in.jsonl", size, "batch", house.clock.now, None)


def test_a_repeated_file_is_not_counted_against_itself(house):
    """Ray calls again when the service died after it had committed and before it had answered."""
    file = durable(house, 600)
    first = house.files.add(ANN, file)
    assert house.files.add(ANN, file) == first
    assert FileStore(house.work.path).path(file.file_id).stat().st_size == 600


def test_a_file_too_many_is_gone_however_often_it_comes(house):
    house.files.add(ANN, durable(house, 600))
    second = durable(house, 600)
    for _ in range(2):
        with pytest.raises(ServiceError, match="600 bytes already"):
            house.files.add(ANN, second)
    assert not FileStore(house.work.path).path(second.file_id).exists()
    assert house.files.add(BOB, durable(house, 600)).bytes == 600
