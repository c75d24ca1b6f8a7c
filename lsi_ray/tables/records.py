"""The rows of a table, one after another: whatever the file, a row is a dict, and its place has a name for messages.

Nothing is read whole: a table of any size takes the memory of 32 rows, or of one row group's columns.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lsi_ray.errors import ConfigError
from lsi_ray.tables.folders import IMAGE_SUFFIXES, images_of, tables_of

_BATCH_ROWS = 32  # a row may hold an image of megabytes


@dataclass(frozen=True, slots=True)
class Record:
    values: dict[str, Any]
    where: str
    """As "people.csv, row 17": the first row of a file is row 1."""
    folder: Path
    """What relative paths in it are relative to."""
    name: str | None = None
    """Of its own, where it has one: the path of an image in its folder."""


def read_records(path: Path, split: str | None = None) -> Iterator[Record]:
    """Rows of a file or a folder, of the `split` of a dataset where there are several.

    Raises ConfigError for what is no table, or breaks, naming the file and the row."""
    if not path.exists():
        raise ConfigError(f"no such file or folder: {path}")
    if path.is_file():
        yield from _file(path)
        return
    tables = tables_of(path, split)
    for table in tables:
        yield from _file(table)
    if not tables:
        yield from _images(path)


def _file(path: Path) -> Iterator[Record]:
    read = _READERS.get(path.suffix.lower())
    if read is None:
        known = ", ".join(_READERS)
        raise ConfigError(
            f"{path} is no table that is known here: a file ends in {known}; a folder holds such, or images"
        )
    number = 0
    try:
        for number, values in enumerate(read(path), 1):
            yield Record(values, f"{path.name}, row {number}", path.parent)
    except (pa.ArrowException, csv.Error, ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}, after row {number}: {error}") from None


def _images(folder: Path) -> Iterator[Record]:
    empty = True
    for path in images_of(folder):
        empty = False
        name = path.relative_to(folder)
        label = name.parent.name if len(name.parts) > 1 else ""
        values = {"image": str(name), "file": str(name), "name": path.stem, "label": label}
        yield Record(values, str(name), folder, str(name))
    if empty:
        kinds = ", ".join((*_READERS, *IMAGE_SUFFIXES))
        raise ConfigError(f"{folder} holds no table and no image: nothing in it ends in {kinds}")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path, pre_buffer=False) as file:  # else it keeps all that it has read
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            yield from batch.to_pylist()


def _arrow(path: Path) -> Iterator[dict[str, Any]]:
    """Arrow's stream format, as `datasets` saves, or its file format, as Feather."""
    with pa.memory_map(str(path)) as source:
        try:
            batches: Iterator[Any] = iter(pa.ipc.open_stream(source))
        except pa.ArrowInvalid:
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        for batch in batches:
            for first in range(0, batch.num_rows, _BATCH_ROWS):
                yield from batch.slice(first, _BATCH_ROWS).to_pylist()


def _csv(path: Path, delimiter: str = ",") -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter, strict=True)
        for row in rows:
            if None in row:
                raise ConfigError(f"{path}, line {rows.line_num}: more fields than the header has columns")
            if None in row.values():
                missing = next(name for name, value in row.items() if value is None)
                raise ConfigError(f"{path}, line {rows.line_num}: fewer fields than the header; {missing!r} is missing")
            yield row


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ConfigError(f"{path}, line {number}: a row must be a JSON object, got {str(row)[:60]!r}")
            yield row


_READERS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".csv": _csv,
    ".tsv": lambda path: _csv(path, "\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
