"""`lsi pack --from`: tables of every kind become archives whose rows are those of the table."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from lsi_ray.cli.main import app
from lsi_ray.errors import ConfigError
from lsi_ray.tables.folders import tables_of
from lsi_ray.tables.records import read_records
from lsi_ray.tables.template import Template

ROWS = [{"id": f"p{number}", "name": f"Ada {number}", "age": 30 + number} for number in range(70)]
TEMPLATE = "{name} is {age}: {{ok}}?"


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=20)
    elif path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".feather":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        between = "\t" if path.suffix == ".tsv" else ","
        lines = [between.join(rows[0]), *(between.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


def lsi(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def packed(path: Path) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    return [json.loads(line) for line in files.pop("jobs.jsonl").splitlines()], files


def parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    return row["body"]["messages"][-1]["content"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather", ".csv", ".tsv", ".jsonl"])
def test_a_table_becomes_an_archive(tmp_path, suffix):
    source, out = write(tmp_path / f"people{suffix}"), tmp_path / "in.tar.gz"
    done = lsi(
        "pack", "--from", source, "--prompt-template", TEMPLATE, "--id-column", "id", "--max-tokens", 9, "-o", out
    )
    assert done.exit_code == 0, done.output
    rows, files = packed(out)
    assert not files
    assert [row["custom_id"] for row in rows] == [row["id"] for row in ROWS]
    message = {"role": "user", "content": "Ada 3 is 33: {ok}?"}
    assert rows[3]["body"] == {"model": "lsi/tiny-vl", "messages": [message], "max_tokens": 9}
    assert not list(tmp_path.glob(".lsi-pack-*"))


def test_a_folder_of_images_becomes_a_row_each(tmp_path):
    for number, label in enumerate(["cats", "cats", "dogs"]):
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / label / f"{number}.png").write_bytes(png(number))
    out = tmp_path / "in.tar"
    done = lsi("pack", "--from", tmp_path / "photos", "--prompt-template", "Is {name} of {label}?", "-o", out)
    assert done.exit_code == 0, done.output
    rows, files = packed(out)
    assert [row["custom_id"] for row in rows] == ["cats/0.png", "cats/1.png", "dogs/2.png"]
    assert parts(rows[2])[1]["text"] == "Is 2 of dogs?"
    assert parts(rows[2])[0] == {"type": "image_url", "image_url": {"url": "file:files/dogs/2.png"}}
    assert files["files/dogs/2.png"] == png(2)


def test_images_of_a_hub_dataset_are_written_once_each(tmp_path):
    images = [{"image": {"bytes": png(number % 2), "path": None}, "page": number} for number in range(6)]
    for shard in range(2):
        write(tmp_path / "set" / "data" / f"train-0000{shard}-of-00002.parquet", images[3 * shard : 3 * shard + 3])
    write(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", images[:1])
    (tmp_path / "set" / "README.md").write_text("about it")
    out, words = tmp_path / "in.tar", ["--image-column", "image", "--prompt-template", "Page {page}?"]
    done = lsi("pack", "--from", tmp_path / "set", "--split", "train", *words, "-o", out)
    assert done.exit_code == 0, done.output
    rows, files = packed(out)
    assert [parts(row)[1]["text"] for row in rows] == [f"Page {number}?" for number in range(6)]
    assert sorted(files.values()) == sorted([png(0), png(1)])
    assert parts(rows[0])[0] == parts(rows[2])[0] != parts(rows[1])[0]
    without = lsi("pack", "--from", tmp_path / "set", *words, "-o", out)
    assert without.exit_code == 2
    assert "choose with --split, of test, train" in " ".join(without.output.split())


def test_a_dataset_saved_to_disk_is_read_by_its_own_list_of_files(tmp_path):
    folder = tmp_path / "saved" / "train"
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for number, name in enumerate(names):
        write(folder / name, ROWS[35 * number : 35 * number + 35])
    write(folder / "cache-1234.arrow", ROWS[:1])
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    assert [record.values for record in read_records(tmp_path / "saved")] == ROWS


def test_paths_in_a_column_are_relative_to_the_table(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "t" / "pics").mkdir(parents=True)
    (tmp_path / "t" / "pics" / "a.png").write_bytes(png(2))
    source = write(tmp_path / "t" / "t.jsonl", [{"pic": ["pics/a.png", str(tmp_path / "a.png")], "q": "same?"}])
    out = tmp_path / "in.tar"
    done = lsi("pack", "--from", source, "--image-column", "pic", "--prompt-template", "{q}", "-o", out)
    assert done.exit_code == 0, done.output
    rows, files = packed(out)
    names = [part["image_url"]["url"].removeprefix("file:") for part in parts(rows[0])[:2]]
    assert [files[name] for name in names] == [png(2), png(1)]


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([{"a": "x"}, {"a": None}], [], "t.jsonl, row 2: column 'a' is null"),
        ([{"a": "x"}, {"b": "y"}], [], "t.jsonl, row 2: there is no column 'a'; there are 'b'"),
        ([{"a": "x", "p": "gone.png"}], ["--image-column", "p"], "column 'p': there is no file"),
        ([{"a": "x", "p": "https://h/x.png"}], ["--image-column", "p"], "is a URL, and nothing is fetched"),
        ([{"a": "x", "p": 7}], ["--image-column", "p"], "column 'p': 7 is no image"),
        ([{"a": "x", "p": "t.jsonl"}], ["--image-column", "p"], "column 'p': The image is of a format not known"),
        ([{"a": "x"}, {"a": "y"}], ["--id-column", "a", "--body", '{"n": 0}'], "line 1: body.n must be"),
        ([{"a": "x"}, {"a": "x"}], ["--id-column", "a"], "duplicate_custom_id"),
        ([], [], "there are no rows in it"),
        ([{"a": "x"}], ["--body", "{"], "--body is not JSON"),
        ([{"a": "x"}], ["--endpoint", "chats"], "is none of chat, completions, embeddings"),
        ([{"a": "x", "p": "t.jsonl"}], ["--endpoint", "embeddings", "--image-column", "p"], "belong to"),
    ],
)
def test_what_cannot_be_a_request_is_told_by_row_column_and_value(tmp_path, rows, words, message):
    source = tmp_path / "t.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = lsi("pack", "--from", source, "--prompt-template", "{a}", *words, "-o", tmp_path / "in.tar")
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "in.tar").exists()
    assert not list(tmp_path.glob(".lsi-pack-*"))


def test_binary_columns_do_not_stand_in_prompts():
    with pytest.raises(ValueError, match="column 'a' is binary"):
        Template.parse("{a}").fill({"a": b"\x89PNG"})


@pytest.mark.parametrize("text", ["{a", "a}", "{}", "{a!r}", "{a:>3}"])
def test_a_template_that_is_none_says_how_to_write_braces(text):
    with pytest.raises(ConfigError, match=r"write \{\{ and \}\} for braces"):
        Template.parse(text)


def test_a_template_is_text_and_never_code():
    """A name is looked up among the columns: what Python's own format would reach is a column that is not there."""
    with pytest.raises(ValueError, match=r"there is no column 'a\.__class__'"):
        Template.parse("{a.__class__}").fill({"a": "x"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", 'a,b\n1,2\n3,"4\n', "after row 1: unexpected end of data"),
        ("t.csv", "a,b\n1,2\n3\n", "line 3: fewer fields than the header; 'b' is missing"),
        ("t.csv", "a,b\n1,2,3\n", "line 2: more fields"),
        ("t.jsonl", '{"a": 1}\n{"a"\n', "line 2: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: a row must be a JSON object"),
        ("t.parquet", "PAR1 and no more", "after row 0"),
        ("t.xlsx", "x", "is no table that is known here"),
    ],
)
def test_a_broken_table_is_told_by_its_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        list(read_records(tmp_path / name))


def test_a_folder_without_anything_says_what_could_be_in_it(tmp_path):
    with pytest.raises(ConfigError, match="holds no table and no image"):
        list(read_records(tmp_path))


def test_parquet_goes_before_what_lies_beside_it(tmp_path):
    write(tmp_path / "a.parquet")
    write(tmp_path / "stats.csv")
    assert tables_of(tmp_path, None) == [tmp_path / "a.parquet"]
