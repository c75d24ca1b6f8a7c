"""Which row of its input the first one is that the ledger itself ended, by error code.

The ledger knows rows by their position; their line and custom_id are in the batch's folder. Looked up once per batch
and code: its first such row may change while it runs, but one example is as good as another.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from lsi_ray.batch_files import BatchFiles
from lsi_ray.errors import LsiError
from lsi_ray.ledger.records import ErrorCount
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import Served
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.deploy import Deployment

_MOST = 1000


class EndedRows:
    def __init__(self, ledger: ServiceLedger, work: WorkDir, deployment: Deployment) -> None:
        self._ledger = ledger
        self._work = work
        self._deployment = deployment
        self._known: dict[tuple[str, str], ErrorCount] = {}

    def named(self, served: Served) -> Served:
        """The same with examples that name their row. An erased batch has no examples."""
        batch = served.batch
        if batch.status.terminal or not any(_is_nameless(one) for one in served.errors):
            return served
        errors = (self._name(served, one) if _is_nameless(one) else one for one in served.errors)
        return replace(served, errors=tuple(errors))

    def _name(self, served: Served, one: ErrorCount) -> ErrorCount:
        key = (served.batch.batch_id, one.code)
        if key not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            try:
                self._known[key] = self._find(served, one)
            except (LsiError, OSError, KeyError):  # the batch is being erased, or its model is no longer served
                return one
        return replace(self._known[key], rows=one.rows)

    def _find(self, served: Served, one: ErrorCount) -> ErrorCount:
        batch_id = served.batch.batch_id
        first = next(row for row in self._ledger.row_failures(batch_id) if row.code == one.code)
        config = self._deployment.config(served.batch.model)
        with closing(BatchFiles.open(self._work.batch(batch_id), config)) as files:
            entry = files.plan[first.position]
            row, line = int(entry["row"]), int(entry["line"])
            custom_id = files.request(first.position).custom_id
        return replace(one, row=row, message=f"Line {line}: {first.message}", custom_id=custom_id)


def _is_nameless(one: ErrorCount) -> bool:
    return one.row < 0 and bool(one.message)
