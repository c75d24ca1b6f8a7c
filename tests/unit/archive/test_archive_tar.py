from __future__ import annotations

import contextlib
import random
import tarfile

import pytest
from tar_blocks import END, JOBS, archive, entry, gnu_name, header, outcome, pax, read, record, seal

from lsi_ray.archive.detect import detect
from lsi_ray.archive.limits import ArchiveLimits
from lsi_ray.archive.tar import checksum, padded
from lsi_ray.errors import ArchiveError


def refused(data: bytes, limits: ArchiveLimits | None = None) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        read(data, limits or ArchiveLimits())
    return caught.value


def names(*parts: bytes) -> dict[str, bytes]:
    """Media of the archive made of the parts."""
    texts = read(archive(*parts))[1]
    del texts["jobs.jsonl"]
    return texts


def test_checksum_is_the_sum_of_all_bytes() -> None:
    rng = random.Random(1)
    for _ in range(100):
        block = rng.randbytes(512)
        assert checksum(block) == sum(block[:148] + b" " * 8 + block[156:])
    assert checksum(b"\xff" * 512) == 504 * 255 + 8 * 32


@pytest.mark.parametrize(("size", "whole"), [(0, 0), (1, 512), (512, 512), (513, 1024), (2**50, 2**50)])
def test_padding(size: int, whole: int) -> None:
    assert padded(size) == whole


@pytest.mark.parametrize("kind", [b"0", b"\0", b"7"])
@pytest.mark.parametrize("magic", [b"ustar\x0000", b"ustar  \0", bytes(8)])
def test_reads_regular_files_of_every_format(kind: bytes, magic: bytes) -> None:
    assert names(entry(b"files/a", b"x" * 513, kind, magic=magic)) == {"files/a": b"x" * 513}


def test_the_prefix_counts_in_ustar_only() -> None:
    assert names(entry(b"a", b"1", prefix=b"files/p")) == {"files/p/a": b"1"}
    assert names(entry(b"files/a", b"1", magic=b"ustar  \0", prefix=b"00000000000")) == {"files/a": b"1"}


@pytest.mark.parametrize(
    "field",
    [
        b"00000000003\0",
        b"         3 \0",
        b"00000000003 ",
        b"000000000003",
        b"3".ljust(12, b"\0"),
        b"\x80" + bytes(10) + b"\3",
    ],
)
def test_reads_a_size_in_every_spelling(field: bytes) -> None:
    assert names(header(b"files/a", field) + b"abc" + bytes(509)) == {"files/a": b"abc"}


@pytest.mark.parametrize(
    ("field", "code"),
    [
        (b"-0000000003\0", "bad_header"),
        (b"+0000000003\0", "bad_header"),
        (b"0000000_003\0", "bad_header"),
        (b"0o000000003\0", "bad_header"),
        (b"00000000008\0", "bad_header"),
        (b"0000003\x000003\0", "bad_header"),
        (b"0x000000003\0", "bad_header"),
        (b"\x0000000000003", "bad_header"),
        (b"\xff" * 12, "bad_header"),
        (b"\xc0" + bytes(10) + b"\3", "bad_header"),
        (b"\x80" + b"\xff" * 11, "too_large"),
        (b"\x80" + bytes(4) + (2**50).to_bytes(7, "big"), "too_large"),
        (b"777777777777", "too_large"),
        (b"07777777777\0", "truncated"),
    ],
)
def test_refuses_a_size_that_is_none_or_too_large(field: bytes, code: str) -> None:
    assert refused(archive(header(b"files/a", field))).code == code


def test_folders_and_their_old_spelling_hold_nothing() -> None:
    assert names(entry(b"files/", kind=b"5"), entry(b"files/sub/", kind=b"0"), entry(b"./", kind=b"5")) == {}
    assert refused(archive(entry(b"files/", b"x", kind=b"5"))).code == "bad_header"
    assert refused(archive(entry(b"files/a/", b"x"))).code == "bad_header"
    assert refused(archive(entry(b"./.", b"x"))).code == "unsafe_path"


def test_long_names_come_from_pax_or_gnu_headers() -> None:
    long = b"files/" + b"n" * 300
    assert names(pax((b"path", long)), entry(b"short", b"1")) == {long.decode(): b"1"}
    assert names(gnu_name(long), entry(b"short", b"1")) == {long.decode(): b"1"}
    assert names(pax((b"path", long)), entry(b"short", b"1"), entry(b"files/b")) == {
        long.decode(): b"1",
        "files/b": b"",
    }


def test_pax_size_stands_for_a_header_without_one() -> None:
    big = pax((b"size", b"3")) + header(b"files/a", 0) + b"abc" + bytes(509)
    assert names(big) == {"files/a": b"abc"}
    assert names(pax((b"size", b"3")), entry(b"files/a", b"abc")) == {"files/a": b"abc"}
    assert refused(archive(pax((b"size", b"1024")), entry(b"files/a", b"abc"))).code == "bad_header"


