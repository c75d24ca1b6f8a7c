"""The workloads of the peer benchmark: seeded rows, and the files that each contender reads them from.

    T1  text, every prompt its own                      what the orchestration costs
    T2  shared system prompts, shuffled                 order: the cache holds a part of them
    T3  long prompts with short answers, and reverse    prefill against decode
    T4  long-tailed answer lengths                      the tail
    I1  one JPEG of 640 to 1024 pixels a row, unique    media off the engine's path
    I3  one image for 20 questions, shuffled            decode and encode once
    V1  one 15-second clip a row                        video decoding
    M1  7 : 2.5 : 0.5 text, images, clips; broken rows  isolation

    python benchmarks/workloads.py               list them
    python benchmarks/workloads.py I1 200 DIR    write one, sized for a CPU

Sizes are scaled down on CPU (`Scale`). All rows are greedy with `ignore_eos`, so that all do the same work.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthetic.media import clip, jpeg
from synthetic.text import Writer

from lsi_ray.archive.pack import pack_folder
from lsi_ray.config import cache_folder

_VERSION = 1  # change it with anything that changes what is written
QUESTIONS_PER_IMAGE = 20


@dataclass(frozen=True, slots=True)
class Row:
    prompt: int
    """Tokens of the row's own text."""
    output: int
    """Tokens of the answer, exactly."""
    group: int | None = None
    """Rows of one group share a system prompt of `shared` tokens."""
    shared: int = 0
    media: tuple[str, ...] = ()
    broken: bool = False
    """Every contender but lsi is spared it: one such line ends `vllm run-batch`."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What differs between two CPU cores and a GPU."""

    name: str
    max_model_len: int

    @property
    def gpu(self) -> bool:
        return self.name == "gpu"


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    rows: int
    scale: Scale
    model: str
    """The name that requests give."""
    words_per_token: float
    groups: int = 64
    seed: int = 1

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps([_VERSION, asdict(self)]).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Written:
    folder: Path
    rows: int
    good: int
    output_tokens: int
    """Of the good rows together."""

    @property
    def archive(self) -> Path:
        return self.folder / "batch.tar"

    @property
    def lines(self) -> Path:
        """The good rows, with file:// URLs: what the peers read."""
        return self.folder / "peers.jsonl"


def plan(workload: Workload) -> list[Row]:
    """The rows in input order."""
    rng = random.Random(f"{workload.name}-{workload.seed}")
    return _PLANS[workload.name](workload, rng)


def write(workload: Workload, folder: Path | None = None) -> Written:
    """Write the files of a workload, once: a folder in the cache unless `folder` says where."""
    folder = folder or cache_folder() / "bench" / f"{workload.name}-{workload.key}"
    done = folder / "written.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        counts = _write(workload, folder)
        done.write_text(json.dumps(counts))
    return Written(folder, **json.loads(done.read_text()))


