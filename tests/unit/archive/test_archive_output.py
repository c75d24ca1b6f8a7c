from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lsi_ray.archive.gzip import stage_gzip
from lsi_ray.archive.lines import failure_line, success_line
from lsi_ray.archive.output import OutputInfo, ResultLine, write_output
from lsi_ray.errors import RowError

MANIFEST = {
    "batch_id": "batch_1",
    "input": {"name": "in.tar", "bytes": 5, "sha256": "ab"},
    "model": "Grüße/m",
    "revision": None,
    "engine": {"name": "vllm", "version": "0.32.0", "arguments": {"dtype": "float32"}},
    "times": {"created_at": 1.5},
}


def result(row: int, failed: bool = False) -> ResultLine:
    if failed:
        return ResultLine(row, True, failure_line("b", row, f"r{row}", RowError("x", "é"), row + 1))
    return ResultLine(row, False, success_line("b", row, f"r{row}", b'{"n":%d}' % row), 10, 3)


def read(path: Path) -> dict[str, bytes]:
    """Read strictly: gzip by our own reader, the tar by Python's, which must find the end-of-archive blocks."""
    plain = io.BytesIO()
    with path.open("rb") as file:
        stage_gzip(file, plain)
    assert plain.getvalue().endswith(bytes(1024))
    plain.seek(0)
    with tarfile.open(fileobj=plain) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]


def write(path: Path, rows: Any, total: int) -> OutputInfo:
    return write_output(path, rows, MANIFEST, total=total)


def test_every_row_is_in_one_part_in_order_and_the_manifest_adds_up(tmp_path: Path) -> None:
    rng = random.Random(11)
    failed = [rng.random() < 0.2 for _ in range(500)]
    path = tmp_path / "out.tar.gz"
    info = write(path, (result(n, bad) for n, bad in enumerate(failed)), 500)
    parts = read(path)
    assert list(parts) == ["output.jsonl", "error.jsonl", "manifest.json"]
    assert parts["output.jsonl"] == b"".join(result(n).line + b"\n" for n in range(500) if not failed[n])
    assert parts["error.jsonl"] == b"".join(result(n, True).line + b"\n" for n in range(500) if failed[n])
    manifest = json.loads(parts["manifest.json"])
    counts = {"total": 500, "completed": failed.count(False), "failed": failed.count(True)}
    good = failed.count(False)
    usage = {"prompt_tokens": 10 * good, "completion_tokens": 3 * good, "total_tokens": 13 * good}
    described = [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "rows": data.count(b"\n")}
        for name, data in parts.items()
        if name != "manifest.json"
    ]
    assert manifest == {"format": "lsi-output-1", **MANIFEST, "parts": described, "counts": counts, "usage": usage}
    assert (info.counts, info.usage) == (counts, usage)
    assert info.size == path.stat().st_size
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.tar.gz"]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    infos = [write(tmp_path / name, [result(0), result(1, True)], 2) for name in ("a.tar.gz", "b.tar.gz")]
    assert infos[0] == infos[1]
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_error_jsonl_only_if_rows_failed_and_output_jsonl_always(tmp_path: Path) -> None:
    path = tmp_path / "out.tar.gz"
    write(path, [result(0)], 1)
    assert list(read(path)) == ["output.jsonl", "manifest.json"]
    write(path, [result(0, True)], 1)
    parts = read(path)
    assert list(parts) == ["output.jsonl", "error.jsonl", "manifest.json"]
    assert parts["output.jsonl"] == b""


@pytest.mark.parametrize(("rows", "total", "message"), [
    ([result(0), result(2)], 2, "row 2 came where row 1 was due"),
    ([result(0), result(0)], 2, "row 0 came where row 1 was due"),
    ([result(1), result(0)], 2, "row 1 came where row 0 was due"),
    ([result(0)], 2, "1 results came for 2 rows"),
    ([result(0), result(1)], 1, "2 results came for 1 rows"),
    ([], 1, "0 results came for 1 rows"),
    ([ResultLine(0, False, b"{}\n")], 1, "not one line"),
    ([ResultLine(0, False, b"")], 1, "not one line"),
])  # fmt: skip
def test_rows_that_are_lost_doubled_or_disordered_leave_no_archive(
    rows: list[ResultLine], total: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "out.tar.gz"
    path.write_bytes(b"what was there")
    with pytest.raises(AssertionError, match=message):
        write(path, rows, total)
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_rows_arrive_leaves_no_archive(tmp_path: Path) -> None:
    def rows() -> Iterator[ResultLine]:
        yield result(0)
        raise OSError("the ledger is gone")

    with pytest.raises(OSError, match="ledger"):
        write(tmp_path / "out.tar.gz", rows(), 2)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_output(tmp_path: Path) -> None:
    line = success_line("b", 0, "r", json.dumps({"text": "x" * 10_000}).encode())
    tracemalloc.start()
    info = write(tmp_path / "out.tar.gz", (ResultLine(n, False, line) for n in range(3000)), 3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert info.counts["completed"] == 3000
    assert peak < 4_000_000, "for 30 MB of lines"
