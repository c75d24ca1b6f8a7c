from __future__ import annotations

import dataclasses
import random
import time
from pathlib import Path

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger import segments
from lsi_ray.ledger.records import NO_POSITION, Answers, ErrorNote, ResultLine
from lsi_ray.ledger.segments import Results, SegmentError, damaged, read_segment, verify_segment, write_segment


def line_of(row: int) -> bytes:
    error = b'{"code": "bad", "message": "why"}'
    return b'{"custom_id": "c%d", "text": "%s", "error": %s}' % (row, b"x" * (row * 7 % 50), error)


def result(row: int, position: int | None = None) -> ResultLine:
    position = row if position is None else position
    return ResultLine(row, position, line_of(row), row % 5 == 0, row * 2, row * 3, row)


def missing(row: int) -> ResultLine:
    return ResultLine(row, NO_POSITION, b"missing", failed=True)


def write(folder: Path, name: str, rows) -> tuple[Path, segments.SegmentRef]:
    ref = write_segment(folder, name, map(result, rows))
    return folder / ref.name, ref


def test_what_is_written_is_read_and_named_by_its_content(tmp_path):
    results = [result(7), result(3, 0), ResultLine(5, NO_POSITION, b"", True)]
    ref = write_segment(tmp_path, "s1", iter(results))
    path = tmp_path / ref.name
    assert read_segment(path, ref) == results
    assert (ref.rows, ref.size) == (3, path.stat().st_size)
    assert ref.name == f"s1-{ref.sha256[:16]}.seg"
    assert write_segment(tmp_path, "s1", results) == ref
    assert write_segment(tmp_path, "s1", results[:2]).name != ref.name
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".seg", ".seg"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_segment_is_a_segment(tmp_path):
    path, ref = write(tmp_path, "none", [])
    assert read_segment(path, ref) == []
    assert list(Results([(path, ref)]).rows_in_order(2, missing)) == [missing(0), missing(1)]


def test_nothing_is_left_of_a_write_that_fails(tmp_path):
    def results():
        yield result(1)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        write_segment(tmp_path, "s", results())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a" * 120])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(LedgerError):
        write_segment(tmp_path, name, [result(1)])
    assert not list(tmp_path.rglob("*.seg"))


def read_all(path: Path, ref: segments.SegmentRef) -> list[ResultLine]:
    return list(Results([(path, ref)]).rows_in_order(3, missing))


@pytest.mark.parametrize("read", [verify_segment, read_segment, read_all])
def test_every_flipped_byte_is_noticed(tmp_path, read):
    path, ref = write(tmp_path, "s", range(3))
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in (1, 128):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            with pytest.raises(SegmentError) as caught:
                read(path, ref)
            assert (caught.value.code, caught.value.segment) == ("segment_corrupt", ref.name)
    path.write_bytes(whole)
    read(path, ref)


@pytest.mark.parametrize("read", [verify_segment, read_segment, read_all])
def test_every_truncation_and_addition_is_noticed(tmp_path, read):
    path, ref = write(tmp_path, "s", range(3))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SegmentError):
            read(path, ref)
    path.write_bytes(whole + b"\0")
    with pytest.raises(SegmentError):
        read(path, ref)
    path.unlink()
    with pytest.raises(SegmentError, match="gone"):
        read(path, ref)


def test_another_valid_segment_in_its_place_is_noticed(tmp_path):
    path, ref = write(tmp_path, "s", [1, 2])
    other, _ = write(tmp_path, "t", [2, 1])
    path.write_bytes(other.read_bytes())
    with pytest.raises(SegmentError):
        Results([(path, ref)])
    assert damaged([(path, ref)]) == [ref]


def test_rows_come_in_order_from_anywhere_and_the_first_counts(tmp_path):
    first = write(tmp_path, "a", [4, 0, 2])
    again = tmp_path, write_segment(tmp_path, "b", [ResultLine(2, 2, b"late"), result(5), ResultLine(0, 0, b"late")])
    results = Results([first, (again[0] / again[1].name, again[1])])
    got = list(results.rows_in_order(7, missing))
    assert got == [result(0), missing(1), result(2), missing(3), result(4), result(5), missing(6)]
    assert len(results) == 4


def test_refused_positions_are_left_out(tmp_path):
    path, ref = write(tmp_path, "a", [0, 1, 2])
    ref = dataclasses.replace(ref, refused=(1,))
    assert list(Results([(path, ref)]).rows_in_order(3, missing)) == [result(0), missing(1), result(2)]


def test_a_row_beyond_the_batch_is_an_error(tmp_path):
    with pytest.raises(LedgerError, match="row 9 of a batch of 9"):
        list(Results([write(tmp_path, "a", [9])]).rows_in_order(9, missing))


@pytest.mark.parametrize("window", [1, 100, 1000])
def test_small_windows_change_nothing(tmp_path, monkeypatch, window):
    seed = window
    print("seed", seed)
    rows = random.Random(seed).sample(range(500), 400)
    parts = [write(tmp_path, f"s{i}", rows[i : i + 32]) for i in range(0, 400, 32)]
    monkeypatch.setattr(segments, "_WINDOW_BYTES", window)
    monkeypatch.setattr(segments, "_WINDOW_ROWS", 37)
    have = set(rows)
    expected = [result(row) if row in have else missing(row) for row in range(500)]
    assert list(Results(parts).rows_in_order(500, missing)) == expected


def test_merging_is_fast_enough_to_notice_when_it_is_not(tmp_path):
    """20,000 rows in 313 segments, shuffled: 0.2 s where measured; the bound is for a busy machine."""
    rows = random.Random(1).sample(range(20_000), 20_000)
    parts = []
    for i in range(0, 20_000, 64):
        ref = write_segment(tmp_path, f"s{i}", map(result, rows[i : i + 64]))
        parts.append((tmp_path / ref.name, ref))
    began = time.monotonic()
    assert sum(1 for _ in Results(parts).rows_in_order(20_000, missing)) == 20_000
    assert time.monotonic() - began < 5


def test_answers_are_taken_from_results():
    answers = Answers.of("b", [result(5), result(6, 0)])
    note = ErrorNote(0, 5, "bad", "why", "c5")
    assert answers == Answers("b", (5, 0), (True, False), (10, 12), (15, 18), (5, 6), (note,))
