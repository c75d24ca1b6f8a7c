"""Commands in the docs are commands: every one is parsed, and those about tables are run."""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from itertools import takewhile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from lsi_ray.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_OURS = re.compile(r"(?:^|&& |-- )lsi (?=\w)")
_PATTERN = re.compile(r"\.\.\.|<|\[")  # with something left out


def commands(page: Path) -> list[list[str]]:
    """The `lsi` commands of the code blocks of a page, as words."""
    found, fenced = [], False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if fenced or line.startswith("    "):
            found += [words(part) for part in _OURS.split(line.strip())[1:]]
    return found


def words(text: str) -> list[str]:
    """Of one command: up to `&&`, `|`, `>` or a comment."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split = True
    return list(takewhile(lambda word: not set(word) <= set("&|;<>"), lexer))


ALL = {" ".join(one): one for page in PAGES for one in commands(page)}


def test_the_pages_hold_commands():
    assert len(ALL) >= 15, ALL


@pytest.mark.parametrize("command", [command for command in ALL if not _PATTERN.search(command)])
def test_every_command_in_the_docs_is_one(command):
    name, *rest = ALL[command]
    found = typer.main.get_command(app).commands[name]
    if hasattr(found, "commands"):  # `lsi token create`
        found, rest = found.commands[rest[0]], rest[1:]
    found.make_context(name, rest)  # parses, and runs nothing
    assert all((ROOT / word).exists() for word in rest if word.startswith("configs/"))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    image = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 9, 9)).save(image, "PNG")
    (tmp_path / "people.csv").write_text("id,name\n1,Ada\n2,Alan\n")
    (tmp_path / "reviews.jsonl").write_text('{"text": "good", "language": "French"}\n')
    (tmp_path / "question.txt").write_text("Is it good? {text}\n")
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "photos" / "cats" / "a.png").write_bytes(image.getvalue())
    pages = [{"image": {"bytes": image.getvalue(), "path": None}, "page": 1}]
    pq.write_table(pa.Table.from_pylist(pages), tmp_path / "pages.parquet")
    line = {"custom_id": "1", "response": {"status_code": 200, "body": {"choices": [{"text": "x"}]}}, "error": None}
    data = json.dumps(line).encode() + b"\n"
    with tarfile.open(tmp_path / "out.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("output.jsonl")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return tmp_path


def test_the_commands_about_tables_do_what_they_say(tables, monkeypatch):
    monkeypatch.chdir(tables)
    ours = [one for one in commands(ROOT / "docs" / "tables.md") if one[0] in ("pack", "results")]
    assert len(ours) >= 5
    for command in ours:
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output)
    assert pq.read_table("answers.parquet").column("custom_id").to_pylist() == ["1"]
