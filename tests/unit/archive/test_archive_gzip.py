from __future__ import annotations

import gzip
import io
import os
import random
import zlib

import pytest
from tar_blocks import zipped

from lsi_ray.archive.gzip import GzipInfo, GzipStager, stage_gzip
from lsi_ray.archive.limits import ArchiveLimits
from lsi_ray.errors import ArchiveError

PLAIN = b"plain text, " * 50_000 + bytes(range(256)) * 400


def stage(data: bytes, limits: ArchiveLimits | None = None) -> bytes:
    target = io.BytesIO()
    stage_gzip(io.BytesIO(data), target, limits or ArchiveLimits())
    return target.getvalue()


def refused(data: bytes, limits: ArchiveLimits | None = None) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        stage(data, limits)
    return caught.value


def member(flags: int, extra: bytes = b"", plain: bytes = b"hello") -> bytes:
    """A gzip member with a header of our own."""
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(plain) + deflate.flush()
    trailer = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    return b"\x1f\x8b\x08" + bytes([flags]) + bytes(5) + b"\xff" + extra + body + trailer


def test_decompresses_and_counts() -> None:
    data = zipped(PLAIN)
    target = io.BytesIO()

    assert stage_gzip(io.BytesIO(data), target) == GzipInfo(len(data), len(PLAIN), 1)
    assert target.getvalue() == PLAIN


@pytest.mark.parametrize("chunk_bytes", [1, 7, 4096, 1 << 20])
def test_chunks_of_any_size_give_the_same(chunk_bytes: int) -> None:
    plain = PLAIN[-30_000:]
    data = zipped(plain) + zipped(b"") + zipped(plain) + bytes(100)
    target = io.BytesIO()
    stager = GzipStager(target)
    for start in range(0, len(data), chunk_bytes):
        stager.feed(data[start : start + chunk_bytes])

    assert stager.close() == GzipInfo(len(data), 2 * len(plain), 3)
    assert target.getvalue() == plain * 2


@pytest.mark.parametrize("chunk_bytes", [1, 3, 1000])
def test_reads_every_optional_header_field(chunk_bytes: int) -> None:
    fields = b"\x2c\x01" + b"e" * 300 + b"name\0" + b"comment\0"
    head = b"\x1f\x8b\x08" + bytes([2 | 4 | 8 | 16]) + bytes(5) + b"\xff" + fields
    data = member(2 | 4 | 8 | 16, fields + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little"))
    target = io.BytesIO()
    stager = GzipStager(target)
    for start in range(0, len(data), chunk_bytes):
        stager.feed(data[start : start + chunk_bytes])
    stager.close()

    assert target.getvalue() == b"hello"


@pytest.mark.parametrize(
    ("data", "code", "offset"),
    [
        (b"", "truncated", 0),
        (b"\x1f", "truncated", 1),
        (b"hello", "bad_gzip", 0),
        (b"\x1f\x8b\x07" + bytes(30), "bad_gzip", 0),
        (member(0x20), "bad_gzip", 0),
        (member(0x80), "bad_gzip", 0),
        (member(2, b"\1\2"), "bad_gzip", 0),
        (member(8, b"n" * 200_000), "bad_gzip", 0),
        (member(0) + b"junk", "trailing_data", len(member(0))),
        (member(0) + bytes(10) + b"junk", "trailing_data", len(member(0)) + 10),
        (member(0) + bytes(10) + member(0), "trailing_data", len(member(0)) + 10),
        (member(0) + b"\x1f", "truncated", len(member(0)) + 1),
        (member(0) + member(0)[:-1], "truncated", 2 * len(member(0)) - 1),
        (member(0) * 17, "too_large", 16 * len(member(0))),
    ],
)
def test_refuses_what_is_not_whole_gzip_naming_the_byte(data: bytes, code: str, offset: int) -> None:
    error = refused(data)

    assert (error.code, error.offset) == (code, offset)
    assert f"(at byte {offset})" in str(error)


@pytest.mark.parametrize("place", [-1, -4, -5, -8])
def test_refuses_a_wrong_crc_or_length(place: int) -> None:
    data = bytearray(zipped(PLAIN))
    data[place] ^= 1

    assert refused(bytes(data)).code == "bad_gzip"


def test_names_the_piece_in_which_corruption_was_noticed() -> None:
    data = bytearray(zipped(os.urandom(400_000)))
    data[300_000:300_200] = bytes(200)

    error = refused(bytes(data))

    assert error.code == "bad_gzip"
    assert error.offset is not None
    assert error.offset % 65_536 == 0


def test_limits_count_bytes_that_are_produced() -> None:
    bomb = zipped(bytes(30_000_000))
    limits = ArchiveLimits(gzip_ratio=10_000)

    assert refused(bomb).code == "too_large"
    assert "200:1" in str(refused(bomb))
    assert stage(bomb, limits) == bytes(30_000_000)
    assert "5000 bytes" in str(refused(bomb, ArchiveLimits(gzip_ratio=10_000, tar_bytes=5000)))
    assert "larger than 100" in str(refused(bomb, ArchiveLimits(input_bytes=100)))


def test_a_bomb_is_stopped_before_it_is_written() -> None:
    target = io.BytesIO()
    with pytest.raises(ArchiveError):
        stage_gzip(io.BytesIO(zipped(bytes(100_000_000))), target)

    assert len(target.getvalue()) < 20_000_000


def test_agrees_with_the_standard_library_on_random_streams() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(50):
        parts = [rng.randbytes(rng.randrange(3000)) * rng.randrange(1, 9) for _ in range(rng.randrange(1, 4))]
        data = b"".join(gzip.compress(part, rng.randrange(10), mtime=rng.randrange(1 << 31)) for part in parts)
        assert stage(data) == gzip.decompress(data) == b"".join(parts)
