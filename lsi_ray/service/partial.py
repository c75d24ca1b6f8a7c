"""The finished rows of a batch that still runs: in row order, up to the first one that is not finished."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from lsi_ray.config import Config
from lsi_ray.delivery import Unanswered
from lsi_ray.ledger.records import Batch, ResultLine, RowFailure, SegmentRef
from lsi_ray.ledger.segments import Results
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import BatchDir
from lsi_ray.service.backend import Result


class _NotFinishedError(Exception):
    pass


def finished_rows(
    batch: Batch,
    folder: BatchDir,
    segments: list[SegmentRef],
    failures: list[RowFailure],
    config: Config,
    after_row: int,
) -> Iterator[Result]:
    """Those above `after_row`. Raises LedgerError where a segment is damaged, FileNotFoundError when they are gone."""
    results = Results([(folder.segments / ref.name, ref) for ref in segments])
    with closing(Unanswered(batch, BatchStatus.COMPLETED, folder, failures, config)) as answered_here:

        def missing(row: int) -> ResultLine:
            if not answered_here.knows(row):
                raise _NotFinishedError
            return answered_here.line(row)

        try:
            for result in results.rows_in_order(batch.rows_total, missing, first=after_row + 1):
                yield Result(result.row, "error" if result.failed else "output", result.line)
        except _NotFinishedError:
            return
