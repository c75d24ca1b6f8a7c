"""Delivery: from the segments of a finished batch to the output archive at its destination.

The archive is built from durable segments, so it may be built and sent again after any crash: same rows, same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from lsi_ray import __version__
from lsi_ray.archive import output as archive_output
from lsi_ray.archive.lines import failure_line
from lsi_ray.archive.output import OutputInfo, write_output
from lsi_ray.archive.plan import PLAN_DTYPE
from lsi_ray.batch_files import BatchFiles, Staged
from lsi_ray.config import Config, VllmEngine
from lsi_ray.errors import RowError
from lsi_ray.intake import telling
from lsi_ray.ledger.records import NO_POSITION, Batch, Progress, ResultLine, RowFailure, SegmentRef
from lsi_ray.ledger.segments import Results, damaged
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import BatchDir
from lsi_ray.storage.location import Location
from lsi_ray.storage.upload import upload

# What a row without a result says, by the way its batch ended.
_UNFINISHED = {
    BatchStatus.EXPIRED: RowError(
        "batch_expired",
        "This request could not be executed before the completion window expired.",
        status=None,
    ),
    BatchStatus.CANCELLED: RowError(
        "batch_cancelled", "This request was cancelled before it could be executed.", status=None
    ),
}


class DeliveryLedger(Protocol):
    def batch(self, batch_id: str) -> Batch: ...
    def progress(self, batch_id: str) -> Progress: ...
    def segments(self, batch_id: str) -> list[SegmentRef]: ...
    def row_failures(self, batch_id: str) -> list[RowFailure]: ...
    def disown(self, batch_id: str, segment: str) -> int: ...
    def deliver(self, batch_id: str, status: BatchStatus) -> Batch: ...
    def erase(self, batch_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Delivered:
    output: OutputInfo
    progress: Progress
    errors: list[ErrorCount]
    seconds: float


@dataclass(slots=True)
class ErrorCount:
    """One error code of a batch: how often, and the first line that has it."""

    code: str
    rows: int
    custom_id: str | None
    message: str


class ErrorDigest:
    """Counts error lines by code while they pass: people read this before they read error.jsonl."""

    def __init__(self) -> None:
        self._counts: dict[str, ErrorCount] = {}
        self.failed_rows: list[int] = []

    def watch(self, rows: Iterator[archive_output.ResultLine]) -> Iterator[archive_output.ResultLine]:
        for row in rows:
            if row.failed:
                self.failed_rows.append(row.row_index)
                self._add(row.line)
            yield row

    def counts(self) -> list[ErrorCount]:
        return sorted(self._counts.values(), key=lambda count: -count.rows)

    def _add(self, line: bytes) -> None:
        record = msgspec.json.decode(line)
        error = record["error"] or record["response"]["body"]["error"]
        count = self._counts.setdefault(
            error["code"], ErrorCount(error["code"], 0, record["custom_id"], error["message"])
        )
        count.rows += 1


def reopen_damaged(batch_id: str, folder: BatchDir, ledger: DeliveryLedger) -> int:
    """Read every segment once; rows of a damaged one become open again. Rows reopened: with any, the batch runs on."""
    refs = ((folder.segments / ref.name, ref) for ref in ledger.segments(batch_id))
    return sum(ledger.disown(batch_id, ref.name) for ref in damaged(refs))


@dataclass(frozen=True, slots=True)
class Packed:
    output: OutputInfo
    progress: Progress
    errors: list[ErrorCount]
    failed_rows: list[int]


def deliver(
    batch_id: str,
    target: Location,
    folder: BatchDir,
    ledger: DeliveryLedger,
    config: Config,
    engine: dict[str, str],
    say: Callable[[str], None] = lambda _: None,
) -> Delivered:
    """Pack, send, tell the ledger. The batch is `finalizing` or `cancelling`, and ends as its outcome says."""
    begun = time.monotonic()
    say("packing the output")
    batch = ledger.batch(batch_id)
    packed = pack(batch, folder, ledger, config, engine)
    say(f"sending {packed.output.size / 1e6:,.1f} MB to {target}")
    upload(folder.output, target, options=telling(say))
    ledger.deliver(batch_id, batch.outcome or BatchStatus.COMPLETED)
    return Delivered(packed.output, packed.progress, packed.errors, time.monotonic() - begun)


def pack(batch: Batch, folder: BatchDir, ledger: DeliveryLedger, config: Config, engine: dict[str, str]) -> Packed:
    """The output archive, durable in the batch's folder."""
    outcome = batch.outcome or BatchStatus.COMPLETED
    progress = ledger.progress(batch.batch_id)
    digest = ErrorDigest()
    rows = digest.watch(output_lines(batch, outcome, folder, ledger, config))
    described = manifest(batch, outcome, progress, folder, config, engine)
    output = write_output(folder.output, rows, described, total=batch.rows_total)
    return Packed(output, progress, digest.counts(), digest.failed_rows)


