"""Lines that someone might write to break a parser or a writer: each becomes one record, under its own number."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from typing import Any

import pytest
from archive_rows import archive, chat, encode

from lsi_ray.archive import strict_json
from lsi_ray.archive.lines import failure_line
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.archive.validate import Validation, validate

BAD_JSON = "invalid_json_line"


def row(text: str) -> bytes:
    """A good row but for `text`, as JSON source, in the place of its message."""
    return encode(chat("id", "TEXT")).replace(b'"TEXT"', text.encode("utf-8", "surrogatepass"))


def field(source: str) -> bytes:
    """A good row with one more piece of source in its body."""
    return encode(chat("id")).replace(b'"model"', source.encode() + b', "model"')


HOSTILE: dict[str, tuple[bytes, str]] = {
    "deep-900": (row("[" * 900 + "]" * 900), BAD_JSON),
    "deep-100000": (row("[" * 100_000 + "]" * 100_000), BAD_JSON),
    "deep-open": (b'{"a":' * 100_000, BAD_JSON),
    "deep-in-arguments": (
        encode(chat("id")).replace(
            b'"role": "user", "content": "Hello"',
            b'"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "%b"}}]' % (b"[" * 9000),
        ),
        "invalid_value",
    ),
    "marks-200000": (
        encode(chat("id", [{"type": "image_url", "image_url": {"url": "file:files/a" + "\u0315\u0316" * 100_000}}])),
        "unsafe_path",
    ),
    "duplicate-key": (field('"n": 1, "n": 2'), BAD_JSON),
    "duplicate-model": (field('"model": "other"'), BAD_JSON),
    "duplicate-escaped": (field('"n": 1, "\\u006e": 1'), BAD_JSON),
    "duplicate-custom-id-key": (encode(chat("id"))[:-1] + b', "custom_id": "other"}', BAD_JSON),
    "nan": (field('"temperature": NaN'), BAD_JSON),
    "infinity": (field('"temperature": Infinity'), BAD_JSON),
    "minus-infinity": (field('"temperature": -Infinity'), BAD_JSON),
    "overflow": (field('"temperature": 1e999'), BAD_JSON),
    "digits-5000": (field(f'"seed": {"7" * 5000}'), BAD_JSON),
    "digits-1000000": (field(f'"seed": {"7" * 1_000_000}'), BAD_JSON),
    "fraction-1000000": (field(f'"temperature": 0.{"7" * 1_000_000}e-9'), "fine"),
    "int-beyond-64-bits": (field('"seed": 9223372036854775808'), BAD_JSON),
    "minus-zero-seed": (field('"seed": -0'), "fine"),
    "surrogate": (row('"\\ud800"'), BAD_JSON),
    "surrogates-swapped": (row('"\\udc00\\ud800"'), BAD_JSON),
    "surrogate-raw": (row('"\ud800"'), BAD_JSON),
    "surrogate-key": (field('"\\ud800": 1'), BAD_JSON),
    "surrogate-custom-id": (encode(chat("ID")).replace(b'"ID"', b'"\\ud800"'), BAD_JSON),
    "byte-order-mark": (b"\xef\xbb\xbf" + encode(chat("id")), BAD_JSON),
    "utf-16": (json.dumps(chat("id")).encode("utf-16-le").replace(b"\n", b""), BAD_JSON),
    "utf-16-mark": (b"\xff\xfe" + json.dumps(chat("id")).encode("utf-16-le"), BAD_JSON),
    "utf-32": (json.dumps(chat("id")).encode("utf-32-be"), BAD_JSON),
    "utf-7": (b"+AHsAfQ-", BAD_JSON),
    "latin-1": (row('"é"').decode().encode("latin-1"), BAD_JSON),
    "overlong-slash": (row('"X"').replace(b"X", b"\xc0\xaf"), BAD_JSON),
    "overlong-nul": (row('"X"').replace(b"X", b"\xc0\x80"), BAD_JSON),
    "beyond-unicode": (row('"X"').replace(b"X", b"\xf4\x90\x80\x80"), BAD_JSON),
    "cut-character": (row('"X"').replace(b"X", b"\xe2\x82"), BAD_JSON),
    "nul-before": (b"\0" + encode(chat("id")), BAD_JSON),
    "nul-inside": (row('"\0"'), BAD_JSON),
    "nul-after": (encode(chat("id")) + b"\0", BAD_JSON),
    "nul-escaped": (row('"\\u0000"'), "fine"),
    "controls": (row('"\x1b[2J"'), BAD_JSON),
    "carriage-returns": (encode(chat("id")) + b"\r" + encode(chat("other")), BAD_JSON),
    "crlf": (encode(chat("id")) + b"\r", "fine"),
    "crcrlf": (encode(chat("id")) + b"\r\r", "fine"),
    "line-separator": (row('"\u2028\u2029\x85\x0b"'.replace("\x0b", "")), "fine"),
    "spaces-around": (b" \t" + encode(chat("id")) + b" \t", "fine"),
    "no-break-space": (b"\xc2\xa0" + encode(chat("id")), BAD_JSON),
    "form-feed": (b"\f" + encode(chat("id")), BAD_JSON),
    "two-objects": (encode(chat("id")) * 2, BAD_JSON),
    "comma-after": (encode(chat("id")) + b",", BAD_JSON),
    "array": (b"[" + encode(chat("id")) + b"]", BAD_JSON),
    "string": (b'"id"', BAD_JSON),
    "number": (b"1", BAD_JSON),
    "null": (b"null", BAD_JSON),
    "empty-object": (b"{}", "missing_required_parameter"),
    "comment": (b"// " + encode(chat("id")), BAD_JSON),
    "single-quotes": (encode(chat("id")).replace(b'"', b"'"), BAD_JSON),
    "cut": (encode(chat("id"))[:-1], BAD_JSON),
    "python": (encode(chat("id")).replace(b"null", b"None")[:-1] + b', "a": True}', BAD_JSON),
    "long-keys": (field(f'"{"k" * 1_000_000}": 1'), "unknown_field"),
    "many-keys": (field(", ".join(f'"k{n}": 1' for n in range(50_000))), "unknown_field"),
    "prototype": (field('"__proto__": {"n": 2}'), "unknown_field"),
    "dunder": (field('"__class__": "x"'), "unknown_field"),
    "custom-id-empty": (encode(chat("")), "invalid_value"),
    "custom-id-long": (encode(chat("i" * 513)), "invalid_value"),
    "custom-id-number": (encode(chat("id") | {"custom_id": 7}), "invalid_value"),
    "custom-id-newline": (encode(chat("a\nb\r\u2028c")), "fine"),
    "body-string": (encode(chat("id") | {"body": json.dumps(chat("id")["body"])}), "invalid_value"),
    "url-twice": (encode(chat("id", url="/v1/chat/completions/../embeddings")), "invalid_url"),
    "method-lower": (encode(chat("id") | {"method": "post"}), "invalid_method"),
    "ten-megabytes": (row('"' + "x" * 10_000_000 + '"'), "fine"),
    "ten-megabytes-escaped": (row('"' + "\\u0041" * 1_700_000 + '"'), "fine"),
    "seventeen-megabytes": (row('"' + "x" * 17_000_000 + '"'), BAD_JSON),
    "ten-megabytes-of-brackets": (b"[" * 10_000_000, BAD_JSON),
    "ten-megabytes-of-keys": (b"{" + b'"a":1,' * 1_600_000 + b'"a":1}', BAD_JSON),
}


def check(data: bytes | list[Any], **limits: int) -> Validation:
    file, index = archive(data)
    return validate(file, index, limits=RowLimits(**limits))


def good(number: int) -> bytes:
    return encode(chat(f"good-{number}"))


def records(validation: Validation) -> dict[int, str]:
    """Line -> code of every record, "fine" for rows that run; each line once, and each record can be written."""
    lines = [int(entry["line"]) for entry in validation.plan] + [failure.line for failure in validation.failures]
    assert len(lines) == len(set(lines)) == validation.rows
    for failure in validation.failures:
        assert len(failure.message) < 1000
        written = failure_line("b", failure.row_index, failure.custom_id, failure.error, failure.line)
        assert b"\n" not in written
        strict_json.decode(written)
    return dict.fromkeys(lines, "fine") | {failure.line: failure.code for failure in validation.failures}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_line_is_one_record_and_its_neighbours_are_fine(name: str) -> None:
    line, code = HOSTILE[name]
    began = time.process_time()
    found = records(check(b"\n".join([good(1), b"", line, b" \t\r", good(5)])))
    assert found == {1: "fine", 3: code, 5: "fine"}
    assert time.process_time() - began < 5


def test_all_hostile_lines_together_are_answered_in_their_order() -> None:
    lines = [line for line, _ in HOSTILE.values() if len(line) < 200_000]
    codes = [code for line, code in HOSTILE.values() if len(line) < 200_000]
    found = records(check(b"\r\n".join(lines)))
    wanted = dict(enumerate(codes, start=1))
    seen = {number: code for number, code in found.items() if code != "duplicate_custom_id"}
    assert set(found) == set(wanted)
    assert seen == {number: wanted[number] for number in seen}
    assert {wanted[number] for number in set(found) - set(seen)} == {"fine"}


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n\n", b"\n \t\r\n"])
@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\n\n", b"\r\n\r\n"])
def test_line_ends_and_empty_lines_count_but_are_no_rows(between: bytes, end: bytes) -> None:
    step = between.count(b"\n")
    found = records(check(between.join([good(1), b"broken", good(3)]) + end))
    assert found == {1: "fine", 1 + step: BAD_JSON, 1 + 2 * step: "fine"}


def test_a_line_of_any_length_costs_no_more_than_its_limit() -> None:
    data = b"\n".join([good(1), b"x" * 60_000_000, good(3)])
    file, index = archive(data)
    tracemalloc.start()
    found = records(validate(file, index, limits=RowLimits(line_bytes=1 << 20)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {1: "fine", 2: BAD_JSON, 3: "fine"}
    assert peak < 16 << 20


def test_ten_thousand_damaged_lines_are_ten_thousand_records() -> None:
    seed = 20261124
    print(f"seed {seed}")
    rng = random.Random(seed)
    pieces = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"NaN", b"1e999", b"-", b"9" * 20, b"\\ud800", b"\xff"]
    pieces += [b"\r", b"\0", b"\xef\xbb\xbf", b"\xc0\xaf", b"null", b"true", b" ", b"\xe2\x80\xa8", b"", b"[" * 70]
    lines = []
    for number in range(10_000):
        line = bytearray(encode(chat(f"row-{number}", "caf\u00e9 \U0001f600", temperature=0.5, stop=["x"], seed=5)))
        for _ in range(rng.randint(0, 3)):
            place = rng.randrange(len(line))
            line[place : place + rng.randint(0, 4)] = rng.choice(pieces)
        if b'"model": "m"' not in line:  # rows of several models would refuse the batch as a whole
            line = bytearray(b'{"model": ')
        lines.append(bytes(line) if rng.random() > 0.02 else rng.choice([b"", b" ", b"\t\r", b"\xff", b"{", b"[]"]))
    assert not any(b"\n" in line for line in lines)
    validation = check(b"\n".join(lines))
    found = records(validation)
    assert set(found) == {number for number, line in enumerate(lines, start=1) if line.strip(b" \t\r")}
    intact = sum(code == "fine" for code in found.values())
    assert 2000 < intact < 9000
    for failure in validation.failures:
        # Where the label can be read, it is the line's own.
        if failure.custom_id is not None:
            assert json.loads(lines[failure.line - 1])["custom_id"] == failure.custom_id
