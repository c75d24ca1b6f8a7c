"""The rows and media of one accepted batch, read by byte range from its plain tar. Pure; any process may open it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from lsi_ray.archive.index import ArchiveIndex, load_index
from lsi_ray.archive.plan import load_plan
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.archive.rows import MediaRef, Request, parse_row
from lsi_ray.config import Config, VllmEngine
from lsi_ray.errors import ArchiveError, ConfigError, StorageError
from lsi_ray.ledger.workdir import BatchDir, atomic_write
from lsi_ray.storage.local_files import stat_local


@dataclass(frozen=True, slots=True)
class Staged:
    """Where the plain tar of a batch lies, and what was given: enough to notice that the input has changed."""

    tar: str
    in_place: bool
    """The tar is the user's own file, read where it is; else it lies in the work dir."""
    compressed: bool
    size: int
    sha256: str
    """Size in bytes and digest of the input as given, compressed or not."""
    version: str
    """The input's ETag, or its size and modification time."""

    def save(self, folder: BatchDir) -> None:
        atomic_write(folder.path / "staged.json", msgspec.json.encode(self))

    @classmethod
    def load(cls, folder: BatchDir) -> Staged | None:
        path = folder.path / "staged.json"
        return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else None


class BatchFiles:
    def __init__(self, tar: Path, index: ArchiveIndex, plan: NDArray[Any], limits: RowLimits) -> None:
        self.index = index
        self.plan = plan
        self._limits = limits
        self._fd = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)

    @classmethod
    def open(cls, folder: BatchDir, config: Config) -> BatchFiles:
        staged = Staged.load(folder)
        if staged is None:
            raise ConfigError(f"{folder.path} is not on this node: the work dir must be on storage that all nodes see")
        if staged.in_place and (now := stat_local(Path(staged.tar)).version) != staged.version:
            raise StorageError(
                "input_changed", f"{staged.tar} has changed while it ran (was {staged.version}, is {now})"
            )
        return cls(Path(staged.tar), load_index(folder.index), load_plan(folder.plan), row_limits(config))

    def request(self, position: int) -> Request:
        """The request at `position` of the plan. Raises RowError, and ArchiveError when the storage fails."""
        entry = self.plan[position]
        return parse_row(
            self._read(int(entry["offset"]), int(entry["length"])),
            row_index=int(entry["row"]),
            line_number=int(entry["line"]),
            members=self.index.members,
            limits=self._limits,
        )

    def read_media(self, ref: MediaRef) -> bytes:
        if ref.member is None:
            assert ref.data is not None
            return ref.data
        member = self.index.members[ref.member]
        return self._read(member.offset, member.size)

    def close(self) -> None:
        os.close(self._fd)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, offset)
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    raise ArchiveError("truncated", f"it ends inside bytes {offset}..{offset + length}", offset)
                data += more
        except OSError as error:
            raise ArchiveError("unreadable", f"bytes {offset}..{offset + length}: {error}", offset) from error
        return data


def row_limits(config: Config) -> RowLimits:
    limits = config.limits
    max_tokens = limits.max_output_tokens
    if isinstance(config.engine, VllmEngine) and "max_model_len" in config.engine.args:
        max_tokens = min(max_tokens, int(config.engine.args["max_model_len"]))
    return RowLimits(line_bytes=limits.max_line_bytes, max_tokens=max_tokens)
