"""Tars made by hand, block by block, for the tests: right ones, and wrong ones that no tool would write."""

from __future__ import annotations

import gzip
import io

from lsi_ray.archive.detect import detect
from lsi_ray.archive.gzip import stage_gzip
from lsi_ray.archive.index import ArchiveIndex, index_tar, read_member
from lsi_ray.archive.limits import DEFAULT_LIMITS, ArchiveLimits
from lsi_ray.errors import ArchiveError

END = bytes(1024)


def seal(block: bytes) -> bytes:
    """The header with its checksum set right."""
    bare = block[:148] + b" " * 8 + block[156:]
    return bare[:148] + b"%06o\0 " % sum(bare) + bare[156:]


def header(
    name: bytes, size: int | bytes = 0, kind: bytes = b"0", magic: bytes = b"ustar\x0000", prefix: bytes = b""
) -> bytes:
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    start = name.ljust(100, b"\0") + b"0000644\0" * 3 + field + b"00000000000\0" + bytes(8) + kind
    return seal((start.ljust(257, b"\0") + magic.ljust(88, b"\0") + prefix).ljust(512, b"\0"))


def entry(name: bytes, data: bytes = b"", kind: bytes = b"0", **options: bytes) -> bytes:
    return header(name, len(data), kind, **options) + data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(len(body), len(body) + 9) if n == len(body) + len(str(n)))
    return str(length).encode() + body


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return entry(b"PaxHeaders/x", b"".join(record(key, value) for key, value in records), kind)


def gnu_name(name: bytes) -> bytes:
    return entry(b"././@LongLink", name + b"\0", b"L", magic=b"ustar  \0")


JOBS = entry(b"jobs.jsonl", b"{}\n")


def archive(*parts: bytes) -> bytes:
    """jobs.jsonl, the parts, and a proper end."""
    return JOBS + b"".join(parts) + END


def read(data: bytes, limits: ArchiveLimits = DEFAULT_LIMITS) -> tuple[ArchiveIndex, dict[str, bytes]]:
    """What a .tar or .tar.gz holds, read the way that a batch is."""
    if detect(data) == "tar":
        return contents(data, index_tar(io.BytesIO(data), limits))
    plain = io.BytesIO()
    stage_gzip(io.BytesIO(data), plain, limits)
    return contents(plain.getvalue(), index_tar(plain, limits, decompressed=True))


def outcome(
    data: bytes, limits: ArchiveLimits = DEFAULT_LIMITS
) -> tuple[ArchiveIndex, dict[str, bytes]] | ArchiveError:
    """What `read` gives or raises."""
    try:
        return read(data, limits)
    except ArchiveError as error:
        return error


def contents(plain: bytes, index: ArchiveIndex) -> tuple[ArchiveIndex, dict[str, bytes]]:
    return index, {name: read_member(io.BytesIO(plain), member) for name, member in index.members.items()}


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
