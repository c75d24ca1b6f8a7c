"""A full disk: the error says so wherever we write, leaves nothing half written, and is waited for."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.errors import LsiError, StorageError
from lsi_ray.ledger.records import ResultLine
from lsi_ray.ledger.segments import write_segment
from lsi_ray.ledger.workdir import replacing
from lsi_ray.space import FULL, check_space, when_there_is_space

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("writer", [replacing, atomic_file])
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, writer: Any) -> None:
    (tmp_path / "one").write_bytes(b"before")
    with pytest.raises(StorageError, match="no space left") as raised, writer(tmp_path / "one") as file:
        file.write(b"after")
    assert (raised.value.code, raised.value.transient) == (FULL, True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("one", b"before")]


def test_another_fault_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not space") as raised, replacing(tmp_path / "one"):
        raise OSError(errno.EIO, "not space")
    assert not isinstance(raised.value, LsiError)


def test_a_segment_is_written_when_there_is_space_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.EDQUOT, "quota")))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            monkeypatch.undo()

    line = ResultLine(row=0, position=0, line=b"{}")
    segment = when_there_is_space(lambda: write_segment(tmp_path, "one", [line]), sleep=wait)
    assert len(waits) == 3
    assert [path.name for path in tmp_path.iterdir()] == [segment.name]


def test_space_is_asked_for_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 90, 10_000_000))
    check_space(tmp_path, 10_000_000)
    with pytest.raises(StorageError, match=r"10\.0 MB free, and 12\.0 MB are to be written") as raised:
        check_space(tmp_path, 12_000_000)
    assert raised.value.transient
