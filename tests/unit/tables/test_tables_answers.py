"""`lsi results --parquet`: answers as a table that joins with what was asked."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lsi_ray.cli.main import app
from lsi_ray.tables.answers import SCHEMA, answer, write_answers

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def good(custom_id: str, **body: Any) -> dict[str, Any]:
    response = {"status_code": 200, "request_id": "x", "body": {"usage": USAGE, **body}}
    return {"id": "i", "custom_id": custom_id, "response": response, "error": None}


CHAT = good("a", choices=[{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}])
TEXT = good("b", choices=[{"text": "yo", "finish_reason": "length"}])
VECTOR = good("c", data=[{"embedding": [0.5, 1.0]}])
TOOLS = good("t", choices=[{"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}])
REFUSED = {
    "id": "i",
    "custom_id": "d",
    "response": {"status_code": 400, "request_id": "x", "body": {"error": {"code": "bad", "message": "no"}}},
    "error": None,
}
CRASHED = {"id": "i", "custom_id": "e", "response": None, "error": {"code": "engine_crashed", "message": "gone"}}
LINES = [CHAT, TEXT, VECTOR, TOOLS, REFUSED, CRASHED]


def archive(path: Path, cut: int = 0) -> Path:
    parts = {"output.jsonl": LINES[:4], "error.jsonl": LINES[4:], "manifest.json": [{}]}
    with tarfile.open(path, "w:gz") as tar:
        for name, lines in parts.items():
            data = "".join(json.dumps(line) + "\n" for line in lines).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
    return path


def table(*words: object) -> Any:
    return CliRunner().invoke(app, ["results", *(str(word) for word in words)])


def test_an_output_archive_becomes_a_table(tmp_path):
    out = tmp_path / "answers.parquet"
    done = table(archive(tmp_path / "out.tar.gz"), "--parquet", out)
    assert done.exit_code == 0, done.output
    rows = {row["custom_id"]: row for row in pq.read_table(out).to_pylist()}
    assert {name: rows[name]["text"] for name in "abct"} == {"a": "hi", "b": "yo", "c": None, "t": None}
    assert rows["c"]["embedding"] == [0.5, 1.0]
    assert rows["t"]["finish_reason"] == "tool_calls"
    assert json.loads(rows["a"]["body"]) == CHAT["response"]["body"]
    assert (rows["a"]["prompt_tokens"], rows["a"]["completion_tokens"], rows["a"]["status_code"]) == (5, 2, 200)
    assert (rows["d"]["status_code"], rows["d"]["error_code"], rows["d"]["error_message"]) == (400, "bad", "no")
    assert (rows["e"]["status_code"], rows["e"]["error_code"]) == (None, "engine_crashed")


def test_a_folder_of_results_becomes_the_same_table(tmp_path):
    (tmp_path / "output.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    assert table(tmp_path, "--parquet", tmp_path / "t.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "t.parquet").to_pylist() == [answer(line) for line in LINES]


def test_many_answers_are_written_in_groups(tmp_path):
    assert write_answers((CHAT for _ in range(2500)), tmp_path / "t.parquet") == 2500
    file = pq.ParquetFile(tmp_path / "t.parquet")
    assert (file.metadata.num_rows, file.metadata.num_row_groups) == (2500, 3)
    assert file.schema_arrow == SCHEMA


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "(truncated)"), (b"not a tar at all", "no .tar and no .tar.gz"), (b"", "it is empty")],
)
def test_what_is_no_output_leaves_no_table(tmp_path, content, message):
    path = archive(tmp_path / "out.tar.gz", cut=20)
    if content is not None:
        path.write_bytes(content)
    done = table(path, "--parquet", tmp_path / "t.parquet")
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "t.parquet").exists()


class Service:
    """A client of a service with one batch, which runs or has ended."""

    def __init__(self, ended: bool) -> None:
        self._ended = ended

    def get(self, batch_id: str) -> Any:
        files = ("f1", None) if self._ended else (None, None)
        return SimpleNamespace(id=batch_id, status="x", output_file_id=files[0], error_file_id=files[1])

    def results(self, batch_id: str) -> Any:
        assert not self._ended, batch_id
        return (SimpleNamespace(line=line) for line in (CHAT, CRASHED))

    def download(self, file_id: str, path: Path) -> None:
        assert file_id == "f1"
        path.write_text(json.dumps(TEXT) + "\n")


@pytest.mark.parametrize(("ended", "ids"), [(False, ["a", "e"]), (True, ["b"])])
def test_a_batch_of_a_service_becomes_a_table_while_it_runs_and_after(tmp_path, monkeypatch, ended, ids):
    monkeypatch.setattr("lsi_ray.cli.tables.Client", lambda _: Service(ended))
    assert table("batch_1", "--parquet", tmp_path / "t.parquet").exit_code == 0
    assert pq.read_table(tmp_path / "t.parquet").column("custom_id").to_pylist() == ids
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]
