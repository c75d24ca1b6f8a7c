from __future__ import annotations

import time

import pytest

from lsi_ray.archive.limits import DEFAULT_LIMITS
from lsi_ray.archive.names import clean_name, find_root, is_noise
from lsi_ray.errors import ArchiveError


def clean(raw: bytes) -> str:
    return clean_name(raw, 0, DEFAULT_LIMITS)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"files/a.png", "files/a.png"),
        (b"./files/a.png", "files/a.png"),
        (b".//files///./a.png", "files/a.png"),
        (b"files/", "files"),
        (b"./", ""),
        (b".", ""),
        (b"files/..a/b..", "files/..a/b.."),
        (b"files/...", "files/..."),
        (b"files/a:b c.png", "files/a:b c.png"),
        ("files/e\u0301.png".encode(), "files/\u00e9.png"),
        ("files/\U0001f469\u200d\U0001f467.png".encode(), "files/\U0001f469\u200d\U0001f467.png"),
    ],
)
def test_cleans_a_safe_name(raw: bytes, name: str) -> None:
    assert clean(raw) == name


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"/files/a", b"//a", b"../a", b"files/../../a", b"files/..", b"..", b"C:/a", b"c:a", b"files\\a"),
        *(b"files/a\0b", b"files/a\nb", b"files/\x1b[31m", b"files/\x7f", "files/\x85".encode()),
        *(b"files/\xff", b"\xc0\xae", b"files/\xed\xa0\x80"),
    ],
)
def test_refuses_an_unsafe_name(raw: bytes) -> None:
    with pytest.raises(ArchiveError) as caught:
        clean(raw)
    assert caught.value.code == "unsafe_path"


def test_the_limit_counts_normalised_utf8() -> None:
    assert len(clean(b"n" * 512)) == 512
    assert clean("e\u0301".encode() * 250) == "\u00e9" * 250
    for raw in (b"n" * 513, "\u00e9".encode() * 257, "\u0958".encode() * 100):
        with pytest.raises(ArchiveError, match="longer than 512") as caught:
            clean(raw)
        assert caught.value.code == "too_large"
        assert len(caught.value.message) < 300


def test_a_long_name_of_combining_marks_costs_nothing() -> None:
    """To sort 64,000 of them takes Python over 2 s, and four times that for twice as many."""
    begun = time.process_time()
    with pytest.raises(ArchiveError, match="longer than 512"):
        clean(b"files/a" + "\u0315\u0316".encode() * 32_000)
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("files/._a.png", True),
        ("._jobs.jsonl", True),
        ("batch/.DS_Store", True),
        ("__MACOSX/files/a.png", True),
        ("files/.hidden.png", False),
        ("files/__MACOSX.png", False),
        ("files/a._b", False),
    ],
)
def test_knows_what_macos_adds(name: str, noise: bool) -> None:
    assert is_noise(name) is noise


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["jobs.jsonl"], ""),
        (["files/a", "jobs.jsonl"], ""),
        (["batch/files/a", "batch/jobs.jsonl"], "batch/"),
        (["batch/jobs.jsonl", "README", "other/x"], "batch/"),
        (["jobs.jsonl", "files/jobs.jsonl", "files/x/jobs.jsonl"], ""),
        (["files/jobs.jsonl", "files/files/a"], "files/"),
        (["batch/jobs.jsonl", "__MACOSX/jobs.jsonl"], "batch/"),
        (["jobs.jsonl", "a/b/jobs.jsonl"], ""),
    ],
)
def test_finds_the_root(names: list[str], root: str) -> None:
    assert find_root(names) == root


@pytest.mark.parametrize(
    ("names", "code", "says"),
    [
        ([], "missing_jobs", "no files"),
        (["files/a", "files/b"], "missing_jobs", "'files/a', 'files/b'"),
        (["Jobs.jsonl"], "missing_jobs", "'Jobs.jsonl'"),
        (["home/me/jobs.jsonl"], "missing_jobs", "'home/me/jobs.jsonl': pack that folder itself"),
        (["a/jobs.jsonl", "b/jobs.jsonl"], "ambiguous_root", "a/jobs.jsonl, b/jobs.jsonl"),
        (["jobs.jsonl", "b/jobs.jsonl"], "ambiguous_root", "b/jobs.jsonl, jobs.jsonl"),
        (["batch/jobs.jsonl", "files/a"], "ambiguous_root", "beside it"),
    ],
)
def test_says_why_there_is_no_root(names: list[str], code: str, says: str) -> None:
    with pytest.raises(ArchiveError) as caught:
        find_root(names)
    assert caught.value.code == code
    assert says in caught.value.message
