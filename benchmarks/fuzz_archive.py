"""Can damaged or forged archives crash the readers, slow them down, or be accepted in silence?

    python benchmarks/fuzz_archive.py [--minutes 1] [--seed 1] [--keep FOLDER] [--record]

Damages good archives at random (headers whose checksum is then made right, pax records, sizes, blocks, bytes, gzip
streams, rows) and reads them as a batch's intake would. Every input must end in ArchiveError or be accepted, every line
in RowError or a request; what is accepted must be what Python's own tarfile, zlib and json see in it. Prints the counts
per code and the slowest case; failing inputs are kept, and the exit code says whether there were any. With `--record`
the run joins those of results/fuzz_archive.json.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import random
import resource
import subprocess
import sys
import tarfile
import time
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsi_ray.archive.detect import HEAD_BYTES, detect
from lsi_ray.archive.gzip import stage_gzip
from lsi_ray.archive.index import ArchiveIndex, index_tar, read_member
from lsi_ray.archive.jobs_lines import iter_lines
from lsi_ray.archive.rows import parse_row
from lsi_ray.archive.tar_writer import TarWriter
from lsi_ray.errors import ArchiveError, RowError

BLOCK = 512
SLOW_S = 2.0
RESULTS = Path(__file__).parent / "results" / "fuzz_archive.json"
ROWS = [
    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {
        "model": "m", "max_tokens": 5, "temperature": 0.5, "stop": ["x"], "seed": 2**40,
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "caf\u00e9 \U0001f600 \\ud83d"},
            {"type": "image_url", "image_url": {"url": "file:files/a.png"}}]}]}},
    {"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": [[1, 2], [3]]}},
    {"custom_id": "c", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": ["x", "y"]}},
]  # fmt: skip
TOKENS = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"NaN", b"1e999", b"-", b"9" * 30, b"\\ud800", b"\xff", b"null",
    b"\n", b"\r\n", b"\0", b"\xc0\xaf", b"\xef\xbb\xbf", b"[" * 70, b'"custom_id":"a",', b" ", b"\xe2\x80\xa8",
]  # fmt: skip
FIELDS = {
    "name": (0, 100), "size": (124, 136), "sum": (148, 156), "kind": (156, 157), "magic": (257, 265),
    "prefix": (345, 500),
}  # fmt: skip
SIZES = [
    b"00000000000\0", b"00000000001\0", b"77777777777\0", b"\x80" + bytes(10) + b"\x05", b"\xff" * 12, b"-1         ",
    b"0x10\0\0\0\0\0\0\0\0", b" 17 \0" + bytes(7), bytes(12),
]  # fmt: skip
KINDS = [bytes([code]) for code in b"01234567LKxgSDMVN\0"]
PAX = [
    b"path=files/z", b"path=../z", b"path=", b"size=0", b"size=5", b"size=-1", b"size=99999999999999999999", b"mtime=1",
    b"GNU.sparse.major=1", b"comment=\0", b"linkpath=/etc/passwd", b"hdrcharset=BINARY",
]  # fmt: skip


class Fuzz:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.slowest = (0.0, "")
        self.failures: list[tuple[str, bytes]] = []
        self._tars = [self._good(*sizes) for sizes in ((3, 700, 0), (0,), (512, 1, 1024, 5))]

    def one(self) -> None:
        way = self.rng.choice([self._bytes, self._headers, self._headers, self._blocks, self._pax, self._rows])
        data = way(bytearray(self.rng.choice(self._tars)))
        if self.rng.random() < 0.5:
            data = self._gzip(data)
        self._judge(way.__name__, data)

    def _judge(self, way: str, data: bytes) -> None:
        began = time.process_time()
        try:
            verdict = read(data)
        except ArchiveError as error:
            verdict = error.code
            if len(error.message) > 1000:
                self.failures.append((f"{way}: a message of {len(error.message)} characters", data))
        except Exception as error:  # what the fuzz is for
            verdict = "CRASH"
            self.failures.append((f"{way}: {type(error).__name__}: {error}", data))
        self.counts[verdict] += 1
        took = time.process_time() - began
        self.slowest = max(self.slowest, (took, f"{way}, {verdict}"))
        if took > SLOW_S:
            self.failures.append((f"{way}: took {took:.1f} s", data))

    def _good(self, *sizes: int) -> bytes:
        file = io.BytesIO()
        tar = TarWriter(file)
        names = ["files/a.png", "files/gr\u00f6\u00dfe.png", "files/" + "n" * 150, "top/other", "files/x/y"]
        for name, size in zip(names, sizes, strict=False):
            tar.add_bytes(name, self.rng.randbytes(size))
        tar.add_bytes("jobs.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in ROWS))
        tar.close()
        return file.getvalue() + bytes(self.rng.choice([0, 4096]))

    def _bytes(self, data: bytearray) -> bytes:
        for _ in range(self.rng.randint(1, 4)):
            place = self.rng.randrange(len(data))
            data[place] = self.rng.choice([data[place] ^ (1 << self.rng.randrange(8)), self.rng.randrange(256), 0])
        return bytes(data[: self.rng.choice([len(data), len(data), self.rng.randrange(len(data))])])

    def _headers(self, data: bytearray) -> bytes:
        """Change fields of headers, and make most checksums right again."""
        for place in self.rng.sample(heads(data), k=self.rng.randint(1, 2)):
            start, end = FIELDS[field := self.rng.choice(list(FIELDS))]
            options = {"size": SIZES, "kind": KINDS}.get(field) or [
                self.rng.randbytes(end - start),
                self.rng.choice([b"", b"files/b", b"../x", b"/x", b"a\\b", b"jobs.jsonl", b"\xc3\x28", b"ustar  \0"]),
            ]
            data[place + start : place + end] = self.rng.choice(options).ljust(end - start, b"\0")[: end - start]
            if self.rng.random() < 0.9:
                reseal(data, place)
        return bytes(data)

    def _blocks(self, data: bytearray) -> bytes:
        """Drop, repeat, move and blank whole blocks, and join archives."""
        blocks = [bytes(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
        for _ in range(self.rng.randint(1, 3)):
            at, to = self.rng.randrange(len(blocks)), self.rng.randrange(len(blocks))
            change: Callable[[], object] = self.rng.choice([
                lambda at=at: blocks.pop(at) if len(blocks) > 1 else None,
                lambda at=at, to=to: blocks.insert(to, blocks[at]),
                lambda at=at: blocks.__setitem__(at, bytes(BLOCK)),
                lambda to=to: blocks.insert(to, bytes(BLOCK)),
                lambda: blocks.extend(self.rng.choice([blocks[:6], [bytes(BLOCK)] * 3, [b"junk"]])),
            ])  # fmt: skip
            change()
            at = min(at, len(blocks) - 1)
        return b"".join(blocks)

    def _pax(self, data: bytearray) -> bytes:
        """Put an extension header of odd records before an entry."""
        payload = b"".join(map(pax_record, self.rng.choices(PAX, k=self.rng.randint(1, 3))))
        if self.rng.random() < 0.3:
            payload = bytes(self.rng.choice([payload[:-1], payload + b"7 x", b"0 " + payload, payload * 200]))
        head = bytearray(data[:BLOCK])
        head[0:100] = b"PaxHeaders/x".ljust(100, b"\0")
        head[156:157] = self.rng.choice([b"x", b"x", b"x", b"g", b"L", b"K"])
        head[124:136] = b"%011o\0" % len(payload)
        reseal(head, 0)
        place = self.rng.choice(heads(data))
        data[place:place] = bytes(head) + payload + bytes(-len(payload) % BLOCK)
        return bytes(data)

    def _rows(self, _: bytearray) -> bytes:
        text = bytearray(b"".join(json.dumps(self.rng.choice(ROWS)).encode() + b"\n" for _ in range(4)))
        for _ in range(self.rng.randint(1, 6)):
            place = self.rng.randrange(len(text))
            text[place : place + self.rng.randint(0, 3)] = self.rng.choice(TOKENS)
        file = io.BytesIO()
        tar = TarWriter(file)
        tar.add_bytes("files/a.png", b"x")
        tar.add_bytes("jobs.jsonl", bytes(text))
        tar.close()
        return file.getvalue()

    def _gzip(self, data: bytes) -> bytes:
        level = self.rng.choice([0, 1, 9])
        cut = self.rng.randrange(len(data) + 1) if self.rng.random() < 0.2 else len(data)
        parts = [zlib.compressobj(level, wbits=31) for _ in range(2 if cut < len(data) else 1)]
        pieces = [data[:cut], data[cut:]]
        packed = bytearray(
            b"".join(one.compress(piece) + one.flush() for one, piece in zip(parts, pieces, strict=False))
        )
        if self.rng.random() < 0.5:
            packed = bytearray(self._bytes(packed))
        if self.rng.random() < 0.1:
            packed += self.rng.choice([b"\0" * 9, b"\x1f\x8b", b"junk", bytes(packed)])
        return bytes(packed)


def read(data: bytes) -> str:
    """Read an archive as intake does. Raises ArchiveError; AssertionError when another reader sees something else."""
    plain = data
    if (kind := detect(data[:HEAD_BYTES])) == "gzip":
        target = io.BytesIO()
        stage_gzip(io.BytesIO(data), target)
        plain = target.getvalue()
        assert inflated(data) in (plain, None), "zlib decompresses it to something else"
    index = index_tar(io.BytesIO(plain), decompressed=kind == "gzip")
    same_as_tarfile(plain, index)
    check_rows(plain, index)
    return "accepted"


def inflated(data: bytes) -> bytes | None:
    """None where zlib minds how the Huffman codes are written down; isal does not, and the checksum is right."""
    try:
        return _inflated(data)
    except zlib.error as error:
        if "check" in str(error):
            raise
        return None


def _inflated(data: bytes) -> bytes:
    out = b""
    while data.strip(b"\0"):
        one = zlib.decompressobj(wbits=31)
        out += one.decompress(data) + one.flush()
        assert one.eof, "zlib finds the stream cut"
        data = one.unused_data
    return out


def same_as_tarfile(plain: bytes, index: ArchiveIndex) -> None:
    """The regular files that tarfile finds, by the name at which it would put them, are those of the index. It takes
    "name/" for a file where GNU tar and we see a folder, and stops without a word at a number that is none, such as a
    time, which we do not read."""
    theirs: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
        for member in tar:
            assert member.isreg() or member.isdir(), f"tarfile sees {member!r}"
            file = tar.extractfile(member)
            parts = [part for part in unicodedata.normalize("NFC", member.name).split("/") if part not in ("", ".")]
            assert ".." not in parts
            if file is not None and not member.name.endswith("/"):
                theirs["/".join(parts)] = file.read()
        if is_odd(plain[tar.offset : tar.offset + BLOCK]):
            return
    ours = {name: read_member(io.BytesIO(plain), member) for name, member in index.members.items()}
    assert len(theirs) == len(ours) + len(index.ignored), f"tarfile sees {sorted(theirs)}, we {sorted(ours)}"
    for name, content in ours.items():
        found = [text for path, text in theirs.items() if path == name or path.partition("/")[2] == name]
        assert content in found, f"tarfile reads another {name!r}"


def is_odd(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:
        return False
    except tarfile.HeaderError:
        return True
    return False


def check_rows(plain: bytes, index: ArchiveIndex) -> None:
    """Each line that is not blank is one request or one RowError, with its number."""
    jobs = read_member(io.BytesIO(plain), index.jobs)
    wanted = [number for number, line in enumerate(jobs.split(b"\n"), start=1) if line.strip(b" \t\r")]
    found = []
    for row, line in enumerate(iter_lines(io.BytesIO(plain), index.jobs)):
        found.append(line.number)
        assert line.data is not None
        try:
            request = parse_row(line.data, row_index=row, line_number=line.number, members=index.members)
        except RowError as error:
            if error.line != line.number:
                raise AssertionError(f"line {line.number} is called {error.line}") from None
            continue
        assert request.custom_id == json.loads(line.data)["custom_id"]
        json.dumps(request.body, ensure_ascii=False).encode()
    assert found == wanted


def heads(data: bytes | bytearray) -> list[int]:
    places, at = [], 0
    while at + BLOCK <= len(data) and any(data[at : at + BLOCK]):
        places.append(at)
        at += BLOCK + -(-int(bytes(data[at + 124 : at + 135]), 8) // BLOCK) * BLOCK
    return places


def reseal(data: bytearray, at: int) -> None:
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])


def pax_record(body: bytes) -> bytes:
    length = next(n for n in range(len(body) + 3, len(body) + 9) if n == len(body) + 2 + len(str(n)))
    return b"%d %b\n" % (length, body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    commit = head_commit() if options.record else ""
    fuzz, ends = Fuzz(options.seed), time.monotonic() + 60 * options.minutes
    before = memory_mb()
    while time.monotonic() < ends:
        fuzz.one()
    report: dict[str, Any] = {
        "seed": options.seed,
        "minutes": options.minutes,
        "cases": fuzz.counts.total(),
        "verdicts": dict(fuzz.counts.most_common()),
        "slowest_s": round(fuzz.slowest[0], 3),
        "slowest": fuzz.slowest[1],
        "memory_grew_mb": memory_mb() - before,
        "failures": len(fuzz.failures),
    }
    print(json.dumps(report, indent=1))
    if options.record:
        findings = [reason for reason, _ in fuzz.failures]
        record({"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit, **report, "findings": findings})
    for number, (reason, data) in enumerate(fuzz.failures[:20]):
        options.keep.mkdir(parents=True, exist_ok=True)
        (options.keep / f"{number}.bin").write_bytes(data)
        print(f"{options.keep / str(number)}.bin: {reason}", file=sys.stderr)
    return 1 if fuzz.failures else 0


def head_commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def record(run: dict[str, Any]) -> None:
    runs = [*(json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else ()), run]
    totals = {name: sum(one[name] for one in runs) for name in ("minutes", "cases", "failures")}
    RESULTS.write_text(json.dumps({"benchmark": "fuzz_archive", **totals, "runs": runs}, indent=1) + "\n")


def memory_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
