"""The commit stage: answers become final output lines, a durable segment, and then a ledger transaction."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from lsi_ray.archive.duplicates import shared_body
from lsi_ray.archive.lines import answer_id, failure_line, success_line
from lsi_ray.config import Config
from lsi_ray.engine import Answer, Finisher, make_finisher
from lsi_ray.errors import RowError
from lsi_ray.ledger.records import Answers, ResultLine
from lsi_ray.ledger.segments import write_segment
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.space import when_there_is_space
from lsi_ray.stream.logs import RowLog
from lsi_ray.stream.niceness import after_the_engine
from lsi_ray.stream.packet import Packet, Row, from_block
from lsi_ray.stream.ports import StreamLedger
from lsi_ray.stream.render import prepare_process
from lsi_ray.stream.stage_metrics import StageMetrics

log = logging.getLogger(__name__)


class _Answers:
    """Of one packet; rows that share a payload share the reading of it too."""

    def __init__(self, finisher: Finisher, batch_id: str) -> None:
        self._finisher = finisher
        self._batch_id = batch_id
        self._read: dict[int, Answer] = {}

    def of(self, row: Row) -> Answer:
        assert row.payload is not None
        request_id = answer_id(self._batch_id, row.row)
        if (answer := self._read.get(id(row.payload))) is None:
            answer = self._read[id(row.payload)] = self._finisher.finish(row.payload, request_id)
        return replace(answer, body=shared_body(answer.body, request_id)) if row.deduplicated else answer


class Commit:
    def __init__(
        self,
        config: Config,
        work: Path,
        ledger: StreamLedger,
        log_file: Path | None = None,
        *,
        gives_way: bool = False,
    ) -> None:
        if gives_way:
            after_the_engine()
        prepare_process(config, log_file)
        self._finisher = make_finisher(config)
        self._work = WorkDir(work)
        self._ledger = ledger
        self._rows = RowLog(log)
        self._metrics = StageMetrics(config.model)

    def __call__(self, block: pa.Table) -> pa.Table:
        with self._metrics.timed("commit"):
            accepted = sum(when_there_is_space(partial(self._commit, packet)) for packet in from_block(block))
        return pa.table({"rows": [accepted]})

    def _commit(self, packet: Packet) -> int:
        answers = _Answers(self._finisher, packet.batch_id)
        results = [self._result(answers, packet.batch_id, row) for row in packet.rows]
        folder = self._work.batch(packet.batch_id).segments
        try:
            # A name of its own for each try: a repeated task never overwrites a file that the ledger refers to.
            segment = write_segment(folder, f"{packet.shard_id:08d}-{uuid.uuid4().hex[:12]}", results)
        except FileNotFoundError:
            if folder.exists():
                raise
            return 0  # its batch was cancelled or has expired, and is erased
        committed = self._ledger.commit(packet.session, segment, Answers.of(packet.batch_id, results))
        if not committed.accepted:
            (folder / segment.name).unlink(missing_ok=True)
        return committed.accepted

    def _result(self, answers: _Answers, batch_id: str, row: Row) -> ResultLine:
        try:
            if row.error is not None:
                raise row.error
            answer = answers.of(row)
        except RowError as error:
            return self._failure(batch_id, row, error)
        except Exception as error:  # a parser tripped over what the model said: the row fails, its neighbours do not
            message = f"the answer could not be read: {type(error).__name__}: {error}"
            return self._failure(batch_id, row, RowError("internal_error", message, status=500))
        return ResultLine(
            row=row.row,
            position=row.position,
            line=success_line(batch_id, row.row, row.custom_id or "", answer.body),
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cached_tokens=answer.cached_tokens,
            deduplicated=row.deduplicated,
        )

    def _failure(self, batch_id: str, row: Row, error: RowError) -> ResultLine:
        self._rows.failed(batch_id, row.row, error)
        line = failure_line(batch_id, row.row, row.custom_id, error, row.line)
        return ResultLine(row=row.row, position=row.position, line=line, failed=True)
