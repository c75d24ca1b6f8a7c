"""What `lsi run` refuses, before Ray starts and with exit code 2, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import chat, check_complete, numbered, read_output, write_archive
from runs import Lsi

pytestmark = pytest.mark.timeout(300)


def _cut(folder: Path) -> Path:
    path = write_archive(folder / "in.tar", numbered(3))
    path.write_bytes(path.read_bytes()[:700])
    return path


def _text(folder: Path) -> Path:
    (folder / "in.tar").write_bytes(b'{"custom_id": "a"}\n' * 40)
    return folder / "in.tar"


def _rows(*rows: Any) -> Callable[[Path], Path]:
    return lambda folder: write_archive(folder / "in.tar.gz", rows)


REFUSED: list[tuple[str, Callable[[Path], Path], str]] = [
    ("truncated", _cut, "at byte"),
    ("not_an_archive", _text, "lsi pack"),
    ("empty_file", _rows(), "no row"),
    ("model_not_found", _rows(chat("a", "x", model="other")), "other"),
    ("model_mismatch", _rows(chat("a", "x"), chat("b", "y", model="other")), "line 2"),
    ("input_not_found", lambda folder: folder / "nowhere.tar", "nowhere.tar"),
]


@pytest.mark.parametrize(("code", "make", "says"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_refusal_is_code_2_before_ray_and_one_json_object(
    lsi: Lsi, code: str, make: Callable[[Path], Path], says: str
) -> None:
    done = lsi("run", make(lsi.folder), "-o", lsi.folder / "out.tar.gz", "-c", lsi.config(), "--json")
    assert done.code == 2, done.stderr
    error = done.object["error"]
    codes = {error["code"], *(finding["code"] for finding in error["findings"])}
    assert code in codes
    assert says in json.dumps(error)
    assert "starting Ray" not in done.stderr
    assert not (lsi.folder / "out.tar.gz").exists()


def test_strict_refuses_what_otherwise_becomes_an_error_line(lsi: Lsi) -> None:
    rows = [chat("a", "x"), "not JSON", chat("b", "y", "none.png"), chat("a", "again")]
    source = write_archive(lsi.folder / "in.tar", rows)
    command = ["run", source, "-o", lsi.folder / "out.tar.gz", "-c", lsi.config(), "--json"]
    refused = lsi(*command, "--strict")
    assert refused.code == 2, refused.stderr
    assert {f["line"] for f in refused.object["error"]["findings"]} == {2, 3, 4}
    done = lsi(*command)
    assert done.code == 0, done.stderr
    output = read_output(lsi.folder / "out.tar.gz")
    assert [line["custom_id"] for line in output.lines] == ["a"]
    found = [line["response"]["body"]["error"]["code"] for line in output.errors]
    assert found == ["invalid_json_line", "file_not_found", "duplicate_custom_id"]
    assert done.object["counts"] == {"total": 4, "completed": 1, "failed": 3}


def test_a_batch_of_bad_rows_only_needs_no_engine(lsi: Lsi) -> None:
    source = write_archive(lsi.folder / "in.tar", ["no", "nor this"])
    done = lsi("run", source, "-o", lsi.folder / "out.tar.gz", "-c", lsi.config())
    assert done.code == 0, done.stderr
    assert "starting Ray" not in done.stderr
    assert len(read_output(lsi.folder / "out.tar.gz").errors) == 2


def test_max_rows_runs_the_first_ones(lsi: Lsi) -> None:
    rows = numbered(30)
    source = write_archive(lsi.folder / "in.tar", rows)
    done = lsi("run", source, "-o", lsi.folder / "out.tar.gz", "-c", lsi.config(), "--max-rows", 7)
    assert done.code == 0, done.stderr
    check_complete(lsi.folder / "out.tar.gz", rows[:7])


def test_an_output_that_would_cost_the_input_or_cannot_be_written_is_refused_at_once(lsi: Lsi) -> None:
    source = write_archive(lsi.folder / "in.tar", numbered(2))
    for target in (source, lsi.folder):
        done = lsi("run", source, "-o", target, "-c", lsi.config())
        assert done.code == 2, done.stderr
    assert source.stat().st_size > 0


def test_gpus_that_are_not_there_are_said_and_not_waited_for(lsi: Lsi) -> None:
    source = write_archive(lsi.folder / "in.tar", numbered(2))
    done = lsi("run", source, "-o", lsi.folder / "out.tar.gz", "-c", lsi.config(gpus=1))
    assert done.code == 2, done.stderr
    assert "Ray sees 0" in " ".join(done.stderr.split())


def test_sample_validate_and_pack(lsi: Lsi) -> None:
    folder = lsi.folder / "sample"
    assert lsi("sample", folder).code == 0
    checked = lsi("validate", folder, "--json").object
    assert (checked["rows"], len(checked["failures"])) == (32, 3)
    assert {"images", "videos", "media_files", "requests"} <= checked.keys()
    refused = lsi("pack", folder, "-o", lsi.folder / "deep" / "in.tar.gz")
    assert refused.code == 2
    assert "--keep-bad-rows" in refused.stderr
    assert lsi("pack", folder, "-o", lsi.folder / "deep" / "in.tar.gz", "--keep-bad-rows").code == 0
    table = lsi("validate", lsi.folder / "deep" / "in.tar.gz")
    assert table.code == 0
    assert "3 are refused" in table.stdout
    assert lsi("validate", lsi.folder / "deep" / "in.tar.gz", "--strict").code == 2
