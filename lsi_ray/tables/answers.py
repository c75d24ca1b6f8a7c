"""Answers as Parquet, joinable by `custom_id`: one row per line of output.jsonl and error.jsonl.

`text` is the first choice's message or text, `embedding` the first vector; `body` is all of the body as JSON, but not
that of an embedding, which would be the vector again.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.archive.detect import HEAD_BYTES, detect
from lsi_ray.archive.gzip import stage_gzip
from lsi_ray.archive.limits import ArchiveLimits
from lsi_ray.archive.walk import walk
from lsi_ray.errors import ConfigError

SCHEMA = pa.schema(
    [
        ("custom_id", pa.string()),
        ("status_code", pa.int32()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
        ("body", pa.string()),
    ]
)
_ROWS = 1000  # written at once: the memory it takes
# Ours, not a stranger's: as large as it may be, and of answers that are much alike.
_LIMITS = ArchiveLimits(input_bytes=2**50, tar_bytes=2**50, member_bytes=2**50, gzip_ratio=1100)
_NAMES = ("output.jsonl", "error.jsonl")


def write_answers(lines: Iterable[dict[str, Any]], path: Path) -> int:
    """Write lines of output.jsonl and error.jsonl, in any order, to a Parquet file; their number."""
    rows, count = map(answer, lines), 0
    with atomic_file(path) as file, pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        while some := list(islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(some, SCHEMA))
            count += len(some)
    return count


def answer(line: dict[str, Any]) -> dict[str, Any]:
    """A line as a row of SCHEMA."""
    response = line.get("response") or {}
    body = response.get("body") or {}
    error = line.get("error") or body.get("error") or {}
    usage = body.get("usage") or {}
    choice: dict[str, Any] = next(iter(body.get("choices") or []), {})
    data: dict[str, Any] = next(iter(body.get("data") or []), {})
    vector = data.get("embedding")
    return {
        "custom_id": line.get("custom_id"),
        "status_code": response.get("status_code"),
        "text": (choice.get("message") or {}).get("content", choice.get("text")),
        "finish_reason": choice.get("finish_reason"),
        "embedding": vector if isinstance(vector, list) else None,  # base64 stays in the body
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "error_code": error.get("code"),
        "error_message": error.get("message"),
        "body": json.dumps(body, ensure_ascii=False) if body and not isinstance(vector, list) else None,
    }


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of an output archive, of a folder with output.jsonl and error.jsonl, or of one such file. Raises
    ArchiveError for one that is not whole, ConfigError for anything else."""
    if path.is_dir():
        found = [path / name for name in _NAMES if (path / name).exists()]
        if not found:
            raise ConfigError(f"{path} holds no {' and no '.join(_NAMES)}")
        for one in found:
            yield from lines_of(one)
    elif path.suffix == ".jsonl":
        with path.open("rb") as file:
            yield from _parsed(file, path)
    else:
        yield from _archived(path)


def _archived(path: Path) -> Iterator[dict[str, Any]]:
    """Only of an archive that is whole: its checksum is right, and nothing of it is missing."""
    with path.open("rb") as given, tempfile.TemporaryFile(dir=path.absolute().parent) as scratch:
        plain: BinaryIO = given
        if detect(given.read(HEAD_BYTES)) == "gzip":
            given.seek(0)
            stage_gzip(given, scratch, _LIMITS)
            plain = scratch
        size = plain.seek(0, os.SEEK_END)
        members = {member.name: member for member in walk(plain, size, _LIMITS)}
        found = [members[name] for name in _NAMES if name in members]
        if not found:
            raise ConfigError(f"{path} is no output archive: it holds neither {' nor '.join(_NAMES)}")
        for member in found:
            plain.seek(member.offset)
            yield from _parsed(_lines(plain, member.size), path)


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The lines of the next `size` bytes."""
    while size > 0 and (line := file.readline(size)):
        size -= len(line)
        yield line


def _parsed(file: Iterable[bytes], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: not JSON: {error}") from None
        yield row
