"""Intake: from an input location to a batch whose shards are in the ledger. No GPU is touched before it is done.

    stage     the input becomes a plain tar that can be read by range (a local .tar stays where it is)
    index     strict; a truncated or corrupt archive is refused here, and nothing of it runs
    validate  every row; bad rows become error lines at once, findings about the whole refuse the batch
    start     plan and shards, in one ledger transaction

Each step leaves a file that the next attempt finds, so an intake that was killed goes on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import BinaryIO, Protocol

import numpy as np

from lsi_ray.archive.detect import HEAD_BYTES, detect
from lsi_ray.archive.gzip import GzipStager
from lsi_ray.archive.index import ArchiveIndex, index_tar, save_index
from lsi_ray.archive.limits import ArchiveLimits
from lsi_ray.archive.lines import failure_line
from lsi_ray.archive.order import Shape
from lsi_ray.archive.validate import Validation, validate
from lsi_ray.batch_files import Staged, row_limits
from lsi_ray.config import Config
from lsi_ray.errors import BatchRefused, Finding, StorageError
from lsi_ray.ledger.records import MESSAGE_CHARS, NO_POSITION, Batch, ErrorNote, ResultLine, SegmentRef
from lsi_ray.ledger.segments import write_segment
from lsi_ray.ledger.workdir import BatchDir, replacing
from lsi_ray.space import check_space
from lsi_ray.storage.download import fetch, stat
from lsi_ray.storage.guard import PERSONAL, UrlPolicy
from lsi_ray.storage.location import Location
from lsi_ray.storage.transfer import DEFAULT_OPTIONS, Stat, TransferOptions

Say = Callable[[str], None]
_SAY_S = 3.0


class IntakeLedger(Protocol):
    def start_batch(
        self,
        batch_id: str,
        rows_total: int,
        plan_rows: int,
        shard_rows: int,
        segment: SegmentRef | None = None,
        failed: int | None = None,
        errors: Sequence[ErrorNote] = (),
        shard_stops: Sequence[int] | None = None,
    ) -> Batch: ...


def take_in(
    batch_id: str,
    source: Location,
    folder: BatchDir,
    ledger: IntakeLedger,
    config: Config,
    *,
    strict: bool = False,
    max_rows: int | None = None,
    only: Collection[int] | None = None,
    urls: UrlPolicy = PERSONAL,
    say: Say = lambda _: None,
    weigh: Callable[[Validation], None] = lambda _: None,
) -> Validation:
    """Stage, index, validate and start a batch. Raises ArchiveError, BatchRefused, StorageError. `weigh` may refuse
    what is valid, by raising BatchRefused, before the batch starts."""
    folder.create()
    staged = stage(source, folder, config, say, urls)
    say("reading the index")
    with open(staged.tar, "rb") as file:
        index = index_tar(file, archive_limits(config), decompressed=staged.compressed)
        say(f"checking the rows ({len(index.members) - 1:,} files)")
        checked = validate(
            file,
            index,
            served_model=config.model,
            strict=strict,
            limits=row_limits(config),
            max_rows=max_rows,
            only=only,
            progress=_Counting(say),
            shape=plan_shape(config),
        )
    weigh(checked)
    save(folder, index, checked)
    segment, errors = _failures_segment(batch_id, folder, checked)
    stops = checked.shard_stops
    ledger.start_batch(
        batch_id, checked.rows, len(checked.plan), config.shard_rows, segment, errors=errors, shard_stops=stops
    )
    return checked


class _Counting:
    """Says how far validation is, every few seconds."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._next = time.monotonic() + _SAY_S

    def __call__(self, rows: int, done: int, size: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SAY_S
            self._say(f"checking the rows ({rows:,} so far, {100 * done // max(size, 1)} %)")


def stage(source: Location, folder: BatchDir, config: Config, say: Say, urls: UrlPolicy = PERSONAL) -> Staged:
    """Bring the input to a plain tar, once. Raises StorageError `input_changed` when it is not what it was."""
    options = telling(say, urls)
    if (known := Staged.load(folder)) is not None:
        _check_unchanged(source, known, say, options)
        return known
    there = stat(source, options=options)
    version = there.version
    staged = _stage_local(source, version, say) if source.path else None
    staged = staged or _stage_copy(source, folder, there, config, say, options)
    staged.save(folder)
    return staged


def _check_unchanged(source: Location, known: Staged, say: Say, options: TransferOptions) -> None:
    try:
        version = stat(source, options=options).version
    except StorageError as error:
        if known.in_place:
            raise
        say(f"the input cannot be looked at again ({error}); going on with what was fetched")
        return
    if version != known.version:
        raise StorageError("input_changed", f"{source} has changed since this work dir was made for it")


def _stage_local(source: Location, version: str, say: Say) -> Staged | None:
    """A local plain tar is read in place; only its digest is taken. None when it is compressed."""
    assert source.path is not None
    with open(source.path, "rb") as file:
        if detect(file.read(HEAD_BYTES)) == "gzip":
            return None
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        say(f"reading {source} ({size / 1e6:,.1f} MB)")
        digest = hashlib.file_digest(file, "sha256")
    return Staged(str(source.path.resolve()), True, False, size, digest.hexdigest(), version)


def _stage_copy(
    source: Location, folder: BatchDir, there: Stat, config: Config, say: Say, options: TransferOptions
) -> Staged:
    """Download, decompressing on the way, into the work dir, where it needs the size of the input at least."""
    version = there.version
    check_space(folder.path, there.size or 0)
    say(f"fetching {source}")
    with replacing(folder.input) as target:
        sink = _Unpacker(target, archive_limits(config))
        fetched = fetch(source, sink.feed, max_bytes=config.limits.max_input_bytes, version=version, options=options)
        compressed = sink.close()
    return Staged(str(folder.input), False, compressed, fetched.size, fetched.sha256, version)


def telling(say: Say, urls: UrlPolicy = PERSONAL) -> TransferOptions:
    """Transfers that say what they wait for."""
    return replace(
        DEFAULT_OPTIONS, urls=urls, on_retry=lambda error, wait_s: say(f"{error}; trying again in {wait_s:.0f} s")
    )


class _Unpacker:
    """Takes the input's bytes in order and writes the plain tar, deciding by content whether to decompress."""

    def __init__(self, target: BinaryIO, limits: ArchiveLimits) -> None:
        self._target = target
        self._limits = limits
        self._head = b""
        self._gzip: GzipStager | None = None
        self._write: Callable[[bytes], object] | None = None

    def feed(self, chunk: bytes) -> None:
        if self._write is None:
            self._head += chunk
            if len(self._head) < HEAD_BYTES:
                return
            chunk = self._decide()
        assert self._write is not None
        self._write(chunk)

    def close(self) -> bool:
        """The input has ended. Whether it was compressed."""
        if self._write is None:
            head = self._decide()
            assert self._write is not None
            self._write(head)
        if self._gzip is not None:
            self._gzip.close()
        return self._gzip is not None

    def _decide(self) -> bytes:
        if detect(self._head[:HEAD_BYTES]) == "gzip":
            self._gzip = GzipStager(self._target, self._limits)
            self._write = self._gzip.feed
        else:
            self._write = self._target.write
        head, self._head = self._head, b""
        return head


def save(folder: BatchDir, index: ArchiveIndex, checked: Validation) -> None:
    save_index(index, folder.index)
    with replacing(folder.plan) as file:
        np.save(file, checked.plan)


def archive_limits(config: Config) -> ArchiveLimits:
    return ArchiveLimits(input_bytes=config.limits.max_input_bytes)


def plan_shape(config: Config) -> Shape:
    return Shape(
        shard_rows=config.shard_rows,
        shard_bytes=config.shard_bytes,
        replicas=config.replicas.max,
        seats=config.engine.max_num_seqs,
        deduplicate=config.deduplicate,
    )


def _failures_segment(
    batch_id: str, folder: BatchDir, checked: Validation
) -> tuple[SegmentRef | None, list[ErrorNote]]:
    if not checked.failures:
        return None, []
    results = (
        ResultLine(
            row=bad.row_index,
            position=NO_POSITION,
            line=failure_line(batch_id, bad.row_index, bad.custom_id, bad.error, bad.line),
            failed=True,
        )
        for bad in checked.failures
    )
    notes = [
        ErrorNote(index, bad.row_index, bad.code, f"Line {bad.line}: {bad.message}"[:MESSAGE_CHARS], bad.custom_id)
        for index, bad in enumerate(checked.failures)
    ]
    return write_segment(folder.segments, "validation", results), notes


def findings_of(error: Exception) -> list[Finding]:
    """What to record on a batch whose intake failed."""
    if isinstance(error, BatchRefused):
        return error.findings
    return [Finding(getattr(error, "code", "internal_error"), str(error))]
