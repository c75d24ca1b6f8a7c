"""Intake of one served batch, run in a process of its own: stage, find out the model, validate, start.

The input is at a URL or is an uploaded file; an uploaded jobs.jsonl (OpenAI's form) becomes a tar with one member.
"""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from lsi_ray.archive.detect import HEAD_BYTES, detect
from lsi_ray.archive.index import index_tar
from lsi_ray.archive.jobs_lines import iter_lines
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.archive.strict_json import decode
from lsi_ray.archive.tar_writer import TarWriter
from lsi_ray.archive.validate import Validation
from lsi_ray.batch_files import Staged
from lsi_ray.config import Config
from lsi_ray.errors import ArchiveError, BatchRefused, Finding, RowError
from lsi_ray.intake import IntakeLedger, archive_limits, stage, take_in
from lsi_ray.ledger.records import Batch
from lsi_ray.ledger.service_records import BatchSize
from lsi_ray.ledger.workdir import BatchDir, WorkDir, replacing
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.private import Private
from lsi_ray.storage.download import stat
from lsi_ray.storage.location import Location

_LINES_LOOKED_AT = 100


class IntakeJobLedger(IntakeLedger, Protocol):
    def batch(self, batch_id: str) -> Batch: ...
    def set_model(self, batch_id: str, model: str) -> None: ...
    def weigh(self, batch_id: str, size: BatchSize) -> Finding | None:
        """Why the batch is refused, now that its size is known; None: it may run."""
        ...

    def warn(self, batch_id: str, warning: str) -> None: ...


def take_in_batch(batch_id: str, work: WorkDir, deployment: Deployment, ledger: IntakeJobLedger) -> None:
    """Raises ArchiveError, BatchRefused, StorageError; LedgerError when the batch has moved on meanwhile."""
    batch, folder = ledger.batch(batch_id), work.batch(batch_id)
    private = Private.load(folder)
    source = private.source(folder)
    if private.input_url is None:
        _wrap_jobs(source, folder)
    else:
        deployment.check_kind(source)
    model = batch.model or _find_model(source, folder, deployment)
    if model not in deployment.models:
        served = ", ".join(sorted(deployment.models))
        message = f"the model {model!r} is not served here (served: {served})"
        raise BatchRefused([Finding("model_not_found", message, param="body.model")])
    if not batch.model:
        ledger.set_model(batch_id, model)
    checked = take_in(
        batch_id,
        source,
        folder,
        ledger,
        deployment.config(model),
        only=frozenset(private.only) if private.only is not None else None,
        urls=deployment.urls,
        weigh=lambda checked: _weigh(batch_id, checked, ledger),
    )
    for warning in checked.warnings[:20]:
        ledger.warn(batch_id, warning.message)


def _weigh(batch_id: str, checked: Validation, ledger: IntakeJobLedger) -> None:
    counts = checked.counts
    size = BatchSize(len(checked.plan), counts.prompt_bytes, counts.max_tokens, counts.images + counts.videos)
    if (finding := ledger.weigh(batch_id, size)) is not None:
        raise BatchRefused([finding])


def _wrap_jobs(source: Location, folder: BatchDir) -> None:
    """An uploaded jobs.jsonl as the plain tar of the batch."""
    assert source.path is not None
    if Staged.load(folder) is not None or not is_jobs_file(source.path):
        return
    with open(source.path, "rb") as file, replacing(folder.input) as target:
        digest = hashlib.file_digest(file, "sha256")
        size = file.tell()
        file.seek(0)
        tar = TarWriter(target)
        tar.add("jobs.jsonl", size, file)
        tar.close()
    version = stat(source).version
    Staged(str(folder.input), False, False, size, digest.hexdigest(), version).save(folder)


def is_jobs_file(path: Path) -> bool:
    """Whether it is JSON lines and not an archive. Raises ArchiveError when it is neither."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    try:
        detect(head)
    except ArchiveError:
        if head.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"{":
            return True
        raise
    return False


def _find_model(source: Location, folder: BatchDir, deployment: Deployment) -> str:
    """The model of the first row that names one; the only one served when none of the first rows does."""
    config = _most_generous(deployment)
    folder.create()
    staged = stage(source, folder, config, lambda _: None, deployment.urls)
    with open(staged.tar, "rb") as file:
        index = index_tar(file, archive_limits(config), decompressed=staged.compressed)
        for line in islice(iter_lines(file, index.jobs, RowLimits()), _LINES_LOOKED_AT):
            if (model := _model_of(line.data)) is not None:
                return model
    if len(deployment.models) == 1:
        return next(iter(deployment.models))
    raise BatchRefused([Finding("model_not_found", "no row names a model", param="body.model")])


def _model_of(line: bytes | None) -> str | None:
    try:
        row: Any = decode(line) if line is not None else None
        model = row["body"]["model"]
    except (RowError, KeyError, TypeError):
        return None
    return model if isinstance(model, str) else None


def _most_generous(deployment: Deployment) -> Config:
    """The size of an input is limited by its model's config, which is not known yet."""
    configs = [served.config for served in deployment.models.values()]
    return max(configs, key=lambda config: config.limits.max_input_bytes)
