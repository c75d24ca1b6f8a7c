from __future__ import annotations

import json
import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsi_ray.archive import strict_json
from lsi_ray.errors import RowError


def nested(depth: int, inner: str = "1") -> str:
    return "[" * depth + inner + "]" * depth


GOOD: list[tuple[str | bytes, Any]] = [
    ("{}", {}),
    (" [1, 2.5, -0, true, false, null]\t", [1, 2.5, 0, True, False, None]),
    ('"caf\\u00e9 \\ud83d\\ude00"', "café 😀"),
    ('{"a": {"a": 1}, "b": [{"a": 2}]}', {"a": {"a": 1}, "b": [{"a": 2}]}),
    ("9223372036854775807", 2**63 - 1),
    ("-9223372036854775808", -(2**63)),
    ("1e308", 1e308),
    ("1e-999", 0.0),
    ('"a key is \\"a\\": and [[[[ NaN"', 'a key is "a": and [[[[ NaN'),
    ('"' + "[{" * 100 + '"', "[{" * 100),
    ('"\\\\ud800"', "\\ud800"),
    ("\ufdd0".join('""'), "\ufdd0"),
    ('"\\u0000"', "\0"),
]

BAD: list[tuple[str | bytes, str]] = [
    (b"\xef\xbb\xbf{}", "byte order mark"),
    ("{}".encode("utf-16"), "UTF-16"),
    (b'{"a": "\xff"}', "byte 0xff at column 8 is not UTF-8"),
    ('"é'.encode() + b'\xe9"', "byte 0xe9 at column 3 is not UTF-8"),
    (b'"\xed\xa0\x80"', "at column 2 is not UTF-8"),
    ("", "not JSON: Expecting value at column 1"),
    ("{} {}", "not JSON: Extra data at column 4"),
    ('{"a": 1,}', "not JSON: .* at column [89]"),
    ("{'a': 1}", "not JSON: .* at column 2"),
    ('{"a": 1', "not JSON: .* at column 8"),
    ('"tab\tinside"', "not JSON: Invalid control character .* column 5"),
    ('{"a": 01}', "not JSON: .* column 8"),
    ("{a: 1}", "not JSON: .* column 2"),
    ("// x", "not JSON"),
    ("\u00a0{}", "not JSON: .* column 1"),
    ('"\\x"', "not JSON: .* column 2"),
    ('{"t": NaN}', "NaN at column 7"),
    ("[1, Infinity]", "Infinity at column 5"),
    ("[-Infinity]", "-Infinity at column 2"),
    ('{"x": "NaN", "t": 1e999}', "1e999 at column 19"),
    ("[-1e999]", "-1e999 at column 2"),
    ("9223372036854775808", "9223372036854775808 at column 1"),
    ("[-9223372036854775809]", "-9223372036854775809 at column 2"),
    ("[" + "7" * 5000 + "]", r"77777777777777777777\.\.\. \(5000 digits\) at column 2"),
    ('{"a": 1, "a": 1}', 'duplicate key "a" at column 10'),
    ('{"a": {"k": 1, "k": 2}}', 'duplicate key "k" at column 16'),
    ('{"a": 1, "b": ["a", {"a": 1}], "\\u0061": 2}', 'duplicate key "a" at column 32'),
    ('"\\ud800"', "string at column 1 holds half a surrogate pair"),
    ('["ok", "\\udc00\\ud800"]', "string at column 8 holds half"),
    ('{"\\uDfFf": 1}', "string at column 2 holds half"),
    (nested(65), "nested deeper than 64 levels at column 65"),
    (nested(65, ""), "nested deeper than 64 levels at column 65"),
    (nested(100_000), "nested deeper than 64 levels at column 65"),
    ('{"a":' * 65 + "1" + "}" * 65, "nested deeper than 64 levels at column 321"),
]


def as_bytes(line: str | bytes) -> bytes:
    return line if isinstance(line, bytes) else line.encode()


@pytest.mark.parametrize(("line", "value"), GOOD, ids=range(len(GOOD)))
def test_good_lines_give_their_value(line: str, value: Any) -> None:
    decoded = strict_json.decode(as_bytes(line))
    assert decoded == value
    assert repr(decoded) == repr(value)


@pytest.mark.parametrize(("line", "reason"), BAD, ids=range(len(BAD)))
def test_bad_lines_say_what_and_where(line: str | bytes, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        strict_json.decode(as_bytes(line))
    assert caught.value.code == "invalid_json_line"
    assert re.search(reason, caught.value.message), caught.value.message


def test_sixty_four_levels_are_accepted_with_many_more_brackets_beside_them() -> None:
    line = f"[{nested(63)}, {nested(63, '')}, {', '.join(['[]'] * 100)}]"
    assert strict_json.decode(line.encode()) == json.loads(line)


def test_length_is_bounded_before_anything_is_read() -> None:
    assert strict_json.decode(b'"12345678"', max_bytes=10) == "12345678"
    with pytest.raises(RowError, match="has 11 bytes; at most 10"):
        strict_json.decode(b"\xff" * 11, max_bytes=10)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(value=VALUES, ascii_only=st.booleans())
def test_what_is_written_reads_back_the_same(value: Any, ascii_only: bool) -> None:
    line = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert repr(strict_json.decode(line)) == repr(value)


ALPHABET = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"a"',
    '"b"',
    '"\\ud800"',
    '"\\udc00"',
    "1",
    "-",
    "1e999",
    "NaN",
    "0.5",
    "9" * 19,
    " ",
]


def accepted(line: bytes) -> bool:
    try:
        value = strict_json.decode(line)
    except RowError:
        return False
    again = msgspec.json.encode(value)
    assert repr(strict_json.decode(again)) == repr(value), line
    assert repr(msgspec.json.decode(again)) == repr(value), line
    return True


def test_whatever_is_accepted_survives_write_and_read() -> None:
    """Random tokens, and random damage to a good row: nothing is raised but RowError."""
    rng = random.Random(20261123)
    row = json.dumps({"custom_id": "é", "n": [1, 2.5, {"a": None, "b": "\\ud83d😀"}], "m": {"x": -1e5}}).encode()
    good = 0
    for _ in range(4000):
        tokens = "".join(rng.choices(ALPHABET, k=rng.randint(1, 9)))
        damaged = bytearray(row)
        for _ in range(rng.randint(1, 2)):
            damaged[rng.randrange(len(row))] = rng.choice(b'"\\{}[],:019eENdu.- \x80\xc3')
        good += accepted(tokens.encode()) + accepted(bytes(damaged))
    assert good > 200