def test_other_pax_records_are_ignored() -> None:
    records = [
        (b"mtime", b"1.5"),
        (b"uid", b"-1"),
        (b"comment", b""),
        (b"SCHILY.xattr.user.x", b"\0\n12 path=files/evil\n"),
        (b"LIBARCHIVE.xattr.x", b"=="),
        (b"hdrcharset", b"BINARY"),
        (b"linkpath", b"/etc/passwd"),
    ]
    assert names(pax(*records), entry(b"files/a")) == {"files/a": b""}
    assert names(pax((b"comment", b"c" * 40), kind=b"g"), entry(b"files/a")) == {"files/a": b""}


PATH = record(b"path", b"files/b")


@pytest.mark.parametrize(
    "payload",
    [
        PATH[:-1],
        PATH[:-1] + b"X",
        PATH + b"\0",
        PATH + b"9",
        b"0" + PATH[1:],
        b"-" + PATH,
        b"+" + PATH,
        b"99 path=files/b\n",
        b"999999999999 path=b\n",
        b"15 path=files/b\n",
        b"17 path=files/b\n" + PATH,
        b"16\tpath=files/b\n",
        b"9 nopath\n",
        b"5 =b\n",
        b" path=files/b\n",
        PATH + PATH,
        record(b"path", b""),
        record(b"size", b""),
        record(b"size", b"-512"),
        record(b"size", b"1e3"),
        record(b"size", b"0x10"),
        record(b"size", b"1_0"),
        record(b"size", b" 1"),
        record(b"size", "١".encode()),
        record(b"size", b"9" * 5000),
        record(b"size", b"0") * 2,
    ],
)
def test_refuses_malformed_pax_headers(payload: bytes) -> None:
    assert refused(archive(entry(b"x", payload, b"x"), entry(b"files/a"))).code == "bad_header"


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([pax((b"GNU.sparse.major", b"1")), entry(b"files/a")], "unsupported_member"),
        ([pax((b"GNU.sparse.realsize", b"1099511627776"), kind=b"g"), entry(b"files/a")], "unsupported_member"),
        ([pax((b"path", b"files/b"), kind=b"g"), entry(b"files/a")], "bad_header"),
        ([pax((b"size", b"0"), kind=b"g"), entry(b"files/a")], "bad_header"),
        ([pax((b"path", b"files/b")), pax((b"path", b"files/c")), entry(b"files/a")], "bad_header"),
        ([gnu_name(b"files/b"), gnu_name(b"files/c"), entry(b"files/a")], "bad_header"),
        ([gnu_name(b"files/b"), pax((b"path", b"files/c")), entry(b"files/a")], "bad_header"),
        ([gnu_name(b"files/b")], "bad_header"),
        ([pax((b"path", b"files/b"))], "bad_header"),
        ([entry(b"x", b"", b"L"), entry(b"files/a")], "bad_header"),
        ([entry(b"x", b"files/b\0files/c\0", b"L"), entry(b"files/a")], "bad_header"),
        ([pax((b"path", b"../b")), entry(b"files/a")], "unsafe_path"),
        ([pax((b"path", b"files/a\0b")), entry(b"files/a")], "unsafe_path"),
        ([gnu_name(b"/etc/passwd"), entry(b"files/a")], "unsafe_path"),
        ([pax((b"size", b"2000000001")), entry(b"files/a")], "too_large"),
        ([entry(b"files/a", magic=b"bogus\0")], "bad_header"),
        ([entry(b"files/\xff")], "unsafe_path"),
    ],
)
def test_refuses_extension_headers_that_trick(parts: list[bytes], code: str) -> None:
    assert refused(archive(*parts)).code == code


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6", b"D", b"K", b"M", b"S", b"V", b"X", b"?", b"\xff"])
def test_refuses_everything_but_files_and_folders(kind: bytes) -> None:
    error = refused(archive(entry(b"files/a", kind=kind)))

    assert (error.code, error.offset) == ("unsupported_member", len(JOBS))
    assert "'files/a'" in error.message


def test_any_changed_byte_of_a_header_is_noticed() -> None:
    data = archive(entry(b"files/a", b"abc"))
    whole = read(data)
    for place in range(len(JOBS), len(JOBS) + 512):
        for flip in (1, 0x20, 0x80):
            changed = bytearray(data)
            changed[place] ^= flip
            result = outcome(bytes(changed))
            if isinstance(result, ArchiveError):
                assert (result.code, result.offset) == ("bad_checksum", len(JOBS))
            else:
                assert result == whole
                assert 148 <= place - len(JOBS) < 156, "only the checksum's own filler may change"