def _write(workload: Workload, folder: Path) -> dict[str, int]:
    rows = plan(workload)
    _write_media(folder, sorted({name for row in rows for name in row.media}))
    writer = Writer(workload.words_per_token)
    lines = [_request(workload, writer, number, row, "file:") for number, row in enumerate(rows)]
    (folder / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    base = f"file://{folder.resolve()}/"
    good = [(number, row) for number, row in enumerate(rows) if not row.broken]
    peers = (_request(workload, writer, number, row, base) for number, row in good)
    (folder / "peers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in peers))
    pack_folder(folder, folder / "batch.tar")
    return {"rows": len(rows), "good": len(good), "output_tokens": sum(row.output for _, row in good)}


def _write_media(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_content(path.stem, path.suffix))


def _content(stem: str, suffix: str) -> bytes:
    """The name says it all: `image-7-640x480.jpg`, `clip-3.mp4`, `corrupt-2.jpg`."""
    kind, number, *rest = stem.split("-")
    if suffix == ".mp4":
        return clip(int(number))
    width, height = map(int, rest[0].split("x")) if rest else (640, 480)
    data = jpeg(int(number), width, height)
    return data[: len(data) // 2] if kind == "corrupt" else data


def _request(workload: Workload, writer: Writer, number: int, row: Row, base: str) -> dict[str, Any]:
    text = f"{number}: {writer.text(f'{workload.seed}-{number}', row.prompt)}"
    parts: list[dict[str, Any]] = [_part(base + name) for name in row.media]
    messages: list[dict[str, Any]] = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    if not row.media:
        messages[0]["content"] = text
    if row.group is not None:
        shared = writer.text(f"{workload.seed}-group-{row.group}", row.shared)
        messages.insert(0, {"role": "system", "content": f"{row.group} {shared}"})
    body = {"model": workload.model, "messages": messages, "max_tokens": row.output, "temperature": 0.0}
    return {
        "custom_id": f"row-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body | {"ignore_eos": True},
    }


def _part(url: str) -> dict[str, Any]:
    kind = "video_url" if url.endswith(".mp4") else "image_url"
    return {"type": kind, kind: {"url": url}}


def _t1(workload: Workload, rng: random.Random) -> list[Row]:
    if not workload.scale.gpu:
        return [Row(rng.randint(192, 320), 32) for _ in range(workload.rows)]
    # Conversations as in ShareGPT: a median of about 200 tokens each way, with a long tail.
    return [Row(_lognormal(rng, 200, 1.0, 2048), _lognormal(rng, 180, 1.0, 1024)) for _ in range(workload.rows)]


def _t2(workload: Workload, rng: random.Random) -> list[Row]:
    rows = [Row(64, 64, group=number % workload.groups, shared=256) for number in range(workload.rows)]
    rng.shuffle(rows)
    return rows


def _t3(workload: Workload, rng: random.Random) -> list[Row]:
    long, short = (Row(8000, 50), Row(50, 500)) if workload.scale.gpu else (Row(2000, 12), Row(50, 125))
    rows = [long if number % 2 else short for number in range(workload.rows)]
    rng.shuffle(rows)
    return rows


def _t4(workload: Workload, rng: random.Random) -> list[Row]:
    prompt, median, spread, most = (256, 400, 1.2, 8192) if workload.scale.gpu else (64, 32, 1.0, 768)
    return [Row(prompt, _lognormal(rng, median, spread, most)) for _ in range(workload.rows)]


def _i1(workload: Workload, rng: random.Random) -> list[Row]:
    return [Row(32, 150 if workload.scale.gpu else 16, media=(_image(rng, n),)) for n in range(workload.rows)]


def _i3(workload: Workload, rng: random.Random) -> list[Row]:
    images = [_image(rng, number) for number in range(-(-workload.rows // QUESTIONS_PER_IMAGE))]
    output = 64 if workload.scale.gpu else 16
    rows = [Row(32, output, media=(images[number // QUESTIONS_PER_IMAGE],)) for number in range(workload.rows)]
    rng.shuffle(rows)
    return rows


def _v1(workload: Workload, _rng: random.Random) -> list[Row]:
    return [Row(32, 150 if workload.scale.gpu else 16, media=(f"files/clip-{n}.mp4",)) for n in range(workload.rows)]


def _m1(workload: Workload, rng: random.Random) -> list[Row]:
    """One prompt too long for the model and one broken image in each 1,000 rows, at least one of each."""
    output = 150 if workload.scale.gpu else 16
    rows = []
    for number in range(workload.rows):
        kind = rng.random()
        media = (_image(rng, number),) if kind < 0.25 else (f"files/clip-{number}.mp4",) if kind < 0.30 else ()
        rows.append(Row(32 if media else 256, output, media=media))
    too_long = Row(max(30_000, 2 * workload.scale.max_model_len), output, broken=True)
    pairs = iter(rng.sample(range(len(rows)), 2 * -(-workload.rows // 1000)))
    for number, (one, other) in enumerate(zip(pairs, pairs, strict=True)):
        rows[one] = too_long
        rows[other] = Row(32, output, media=(f"files/corrupt-{number}.jpg",), broken=True)
    return rows


def _image(rng: random.Random, number: int) -> str:
    return f"files/image-{number}-{rng.randint(640, 1024)}x{rng.randint(640, 1024)}.jpg"


def _lognormal(rng: random.Random, median: int, spread: float, most: int) -> int:
    return min(most, max(4, round(median * rng.lognormvariate(0, spread))))


_PLANS: dict[str, Callable[[Workload, random.Random], list[Row]]] = {
    "T1": _t1,
    "T2": _t2,
    "T3": _t3,
    "T4": _t4,
    "I1": _i1,
    "I3": _i3,
    "V1": _v1,
    "M1": _m1,
}
NAMES = tuple(_PLANS)


def cache_tokens(workload: Workload, max_num_seqs: int) -> int | None:
    """KV cache of T2, in tokens: what runs at once and a third more, so that 512 groups never fit and order decides."""
    return max_num_seqs * 400 * 4 // 3 if workload.name == "T2" else None


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(
            write(Workload(sys.argv[1], int(sys.argv[2]), Scale("cpu", 4096), "lsi/tiny-vl", 0.75), Path(sys.argv[3]))
        )
    else:
        print(__doc__)
