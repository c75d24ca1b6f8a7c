"""How fast does a .tar.gz become an index and a plain tar that can be read by range, against gzip libraries alone?

    python benchmarks/archive.py [--gb 1] [--repeat 3]

The archive holds jobs.jsonl and JPEG images, compressed as `gzip -1` would. lsi's side is the intake's own `stage`
(read, SHA-256, strict decompression, write, fsync) and `index_tar`; a library's is read, decompress, write, fsync, of
one stream, in Python: ISA-L, zlib and, where they are installed, zlib-ng and rapidgzip (which takes all cores); and
gzip(1) and pigz(1). Each run is a process of its own, in turns. The bar: 0.9 of the fastest that takes one core, in
bytes of plain tar per second. Results go to benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

from measure import host
from measure.result import RESULTS, Line, conclude
from synthetic.media import jpeg
from synthetic.text import Writer

from lsi_ray.archive.index import index_tar
from lsi_ray.archive.tar_writer import TarWriter
from lsi_ray.config import load_config
from lsi_ray.intake import stage
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.storage.location import Location

_BAR = 0.9
_CHUNK = 1 << 20
_PICTURES = 40  # made once, and repeated: farther apart than deflate's window of 32 KiB
_SIMULATED = Path(__file__).parents[1] / "configs" / "simulated.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=1.0, help="of the .tar.gz")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "SOURCE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, source, folder = options.child
        print(json.dumps(run(way, Path(source), Path(folder))))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    described = host.describe()
    with tempfile.TemporaryDirectory(prefix="lsi-archive-") as name:
        source = Path(name) / "in.tar.gz"
        rows = write_archive(source, int(options.gb * 1e9))
        found = measure(source, Path(name), options.repeat)
    lines = judge(found, source.name, options.gb)
    detail = {"gb": options.gb, "rows": rows, "runs": found}
    raise SystemExit(0 if conclude("archive", lines, detail, described, options.results) else 1)


def write_archive(path: Path, size: int) -> int:
    """About `size` bytes: a row per image, the rows first."""
    from isal import igzip

    pictures = [jpeg(number, 640 + 9 * number, 1024 - 9 * number) for number in range(_PICTURES)]
    count = int(size / (sum(map(len, pictures)) / _PICTURES + 300))
    writer = Writer(0.75)
    jobs = "".join(json.dumps(_row(number, writer)) + "\n" for number in range(count)).encode()
    with path.open("wb") as file, igzip.IGzipFile(fileobj=file, mode="wb", compresslevel=1) as plain:
        tar = TarWriter(plain)
        tar.add_bytes("jobs.jsonl", jobs)
        for number in range(count):
            tar.add_bytes(f"files/{number}.jpg", pictures[number % _PICTURES])
        tar.close()
    return count


def _row(number: int, writer: Writer) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": f"file:files/{number}.jpg"}}
    text = {"type": "text", "text": writer.text(str(number), 128)}
    body = {"model": "lsi/simulated", "max_tokens": 4, "messages": [{"role": "user", "content": [image, text]}]}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def measure(source: Path, folder: Path, repeat: int) -> dict[str, list[dict[str, float]]]:
    """Wall and CPU seconds of each way, in turns."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways()}
    for _ in range(repeat):
        for way, runs in found.items():
            out = folder / "out"
            out.mkdir()
            command = [sys.executable, __file__, "--child", way, str(source), str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            shutil.rmtree(out)
            if done.returncode:
                raise SystemExit(f"{way}: {done.stderr[-1000:]}")
            runs.append(json.loads(done.stdout))
    return found


def judge(found: dict[str, list[dict[str, float]]], name: str, gb: float) -> list[Line]:
    rates = {way: median(run["bytes"] / run["seconds"] / 1e6 for run in runs) for way, runs in found.items()}
    cpu = {way: median(run["cpu_s"] for run in runs) for way, runs in found.items()}
    alone = {way: rate for way, rate in rates.items() if way not in ("lsi", "rapidgzip")}
    best = max(alone, key=lambda way: alone[way])
    ratio = rates["lsi"] / alone[best]
    bar = f"{_BAR} of the fastest library on one core"
    told = f"{rates['lsi']:,.0f} MB/s, {ratio:.2f} of {best}"
    others = ", ".join(f"{way} {rate:,.0f} MB/s ({cpu[way]:.1f} CPU s)" for way, rate in rates.items())
    return [
        Line(f"index and stage {gb:g} GB of .tar.gz", told, bar, ratio >= _BAR),
        Line(f"the same, each way (plain bytes of {name} per second)", others),
        Line(
            "first row renders before the download ends, jobs.jsonl first",
            "no: a batch starts when all of its archive is there and checked, as a truncated one may touch no GPU",
            "yes",
            False,
        ),
    ]


def run(way: str, source: Path, folder: Path) -> dict[str, float]:
    begun = time.perf_counter()
    size = _lsi(source, folder) if way == "lsi" else _library(way, source, folder)
    seconds = time.perf_counter() - begun
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"bytes": size, "seconds": seconds, "cpu_s": sum(one.ru_utime + one.ru_stime for one in used)}


def _lsi(source: Path, folder: Path) -> int:
    batch = WorkDir(folder).create().batch("batch_1")
    batch.create()
    staged = stage(Location.parse(str(source)), batch, load_config(_SIMULATED), lambda _: None)
    with open(staged.tar, "rb") as file:
        index_tar(file, decompressed=staged.compressed)
    return Path(staged.tar).stat().st_size


def _library(way: str, source: Path, folder: Path) -> int:
    with source.open("rb") as packed, (folder / "plain.tar").open("wb") as plain:
        if way in ("gzip", "pigz"):
            subprocess.run([way, "-dc"], stdin=packed, stdout=plain, check=True)
        else:
            for piece in _LIBRARIES[way](packed):
                plain.write(piece)
        plain.flush()
        os.fsync(plain.fileno())
    return (folder / "plain.tar").stat().st_size


def _isal(packed: BinaryIO) -> Iterator[bytes]:
    from isal import igzip_lib

    return _pieces(packed, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP).decompress)


def _zlib(packed: BinaryIO) -> Iterator[bytes]:
    import zlib

    return _pieces(packed, zlib.decompressobj(wbits=31).decompress)


def _zlib_ng(packed: BinaryIO) -> Iterator[bytes]:
    from zlib_ng import zlib_ng

    return _pieces(packed, zlib_ng.decompressobj(wbits=31).decompress)


def _rapidgzip(packed: BinaryIO) -> Iterator[bytes]:
    import rapidgzip

    with rapidgzip.open(packed.name, parallelization=os.cpu_count() or 1) as plain:
        while piece := plain.read(4 * _CHUNK):
            yield piece


def _pieces(packed: BinaryIO, decompress: Callable[[bytes], bytes]) -> Iterator[bytes]:
    while chunk := packed.read(_CHUNK):
        yield decompress(chunk)


_LIBRARIES = {"isal": _isal, "zlib": _zlib, "zlib_ng": _zlib_ng, "rapidgzip": _rapidgzip}


def ways() -> list[str]:
    installed = [name for name in _LIBRARIES if find_spec(name) is not None]
    return ["lsi", *installed, *(name for name in ("gzip", "pigz") if shutil.which(name))]


if __name__ == "__main__":
    main()