def test_a_cut_names_the_file_and_where_the_tar_ends() -> None:
    error = refused(archive(entry(b"files/a", b"x" * 5000))[:3000])
    assert (error.code, error.offset) == ("truncated", 3000)
    assert "inside 'files/a', 3656 bytes early" in error.message


def test_refuses_a_signed_checksum() -> None:
    block = header("files/é".encode())
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    assert refused(archive(block[:148] + b"%06o\0 " % signed + block[156:])).code == "bad_checksum"


@pytest.mark.parametrize(
    ("end", "code", "place"),
    [
        (b"", "truncated", 0),
        (bytes(511), "truncated", 511),
        (bytes(512), "truncated", 512),
        (bytes(1023), "truncated", 1023),
        (bytes(512) + entry(b"files/a"), "trailing_data", 512),
        (END + b"x", "trailing_data", 1024),
        (END + bytes(3_000_000) + b"x", "trailing_data", 3_001_024),
        (END + JOBS + END, "trailing_data", 1024),
    ],
)
def test_refuses_another_end_than_zeros(end: bytes, code: str, place: int) -> None:
    error = refused(JOBS + end)

    assert (error.code, error.offset) == (code, len(JOBS) + place)


@pytest.mark.parametrize("filler", [0, 1, 511, 9216, 3_000_000])
def test_accepts_any_number_of_zeros_at_the_end(filler: int) -> None:
    assert read(archive() + bytes(filler))[1] == {"jobs.jsonl": b"{}\n"}


def test_limits() -> None:
    many = archive(*(entry(b"files/%d" % number) for number in range(10)))
    assert refused(many, ArchiveLimits(members=10)).code == "too_large"
    assert len(read(many, ArchiveLimits(members=11))[1]) == 11
    assert refused(archive(), ArchiveLimits(jobs_bytes=2)).code == "too_large"
    assert refused(archive(), ArchiveLimits(input_bytes=100)).code == "too_large"
    assert refused(archive(entry(b"files/a", b"abc")), ArchiveLimits(member_bytes=2, jobs_bytes=9)).code == "too_large"
    folders = archive(*(entry(b"files/%d/" % number, kind=b"5") for number in range(10)))
    assert refused(folders, ArchiveLimits(members=10)).code == "too_large"
    assert refused(archive(*[pax((b"comment", b"c"), kind=b"g")] * 65)).code == "too_large"
    crowded = archive(pax(*[(b"k", b"v")] * 129), entry(b"files/a"))
    assert "more than 128 records" in refused(crowded).message
    wide = archive(entry(b"x", record(b"k", b"v" * 70_000), b"x"), entry(b"files/a"))
    assert refused(wide).code == "too_large"


@pytest.mark.parametrize(
    ("head", "seems"),
    [
        (b"", "empty"),
        (b"PK\x03\x04" + bytes(600), "a zip"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "zstd"),
        (b"BZh9" + bytes(600), "bzip2"),
        (b"\xfd7zXZ\x00" + bytes(600), "xz"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "7z"),
        (b'{"custom_id": "1"}\n' * 50, "JSON"),
        (b'\xef\xbb\xbf\n[{"custom_id"' + b" " * 600, "JSON"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "storage server's error"),
        (b"abc", "only 3 bytes"),
        (b"abcdefgh" * 64, "61 62 63"),
        (JOBS[:200], "only 200 bytes"),
    ],
)
def test_says_what_is_no_archive(head: bytes, seems: str) -> None:
    with pytest.raises(ArchiveError, match=seems) as caught:
        detect(head)
    assert caught.value.code == "not_an_archive"


def test_detects_by_content() -> None:
    assert detect(b"\x1f\x8b\x08" + bytes(20)) == "gzip"
    assert detect(header(b"jobs.jsonl", magic=bytes(8))) == "tar"
    assert detect(b"x" + header(b"jobs.jsonl")[1:]) == "tar", "damaged, but it says that it is one"
    assert detect(JOBS[:300]) == "tar", "cut, but it says that it is one"
    assert detect(END) == "tar"


def test_reads_what_tarfile_reads_of_random_headers() -> None:
    """Headers with one field of noise and a right checksum: read as `tarfile` reads them, or refused."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(1500):
        block = bytearray(header(b"files/a", 5))
        place = rng.randrange(345)
        block[place : place + rng.choice([1, 1, 4])] = rng.choice([rng.randbytes(1), b"\0", b"7", b"/"])
        sealed = seal(bytes(block[:512]).ljust(512, b"\0"))
        result = outcome(archive(sealed + b"hello" + bytes(507)))
        if isinstance(result, ArchiveError):
            continue
        with contextlib.suppress(tarfile.HeaderError):
            info = tarfile.TarInfo.frombuf(sealed, "utf-8", "surrogateescape")
            members = [(name, member.size) for name, member in result[0].members.items() if name != "jobs.jsonl"]
            assert members in ([(info.name, info.size)], [])
