"""The output archive: output.jsonl, error.jsonl (only if rows failed) and manifest.json in a tar.gz.

- Every row of the batch is in exactly one of the two files, in the order of the input; anything else is an
  AssertionError, because it would be a bug, and then no archive appears.
- The archive is there whole and durable or not at all; equal results and manifest give equal bytes.
- Memory is bounded: rows go through two unnamed temporary files beside the archive, because a tar states sizes first.

manifest.json:

| key | value |
|---|---|
| `format` | "lsi-output-1" |
| `batch_id`, `model`, `revision` | as given |
| `input` | `{name, bytes, sha256}` of the archive that was answered |
| `parts` | `[{name, bytes, sha256, rows}]`, one per .jsonl file of this archive |
| `counts` | `{total, completed, failed}` rows |
| `usage` | `{prompt_tokens, completion_tokens, total_tokens}` of all rows |
| `engine` | `{name, version, arguments}` |
| `times` | epoch seconds by name: created_at, started_at, completed_at, ... |
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.archive.tar_writer import TarWriter, open_gzip

FORMAT = "lsi-output-1"
OUTPUT, ERROR, MANIFEST = "output.jsonl", "error.jsonl", "manifest.json"


@dataclass(frozen=True, slots=True)
class ResultLine:
    row_index: int
    failed: bool
    """Whether it goes to error.jsonl."""
    line: bytes
    """JSON without its newline, from `lines`."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class OutputInfo:
    size: int
    sha256: str
    """Of the archive."""
    counts: dict[str, int]
    """total, completed, failed."""
    usage: dict[str, int]
    """prompt_tokens, completion_tokens, total_tokens."""


def write_output(path: Path, rows: Iterable[ResultLine], manifest: Mapping[str, Any], *, total: int) -> OutputInfo:
    """Write the archive of a batch of `total` rows to `path`, replacing what is there.

    `manifest` brings batch_id, input, model, revision, engine and times; the rest is counted here.
    """
    with _Part(OUTPUT, path.parent) as done, _Part(ERROR, path.parent) as failed:
        counts, usage = _split(rows, done, failed, total)
        parts = [done, failed] if failed.rows else [done]
        described = {
            "format": FORMAT,
            **manifest,
            "parts": [part.describe() for part in parts],
            "counts": counts,
            "usage": usage,
        }
        with atomic_file(path) as file:
            target = _Hashing(file)
            _write_tar(target, parts, described)
    return OutputInfo(target.size, target.sha256.hexdigest(), counts, usage)


class _Part:
    """One .jsonl file on its way into the archive."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.rows = 0
        self.file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._target = _Hashing(self.file)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_error: object) -> None:
        self.file.close()

    def add(self, line: bytes) -> None:
        self._target.write(line + b"\n")
        self.rows += 1

    @property
    def size(self) -> int:
        return self._target.size

    def describe(self) -> dict[str, Any]:
        digest = self._target.sha256.hexdigest()
        return {"name": self.name, "bytes": self.size, "sha256": digest, "rows": self.rows}


class _Hashing:
    """Passes bytes on to `file`, and counts and hashes them on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _split(rows: Iterable[ResultLine], done: _Part, failed: _Part, total: int) -> tuple[dict[str, int], dict[str, int]]:
    prompt = completion = 0
    for expected, row in enumerate(rows):
        if row.row_index != expected:
            raise AssertionError(f"row {row.row_index} came where row {expected} was due")
        if b"\n" in row.line or not row.line:
            raise AssertionError(f"the result of row {expected} is not one line")
        (failed if row.failed else done).add(row.line)
        prompt += row.prompt_tokens
        completion += row.completion_tokens
    if done.rows + failed.rows != total:
        raise AssertionError(f"{done.rows + failed.rows} results came for {total} rows")
    counts = {"total": total, "completed": done.rows, "failed": failed.rows}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return counts, usage


def _write_tar(target: _Hashing, parts: list[_Part], manifest: dict[str, Any]) -> None:
    with open_gzip(target) as plain:  # type: ignore[arg-type]
        tar = TarWriter(plain)
        for part in parts:
            part.file.seek(0)
            tar.add(part.name, part.size, part.file)
        tar.add_bytes(MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")
        tar.close()
