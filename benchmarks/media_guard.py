"""What does the guard around the decoders cost? Decoding in this process and in the guard's child, in turns.

    python benchmarks/media_guard.py [--seconds 3] [--rounds 5]

Each round takes the best time of a file on either side, in turns file by file (a machine has other things to do, and a
mean would measure those); printed are the medians of the rounds, of the ratio too. And how long a child takes to start,
and how much memory it holds. The bar: 5 % for 1024x768 JPEGs and for clips of 15 seconds.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import psutil
from PIL import Image

from lsi_ray.media.decoder import Decoder
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.image import decode_image
from lsi_ray.media.limits import DEFAULT_DECODER_LIMITS, DEFAULT_LIMITS
from lsi_ray.media.sampling import uniform
from lsi_ray.media.video import decode_video


def picture(width: int, height: int, seed: int) -> Image.Image:
    """As rough as a photograph: 1024x768 make a JPEG of 180 KB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.normal(0, 5, (height, width, 1)).astype(np.int16)
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def image(width: int, height: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture(width, height, 0).save(buffer, kind, **({"quality": 85} if kind != "PNG" else {}))
    return buffer.getvalue()


def clip(width: int, height: int, seconds: int = 15, rate: int = 25) -> bytes:
    """H.264 in MP4: a window that moves over a large picture."""
    buffer = io.BytesIO()
    scene = np.asarray(picture(width + 384, height, 1))
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast"}
        for i in range(seconds * rate):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[:, i : i + width]), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def cases(guard: MediaGuard) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """By name: decoding here, and in the child."""
    found: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for width, height, kind in ((320, 240, "JPEG"), (1024, 768, "JPEG"), (1024, 768, "PNG"), (4000, 3000, "JPEG")):
        data = image(width, height, kind)
        name = f"{kind} {width}x{height}, {len(data) >> 10} KB"
        found[name] = (lambda d=data: decode_image(d)), (lambda d=data: guard.decode_image(d))
    for width, height, most in ((640, 360, 32), (1280, 720, 32), (640, 360, 375)):
        data, sample = clip(width, height), uniform(most)
        name = f"15 s of {width}x{height}, {most} frames, {len(data) >> 10} KB"
        here = lambda d=data, s=sample: decode_video(d, s)  # noqa: E731
        found[name] = here, (lambda d=data, s=sample: guard.decode_video(d, s))
    return found


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a file: wall seconds, and CPU seconds of this process and the child together."""

    wall: float
    cpu: float


def one_round(here: Callable[[], object], there: Callable[[], object], budget: float, child: int) -> tuple[Cost, Cost]:
    """Best wall times; means of CPU time, whose clock is too coarse for one file."""
    walls: tuple[list[float], list[float]] = ([], [])
    cpu = [0.0, 0.0]
    begun = time.perf_counter()
    while time.perf_counter() - begun < 2 * budget or len(walls[0]) < 3:
        for side, decode in enumerate((here, there)):
            started, used = time.perf_counter(), time.process_time()
            decode()
            walls[side].append(time.perf_counter() - started)
            cpu[side] += time.process_time() - used
    cpu[1] += _cpu_of(child) - _CHILD_CPU.get(child, 0.0)
    _CHILD_CPU[child] = _cpu_of(child)
    count = len(walls[0])
    first, second = (Cost(min(times), used / count) for times, used in zip(walls, cpu, strict=True))
    return first, second


_CHILD_CPU: dict[int, float] = {}


def _cpu_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def start() -> tuple[float, float]:
    """Seconds until a child can work, and its private memory in MB."""
    begun = time.perf_counter()
    decoder = Decoder(DEFAULT_LIMITS, DEFAULT_DECODER_LIMITS)
    taken = time.perf_counter() - begun
    memory = psutil.Process(decoder.child.pid).memory_full_info().uss / 1e6
    decoder.close()
    return taken, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="per case and side, over all rounds")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    starts = [start() for _ in range(options.rounds)]
    print(f"start of a child: {statistics.median(s for s, _ in starts):.2f} s, {starts[0][1]:.0f} MB")
    with MediaGuard() as guard:
        for name, (here, there) in cases(guard).items():
            here(), there()
            child = guard.pid
            assert child is not None
            _CHILD_CPU[child] = _cpu_of(child)
            rounds = [one_round(here, there, options.seconds / options.rounds, child) for _ in range(options.rounds)]
            show(name, rounds)


def show(name: str, rounds: list[tuple[Cost, Cost]]) -> None:
    here, there = (statistics.median(pair[side].wall for pair in rounds) * 1e3 for side in (0, 1))
    ratio = statistics.median(there.wall / here.wall for here, there in rounds)
    cpu = statistics.median(there.cpu / here.cpu for here, there in rounds)
    print(f"{name:44} {here:8.2f} ms {there:8.2f} ms  ratio {ratio:.3f}, of CPU time {cpu:.3f}", flush=True)


if __name__ == "__main__":
    main()
