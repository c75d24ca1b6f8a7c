"""Tensors on their way to the engine: large ones beside the pickle, and each as its own bytes only."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from lsi_ray.engine.parcel import Parcel
from lsi_ray.engine.vllm.wire import dumps, loads
from lsi_ray.stream.packet import from_block, to_block

torch: Any = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (400, 600)])
def test_tensors_arrive_as_they_were(dtype: Any, shape: tuple[int, ...]) -> None:
    count = int(torch.tensor(shape).prod())
    tensor = (torch.arange(count) % 120).to(dtype).reshape(shape)
    for payload in (dumps([tensor]), *from_block(to_block(dumps([tensor])))):
        (arrived,) = loads(payload)
        assert arrived.dtype == dtype
        assert torch.equal(arrived, tensor)


def test_only_what_is_large_travels_beside_the_pickle() -> None:
    small, large = torch.zeros(100), torch.zeros(100_000)
    assert isinstance(dumps(small), bytes)
    payload = dumps({"small": small, "large": large})
    assert isinstance(payload, Parcel)
    assert [memoryview(one).nbytes for one in payload.buffers] == [400_000]
    assert len(payload.head) < 1500


def test_a_view_travels_without_the_storage_behind_it() -> None:
    images = torch.arange(8 * 10_000, dtype=torch.float32).reshape(8, 10_000)
    payload = dumps([images[2], images[5].reshape(100, 100).t()])
    assert isinstance(payload, Parcel)
    assert sum(memoryview(one).nbytes for one in payload.buffers) == 2 * 40_000
    first, second = loads(payload)
    assert torch.equal(first, images[2])
    assert torch.equal(second, images[5].reshape(100, 100).t())


def test_a_tensor_over_memory_that_cannot_be_written_is_no_warning() -> None:
    (payload,) = from_block(to_block(dumps(torch.zeros(100_000))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loads(payload).sum() == 0
