"""Blocks: values come out as they went in, and large buffers are not copied on the way out."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pyarrow as pa
import pytest

from lsi_ray.engine.parcel import Parcel
from lsi_ray.stream.packet import Packet, Row, from_block, to_block


def packet(*payloads: bytes | Parcel) -> Packet:
    rows = [Row(number, number, number, f"id-{number}", payload) for number, payload in enumerate(payloads)]
    return Packet("batch", 1, 2, exclusive=False, rank=3, cache_salt="", rows=rows)


def opened(payload: bytes | Parcel | None) -> list[bytes]:
    assert isinstance(payload, Parcel)
    return [payload.head, *(bytes(one) for one in payload.buffers)]


def test_a_packet_of_bytes_comes_out_as_it_went_in() -> None:
    before = packet(b"", b"abc" * 1000)
    (after,) = from_block(to_block(before))
    assert after == before


def test_parcels_of_all_sizes_come_out_as_they_went_in() -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    sizes = [[rng.choice([0, 1, 63, 64, 65, 5000]) for _ in range(rng.randint(0, 4))] for _ in range(20)]
    before = packet(*(Parcel(rng.randbytes(9), tuple(rng.randbytes(size) for size in some)) for some in sizes))
    (after,) = from_block(to_block(before))
    assert [opened(row.payload) for row in after.rows] == [opened(row.payload) for row in before.rows]


def test_buffers_are_views_of_the_block_and_aligned() -> None:
    block = to_block(packet(Parcel(b"x", (b"a" * 1001, np.arange(3000, dtype=np.float64)))))
    (after,) = from_block(block)
    data = block.column("packet").chunk(0).buffers()[2]
    (payload,) = (row.payload for row in after.rows)
    for one in payload.buffers:
        begin = pa.py_buffer(one).address - data.address
        assert 0 < begin < data.size
        assert begin % 64 == 0


def test_the_views_outlive_the_block() -> None:
    block = to_block(packet(Parcel(b"x", (b"a" * 100_000,))))
    (after,) = from_block(block)
    del block
    assert opened(after.rows[0].payload) == [b"x", b"a" * 100_000]


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_parcel_pickles_without_anyone_who_takes_its_buffers(protocol: int) -> None:
    parcel = Parcel(b"head", (np.arange(4, dtype=np.uint8), b""))
    assert opened(pickle.loads(pickle.dumps(parcel, protocol))) == [b"head", b"\0\1\2\3", b""]


def test_the_length_of_a_parcel_is_its_bytes() -> None:
    assert len(Parcel(b"head", (np.arange(4, dtype=np.int64), b"abc"))) == 4 + 32 + 3
