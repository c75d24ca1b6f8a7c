"""Archives that someone might make to break a reader, each with the code that refuses it.

Run as a program, it reads every file of a folder and prints what became of each: so a test can give it little memory.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from isal import igzip_lib, isal_zlib
from tar_blocks import END, JOBS, archive, entry, gnu_name, header, pax, record, zipped

from lsi_ray.archive.detect import HEAD_BYTES, detect
from lsi_ray.archive.gzip import stage_gzip
from lsi_ray.archive.index import index_tar
from lsi_ray.errors import ArchiveError

MIB = 1 << 20


def link(kind: bytes, target: bytes) -> bytes:
    start = b"files/a".ljust(100, b"\0") + b"0000644\0" * 3 + b"00000000000\0" * 2 + bytes(8) + kind
    return sealed((start + target.ljust(100, b"\0") + b"ustar\x0000").ljust(512, b"\0"))


def sealed(block: bytes) -> bytes:
    bare = block[:148] + b" " * 8 + block[156:]
    return bare[:148] + b"%06o\0 " % sum(bare) + bare[156:]


def names() -> Iterator[tuple[str, str, bytes]]:
    for label, name in {
        "parent": b"../../etc/passwd",
        "parent-inside": b"files/../../../etc/passwd",
        "parent-last": b"files/..",
        "absolute": b"/etc/passwd",
        "double-absolute": b"//etc/passwd",
        "drive": b"C:/windows/system32",
        "backslash": b"..\\..\\windows",
        "unc": b"\\\\server\\share",
        "newline": b"files/a\nb",
        "escape": b"files/\x1b]0;title\x07",
        "overlong-utf8": b"files/\xc0\xae\xc0\xae/a",
        "surrogate": b"files/\xed\xa0\x80",
        "latin1": b"files/\xe9.png",
        "c1-control": "files/\x9b31m".encode(),
        "nameless": b"",
        "dot": b".",
    }.items():
        yield f"name-{label}", "unsafe_path", archive(entry(name, b"x"))
        if name:
            yield f"pax-{label}", "unsafe_path", archive(pax((b"path", name)), entry(b"files/a", b"x"))
            yield f"gnu-{label}", "unsafe_path", archive(gnu_name(name), entry(b"files/a", b"x"))
    yield "pax-nul", "unsafe_path", archive(pax((b"path", b"files/a\0/../../x")), entry(b"files/a"))
    yield "name-expands", "too_large", archive(pax((b"path", "\u0958".encode() * 170)), entry(b"files/a"))
    yield "name-long", "too_large", archive(gnu_name(b"n" * 600), entry(b"files/a"))
    yield "pax-marks", "too_large", archive(pax((b"path", "\u0315\u0316".encode() * 16_000)), entry(b"files/a"))
    long, short = gnu_name(b"n" * 486), header(b"x")
    flood = b"".join(b"%bfiles/%06d%b" % (long[:512], number, long[524:]) + short for number in range(41_500))
    yield "names-flood", "too_large", archive(flood)
    yield "name-twice", "duplicate_name", archive(entry(b"files/a"), entry(b"files/./a"))
    yield "name-twice-nfd", "duplicate_name", archive(entry("files/é".encode()), entry(b"files/e\xcc\x81"))
    yield "jobs-twice", "duplicate_name", archive(JOBS)
    yield "jobs-two-roots", "ambiguous_root", archive(entry(b"other/jobs.jsonl", b"{}\n"))
    yield "jobs-none", "missing_jobs", entry(b"files/a") + END
    yield "jobs-is-folder", "missing_jobs", entry(b"jobs.jsonl/", kind=b"5") + END
    yield "jobs-is-link", "unsupported_member", sealed(header(b"jobs.jsonl", 0, b"2")) + END


def kinds() -> Iterator[tuple[str, str, bytes]]:
    yield "symlink", "unsupported_member", archive(link(b"2", b"/etc/passwd"), entry(b"files/a/x", b"x"))
    yield "hardlink", "unsupported_member", archive(link(b"1", b"jobs.jsonl"))
    yield "hardlink-long", "unsupported_member", archive(entry(b"x", b"t" * 300, b"K"), link(b"1", b"t"))
    for label, kind in {"chardev": b"3", "blockdev": b"4", "fifo": b"6", "gnu-dump": b"D", "unknown": b"Z"}.items():
        yield label, "unsupported_member", archive(header(b"files/a", 0, kind))
    yield "multivolume", "unsupported_member", archive(header(b"files/a", 512, b"M"), bytes(512))
    yield "gnu-sparse", "unsupported_member", archive(header(b"files/a", 512, b"S"), bytes(512))
    for label, key in {"0.0": b"GNU.sparse.size", "0.1": b"GNU.sparse.map", "1.0": b"GNU.sparse.realsize"}.items():
        sparse = pax((key, b"1099511627776"))
        yield f"pax-sparse-{label}", "unsupported_member", archive(sparse, entry(b"files/a", b"x"))
    yield "folder-with-data", "bad_header", archive(entry(b"files/", JOBS, kind=b"5"))


def sizes() -> Iterator[tuple[str, str, bytes]]:
    big = b"\x80" + bytes(4) + (2**50).to_bytes(7, "big")
    yield "size-2^50", "too_large", archive(header(b"files/a", big))
    yield "size-base256-max", "too_large", archive(header(b"files/a", b"\x80" + b"\xff" * 11))
    yield "size-octal-max", "too_large", archive(header(b"files/a", b"777777777777"))
    yield "size-1GiB-cut", "truncated", archive(header(b"files/a", b"07777777777\0"))
    yield "size-negative-base256", "bad_header", archive(header(b"files/a", b"\xff" * 11 + b"\0"))
    yield "size-minus", "bad_header", archive(header(b"files/a", b"-0000001000\0"))
    yield "size-text", "bad_header", archive(header(b"files/a", b"zzzzzzzzzzz\0"))
    for value in (b"-512", b"-1", b"1e9", b"0x200", b"512 ", b"", "५१२".encode(), b"9" * 300):
        yield f"pax-size-{value[:12]!r}", "bad_header", archive(pax((b"size", value)), entry(b"files/a"))
    yield "pax-size-2^50", "too_large", archive(pax((b"size", b"%d" % 2**50)), header(b"files/a", 0))
    # One reader skips 1,024 bytes, another 0: two archives in one file.
    smuggled = entry(b"files/hidden", b"x")
    yield "pax-size-differs", "bad_header", archive(pax((b"size", b"1024")), entry(b"files/a", b"x"), smuggled)
    yield "pax-size-global", "bad_header", archive(pax((b"size", b"1024"), kind=b"g"), entry(b"files/a", b"x"))
    yield "gnu-name-size-2^50", "too_large", archive(header(b"x", big, b"L"))
    yield "gnu-name-400MiB", "too_large", archive(header(b"x", 400 * MIB, b"L"))
    yield "pax-400MiB", "too_large", archive(header(b"x", 400 * MIB, b"x"))
    yield "global-400MiB", "too_large", archive(header(b"x", 400 * MIB, b"g"))


def structures() -> Iterator[tuple[str, str, bytes]]:
    path = record(b"path", b"files/b")
    for label, payload in {
        "cut": path[:-1],
        "overrun": b"9" + path,
        "zero-length": b"0 path=x\n",
        "negative": b"-9 path=x\n",
        "huge-length": b"9" * 4000 + b" path=x\n",
        "no-key": b"5 =b\n",
        "two-paths": path * 2,
        "noise": bytes(range(256)),
    }.items():
        yield f"pax-{label}", "bad_header", archive(entry(b"x", payload, b"x"), entry(b"files/a"))
    yield "pax-many-records", "too_large", archive(entry(b"x", b"5 a=\n" * 13_000, b"x"), entry(b"files/a"))
    yield "pax-chain", "bad_header", archive(pax((b"mtime", b"1")) * 1000, entry(b"files/a"))
    yield "gnu-name-chain", "bad_header", archive(gnu_name(b"files/b") * 1000, entry(b"files/a"))
    yield "gnu-name-and-pax", "bad_header", archive(gnu_name(b"files/b"), pax((b"path", b"c")), entry(b"files/a"))
    yield "pax-orphan", "bad_header", archive(pax((b"path", b"files/b")))
    yield "global-path", "bad_header", archive(pax((b"path", b"jobs.jsonl"), kind=b"g"), entry(b"files/a"))
    yield "global-flood", "too_large", archive(pax((b"comment", b"c"), kind=b"g") * 10_000)
    yield "magic", "bad_header", archive(entry(b"files/a", magic=b"tsuar\0"))
    yield "checksum", "bad_checksum", archive(b"\1" + entry(b"files/a")[1:])
    yield "no-end", "truncated", JOBS
    yield "half-end", "truncated", JOBS + bytes(512)
    yield "after-lone-zero-block", "trailing_data", JOBS + bytes(512) + entry(b"files/a") + END
    yield "second-archive", "trailing_data", archive() + archive()
    yield "junk-after-end", "trailing_data", archive() + b"junk"
    yield "junk-far-after-end", "trailing_data", archive() + bytes(5 * MIB) + b"j"


def deflated(head: bytes, zeros: int, deflate: Any) -> bytes:
    """A gzip of `head` and that many zeros, made without holding them."""
    parts = [deflate.compress(head)]
    parts += [deflate.compress(bytes(MIB)) for _ in range(zeros // MIB)]
    return b"".join([*parts, deflate.flush()])


def gzips() -> Iterator[tuple[str, str, bytes]]:
    good = zipped(archive())
    yield (
        "gz-bomb-in-member",
        "too_large",
        deflated(JOBS + header(b"files/a", 64 * MIB), 64 * MIB, zlib.compressobj(wbits=31)),
    )
    yield "gz-bomb-in-filler", "too_large", deflated(archive(), 64 * MIB, zlib.compressobj(wbits=31))
    # isal's fastest level stays below the ratio of a bomb: this one is refused for what it decompresses to.
    quick = isal_zlib.compressobj(0, wbits=31)
    yield "gz-400MiB-gnu-name", "too_large", deflated(JOBS + header(b"x", 400 * MIB, b"L"), 400 * MIB, quick)
    yield "gz-32000-empty-members", "too_large", zipped(b"") * 32_000 + good
    yield "gz-junk", "trailing_data", good + b"junk"
    yield "gz-junk-after-zeros", "trailing_data", good + bytes(100_000) + b"j"
    yield "gz-crc", "bad_gzip", good[:-8] + b"\0\0\0\0" + good[-4:]
    yield "gz-length", "bad_gzip", good[:-4] + b"\xff\xff\xff\xff"
    yield "gz-cut", "truncated", good[:-1]
    yield "gz-endless-name", "bad_gzip", good[:3] + b"\x08" + good[4:10] + b"n" * 5 * MIB
    yield "gz-noise", "bad_gzip", good[:10] + bytes(range(256)) * 100
    yield "gz-of-gz", "not_an_archive", zipped(good)
    yield "gz-of-nothing", "not_an_archive", zipped(b"")
    yield "zlib-in-gz", "bad_gzip", good[:10] + zlib.compress(archive())
    isal = igzip_lib.compress(archive(), flag=igzip_lib.COMP_GZIP)
    yield "gz-second-cut", "truncated", isal + isal[:-3]


def corpus() -> Iterator[tuple[str, str, bytes]]:
    """(name, code, bytes): every hostile tar, plain and compressed, and the hostile gzips."""
    plains: list[Callable[[], Iterator[tuple[str, str, bytes]]]] = [names, kinds, sizes, structures]
    for plain in plains:
        for name, code, data in plain():
            yield f"{name}.tar", code, data
            if len(data) < 8 * MIB:
                yield f"{name}.tar.gz", code, igzip_lib.compress(data, 0, igzip_lib.COMP_GZIP)
    yield from gzips()


def judge(path: Path) -> tuple[str, float]:
    """The code with which the file is refused, and the seconds of CPU it took."""
    began = time.process_time()
    try:
        with path.open("rb") as file:
            if detect(file.read(HEAD_BYTES)) == "tar":
                index_tar(file)
            else:
                file.seek(0)
                with path.with_suffix(".plain").open("w+b") as plain:
                    stage_gzip(file, plain)
                    index_tar(plain, decompressed=True)
        code = "accepted"
    except ArchiveError as error:
        code = error.code
        code += "" if len(error.message) < 1000 else " in a message of any length"
    return code, time.process_time() - began


def main(folder: Path, more_bytes: int) -> None:
    """Print {name: [code, seconds]} of the files in `folder`, with that much memory more than it takes to start."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, used + more_bytes))
    json.dump({path.name: judge(path) for path in sorted(folder.iterdir())}, io.TextIOWrapper(sys.stdout.buffer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