def output_lines(
    batch: Batch, outcome: BatchStatus, folder: BatchDir, ledger: DeliveryLedger, config: Config
) -> Iterator[archive_output.ResultLine]:
    """One line for each row 0..rows_total-1, in input order."""
    refs = ledger.segments(batch.batch_id)
    results = Results([(folder.segments / ref.name, ref) for ref in refs])
    failures = ledger.row_failures(batch.batch_id)
    with closing(Unanswered(batch, outcome, folder, failures, config)) as unanswered:
        for result in results.rows_in_order(batch.rows_total, unanswered.line):
            yield archive_output.ResultLine(
                result.row, result.failed, result.line, result.prompt_tokens, result.completion_tokens
            )


class Unanswered:
    """Lines for rows that no segment holds: answered by the ledger itself, or not run when the batch ended. Holds the
    input open, which would keep its place on the disk when it is erased: `close`."""

    def __init__(
        self, batch: Batch, outcome: BatchStatus, folder: BatchDir, failures: list[RowFailure], config: Config
    ) -> None:
        self._batch_id = batch.batch_id
        self._files = BatchFiles.open(folder, config) if batch.plan_rows else None
        plan: NDArray[Any] = self._files.plan if self._files else np.empty(0, PLAN_DTYPE)
        self._failures = {int(plan[one.position]["row"]): one for one in failures}
        # An array: as a dict, 200,000 rows took 20 MB, for the few that need it.
        self._position_of = np.zeros(batch.rows_total, dtype=np.uint32)
        self._position_of[plan["row"]] = np.arange(len(plan), dtype=np.uint32)
        self._default = _UNFINISHED.get(outcome)

    def close(self) -> None:
        if self._files is not None:
            self._files.close()

    def knows(self, row: int) -> bool:
        """Whether the ledger answered it."""
        return row in self._failures

    def line(self, row: int) -> ResultLine:
        failure = self._failures.get(row)
        error = RowError(failure.code, failure.message, status=None) if failure else self._default
        assert error is not None, f"row {row} of {self._batch_id} has no result, and the batch says it is complete"
        position = int(self._position_of[row])
        number = int(self._files.plan[position]["line"]) if self._files else 0
        line = failure_line(self._batch_id, row, self._custom_id(position), error, number)
        return ResultLine(row=row, position=NO_POSITION, line=line, failed=True)

    def _custom_id(self, position: int) -> str | None:
        assert self._files is not None
        return self._files.request(position).custom_id


def manifest(
    batch: Batch, outcome: BatchStatus, progress: Progress, folder: BatchDir, config: Config, engine: dict[str, str]
) -> dict[str, Any]:
    """What was run, on what, by what; `write_output` adds the parts with their digests and the counts."""
    staged = Staged.load(folder)
    assert staged is not None
    arguments = config.engine.args if isinstance(config.engine, VllmEngine) else config.engine.model_dump()
    return {
        "batch_id": batch.batch_id,
        "status": str(outcome),
        "input": {"name": batch.input.rsplit("/", 1)[-1], "bytes": staged.size, "sha256": staged.sha256},
        "model": config.model,
        "revision": config.revision,
        "engine": {**engine, "arguments": arguments, "lsi_ray": __version__},
        "cached_tokens": progress.cached_tokens,
        "rows": {
            "begun": progress.rows_begun,
            "run_again": progress.rows_rerun,
            "deduplicated": progress.deduplicated,
        },
        "times": {name: _iso(moment) for name, moment in {"created": batch.created_at, **batch.times}.items()},
    }


def _iso(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
