"""From the rows of a table to the folder of a batch: line N of jobs.jsonl is row N of the table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lsi_ray.archive.fields import CHAT, EMBEDDINGS
from lsi_ray.archive.messages import Kind
from lsi_ray.errors import BatchRefused, ConfigError, Finding
from lsi_ray.tables.media import MediaFiles
from lsi_ray.tables.records import Record
from lsi_ray.tables.template import Template, column, shown_value

_MAX_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Shape:
    """What the request of a row looks like."""

    model: str
    prompt: Template
    url: str = CHAT
    system: Template | None = None
    media: tuple[tuple[Kind, str], ...] = ()
    """Kinds and columns, in the order in which they stand before the text."""
    id_column: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    """Further fields of each body: `{"max_tokens": 100}`."""

    def __post_init__(self) -> None:
        if self.url != CHAT and (self.media or self.system):
            raise ConfigError(f"images, videos and a system prompt belong to {CHAT}, not to {self.url}")


def write_batch(records: Iterable[Record], shape: Shape, folder: Path) -> int:
    """Write jobs.jsonl and files/ into `folder`; the number of rows.

    Raises BatchRefused with every bad row, up to 100, each naming its file, row, column and value; ConfigError."""
    media = MediaFiles(folder)
    findings: list[Finding] = []
    number = 0
    with (folder / "jobs.jsonl").open("w", encoding="utf-8") as jobs:
        for number, record in enumerate(records, 1):
            try:
                row = request(record, number, shape, media)
                jobs.write(json.dumps(row, ensure_ascii=False) + "\n")
            except ValueError as error:  # also of the JSON: half a surrogate pair cannot be written
                findings.append(Finding("bad_row", f"{record.where}: {error}"))
                if len(findings) == _MAX_FINDINGS:
                    break
    if findings:
        raise BatchRefused(findings)
    if not number:
        raise ConfigError("there are no rows in it")
    return number


def request(record: Record, number: int, shape: Shape, media: MediaFiles) -> dict[str, Any]:
    """A line of jobs.jsonl. Raises ValueError naming the column."""
    values = record.values
    custom_id = shown_value(values, shape.id_column) if shape.id_column else record.name or f"row-{number}"
    body = {"model": shape.model, **_content(record, shape, media), **shape.body}
    return {"custom_id": custom_id, "method": "POST", "url": shape.url, "body": body}


def _content(record: Record, shape: Shape, media: MediaFiles) -> dict[str, Any]:
    text = shape.prompt.fill(record.values)
    if shape.url == EMBEDDINGS:
        return {"input": text}
    if shape.url != CHAT:
        return {"prompt": text}
    system = [{"role": "system", "content": shape.system.fill(record.values)}] if shape.system else []
    parts = list(_parts(record, shape, media))
    content = [*parts, {"type": "text", "text": text}] if parts else text
    return {"messages": [*system, {"role": "user", "content": content}]}


def _parts(record: Record, shape: Shape, media: MediaFiles) -> Iterator[dict[str, Any]]:
    for kind, name in shape.media:
        value = column(record.values, name)
        try:
            for url in media.urls(value, kind, record.folder):
                yield {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
        except (ValueError, OSError) as error:
            raise ValueError(f"column {name!r}: {error}") from None
