"""The index of an archive: name -> byte range of the plain tar. Nothing is extracted.

`index_tar` reads every header once and no payload. It accepts an archive only when it is whole: every checksum right,
every payload inside the file, two zero blocks at the end and only zeros after them. Memory is that of the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.archive.codes import refusal
from lsi_ray.archive.limits import DEFAULT_LIMITS, ArchiveLimits
from lsi_ray.archive.names import FILES, JOBS, find_root, is_noise
from lsi_ray.archive.walk import File, walk
from lsi_ray.errors import ArchiveError

_FORMAT = "lsi-index-1"


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file of the archive."""

    name: str
    """Relative to the archive's root, NFC: "jobs.jsonl", "files/a.png"."""
    offset: int
    """Of its first byte in the plain tar."""
    size: int


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    members: dict[str, Member]
    """By name: jobs.jsonl and the regular files under files/."""
    jobs: Member
    size: int
    """Bytes of the plain tar."""
    ignored: tuple[str, ...]
    """Names in the tar that are no part of the format, for warnings."""


def index_tar(file: BinaryIO, limits: ArchiveLimits = DEFAULT_LIMITS, *, decompressed: bool = False) -> ArchiveIndex:
    """Index the plain tar `file`. Raises ArchiveError with any code of `codes`.

    `file` must be seekable, and its `read(n)` must give n bytes except at the end. Headers that lie far apart take a
    read each: give a remote file large blocks of read-ahead.

    Say `decompressed` for the tar out of a .tar.gz: its size then has the larger limit, and messages say that their
    offset is not one of the file as given.
    """
    try:
        return _index(file, limits, limits.tar_bytes if decompressed else limits.input_bytes)
    except ArchiveError as error:
        if not decompressed or error.offset is None:
            raise
        message = error.message.removesuffix(f" (at byte {error.offset})")
        raise ArchiveError(error.code, f"in the decompressed tar: {message}", error.offset) from None


def read_member(file: BinaryIO, member: Member) -> bytes:
    """All bytes of one member. Raises ArchiveError `truncated` when the file has become shorter."""
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) != member.size:
        raise refusal("truncated", f"{member.name!r} ends after {len(data)} of {member.size} bytes", member.offset)
    return data


def save_index(index: ArchiveIndex, path: Path) -> None:
    """Write the index atomically: afterwards `path` holds all of it, or what it held before."""
    with atomic_file(path) as file:
        file.write(msgspec.msgpack.encode((_FORMAT, index)))


def load_index(path: Path) -> ArchiveIndex:
    """What `save_index` wrote. Raises ArchiveError `bad_index` for anything else."""
    try:
        kind, index = msgspec.msgpack.decode(path.read_bytes(), type=tuple[str, ArchiveIndex])
    except msgspec.DecodeError as error:
        raise refusal("bad_index", f"{path} is no index of an archive: {error}") from None
    if kind != _FORMAT:
        raise refusal("bad_index", f"{path} is an index of another version: {kind[:40]!r}")
    return index


def _index(file: BinaryIO, limits: ArchiveLimits, max_bytes: int) -> ArchiveIndex:
    size = file.seek(0, 2)
    if size > max_bytes:
        raise refusal("too_large", f"the tar has {size} bytes; at most {max_bytes} are accepted")
    files: dict[str, File] = {}
    names = 0
    for entry in walk(file, size, limits):
        names += len(entry.name.encode())
        if names > limits.names_bytes:
            raise refusal(
                "too_large", f"the names of the files have more than {limits.names_bytes} bytes", entry.header
            )
        twin = files.setdefault(entry.name, entry)
        if twin is not entry:
            raise refusal("duplicate_name", f"{entry.name!r} is there twice, first at byte {twin.header}", entry.header)
    root = find_root(files)
    members, ignored = _members(files, root)
    jobs = members[JOBS]
    if jobs.size > limits.jobs_bytes:
        message = f"{JOBS} has {jobs.size} bytes; at most {limits.jobs_bytes} are accepted"
        raise refusal("too_large", message, files[root + JOBS].header)
    return ArchiveIndex(members, jobs, size, ignored)


def _members(files: dict[str, File], root: str) -> tuple[dict[str, Member], tuple[str, ...]]:
    members: dict[str, Member] = {}
    ignored: list[str] = []
    media = root + FILES
    for path, file in files.items():
        if not is_noise(path) and (path.startswith(media) or path == root + JOBS):
            name = path[len(root) :]
            members[name] = Member(name, file.offset, file.size)
        else:
            ignored.append(path)
    return members, tuple(ignored)
