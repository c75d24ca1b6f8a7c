from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hostile_media
import numpy as np
import psutil
import pytest
from media_clips import clip, noise, saved

from lsi_ray.errors import EngineError, RowError
from lsi_ray.media.container import open_video
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.image import decode_image
from lsi_ray.media.limits import DecoderLimits, MediaLimits
from lsi_ray.media.sampling import VideoInfo, uniform
from lsi_ray.media.video import decode_video

VIDEOS: dict[str, Callable[[], bytes]] = {
    "h264 in mp4": lambda: clip(bf="2", preset="fast"),
    "h264 with sound": lambda: clip(seconds_of_audio=1),
    "h264 rotated": lambda: clip(rotation=90, noisy=True),
    "hevc in mov": lambda: clip("mov", "libx265"),
    "hevc of 10 bits": lambda: clip(codec="libx265", pixels="yuv420p10le"),
    "vp8 in webm": lambda: clip("webm", "libvpx"),
    "vp9 in matroska": lambda: clip("matroska", "libvpx-vp9"),
    "av1 in mp4": lambda: clip(codec="libsvtav1"),
    "several windows": lambda: clip(size=(480, 270), noisy=True),
}


@pytest.fixture(scope="module")
def guard() -> Iterator[MediaGuard]:
    with MediaGuard() as made:
        yield made


def refusal(decode: Callable[[], object]) -> RowError:
    """And none that hangs; on a machine of its own each comes within 2 s."""
    begun = time.monotonic()
    with pytest.raises(RowError) as caught:
        decode()
    assert time.monotonic() - begun < 30
    return caught.value


def works(guard: MediaGuard) -> bool:
    data = saved(noise(), "PNG")
    return np.array_equal(guard.decode_image(data).pixels, np.asarray(noise()))


@pytest.mark.parametrize("name", hostile_media.IMAGES)
def test_images_are_those_of_decoding_here(guard: MediaGuard, name: str) -> None:
    data = hostile_media.IMAGES[name]()
    guarded = guard.decode_image(data)
    assert guarded.picture.mode == "RGB"
    assert np.array_equal(guarded.pixels, decode_image(data).pixels)


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_those_of_decoding_here(guard: MediaGuard, name: str) -> None:
    data = VIDEOS[name]()
    for sample in (uniform(8), uniform(-1), lambda _: [0, 29, 99]):
        guarded, here = guard.decode_video(data, sample), decode_video(data, sample)
        assert np.array_equal(guarded.frames, here.frames)
        assert (guarded.indices, guarded.info) == (here.indices, here.info)


def test_a_video_decoded_again_from_the_start_begins_again(guard: MediaGuard) -> None:
    # Times that tell nothing: a frame's turns up twice, so that the shortcut gives up halfway.
    data = clip("matroska", "libvpx", 30, size=(640, 360), times=[40 * (i - (i == 20)) for i in range(30)], noisy=True)
    guarded, here = guard.decode_video(data, uniform(-1)), decode_video(data, uniform(-1))
    assert np.array_equal(guarded.frames, here.frames)


@pytest.mark.parametrize("name", hostile_media.other_formats())
def test_other_formats_are_refused(guard: MediaGuard, name: str) -> None:
    data = hostile_media.other_formats()[name]
    assert refusal(lambda: guard.decode_image(data)).code == "unsupported_media_type"
    assert refusal(lambda: guard.decode_video(data, uniform(4))).code == "unsupported_media_type"


@pytest.mark.parametrize("name", hostile_media.other_codecs())
def test_other_codecs_are_refused(guard: MediaGuard, name: str) -> None:
    data = hostile_media.other_codecs()[name]
    assert refusal(lambda: guard.decode_video(data, uniform(4))).code == "unsupported_media_type"


def test_errors_are_those_of_decoding_here(guard: MediaGuard) -> None:
    for data in (b"", saved(noise(), "JPEG")[:200], hostile_media.png(30_000, 30_000, 1), hostile_media.text_bomb()):
        guarded, here = refusal(lambda d=data: guard.decode_image(d)), refusal(lambda d=data: decode_image(d))
        assert (guarded.code, guarded.message, guarded.status) == (here.code, here.message, here.status)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (lambda: hostile_media.long_gif(100_000), (2, 2)),
        (lambda: hostile_media.long_webp(200), (8, 8)),
        (lambda: hostile_media.png(12_000, 4_000), (12_000, 4_000)),
    ],
    ids=["100,000 frames", "animation", "48 megapixels"],
)
def test_what_is_large_but_allowed_passes(guard: MediaGuard, data: Callable[[], bytes], size: tuple[int, int]) -> None:
    begun = time.monotonic()
    assert guard.decode_image(data()).picture.size == size
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("name", hostile_media.lying_videos())
def test_headers_that_lie_end_in_frames_or_a_row_error(guard: MediaGuard, name: str) -> None:
    begun, child = time.monotonic(), guard.pid
    try:
        assert guard.decode_video(hostile_media.lying_videos()[name], uniform(8)).frames.ndim == 4
    except RowError as error:
        assert error.code in ("media_invalid", "media_too_large")  # noqa: PT017
    assert time.monotonic() - begun < 30
    assert guard.pid == child


def test_mutated_files_end_in_pixels_or_a_row_error(guard: MediaGuard) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    codes = ("media_invalid", "media_too_large", "unsupported_media_type")
    decoders: list[tuple[Callable[[bytes], object], list[bytes]]] = [
        (guard.decode_image, [make() for name, make in hostile_media.IMAGES.items() if "several" not in name]),
        (lambda data: guard.decode_video(data, uniform(4)), [make() for make in list(VIDEOS.values())[:8]]),
    ]
    for decode, originals in decoders:
        for data in hostile_media.mutations(originals, 250, rng):
            try:
                decode(data)
            except RowError as error:
                assert error.code in codes, error  # noqa: PT017
    assert works(guard)


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_nothing_is_opened_that_a_file_points_to(guard: MediaGuard, canary: socket.socket) -> None:
    for name, data in hostile_media.references(canary.getsockname()[1]).items():
        for decode in (lambda d=data: guard.decode_image(d), lambda d=data: guard.decode_video(d, uniform(2))):
            with contextlib.suppress(RowError):  # what refers to data elsewhere may have them here as well
                decode()
        # And not even by the demuxer that would, were it asked.
        for demuxer in ("hls", "concat", "sdp", "mov"):
            with contextlib.suppress(RowError), open_video(data, demuxer, 1 << 20) as (container, stream):
                list(container.decode(stream))
        assert not select.select([canary], [], [], 0)[0], f"{name} was followed"


def test_many_files_go_through_one_child(guard: MediaGuard) -> None:
    assert works(guard)
    child = guard.pid
    for number in range(200):
        image = noise(seed=number)
        assert np.array_equal(guard.decode_image(saved(image, "PNG")).pixels, np.asarray(image))
    assert guard.pid == child


def test_neither_memory_nor_descriptors_are_lost(guard: MediaGuard) -> None:
    good, bad, video = saved(noise(), "JPEG"), saved(noise(), "PNG")[:-500], clip(frames=3)
    sizes = []
    for _ in range(2):
        for _ in range(1000):
            guard.decode_image(good)
            with pytest.raises(RowError):
                guard.decode_image(bad)
        for _ in range(50):
            guard.decode_video(video, uniform(2))
        assert guard.pid is not None
        here, there = psutil.Process(), psutil.Process(guard.pid)
        sizes.append((here.num_fds(), there.memory_info().rss))
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] - sizes[0][1] < 2 << 20


def interfering(guard: MediaGuard, *signals: signal.Signals) -> Callable[[VideoInfo], Sequence[int]]:
    """A sampler, asked in the middle of a job, that sends the child a signal each time."""
    left = list(signals)

    def sample(_: VideoInfo) -> Sequence[int]:
        if left:
            assert guard.pid is not None
            os.kill(guard.pid, left.pop(0))
        return [0, 1]

    return sample


CRASHES = [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT]


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_is_a_row_error_and_the_next_file_is_fine(guard: MediaGuard, crash: signal.Signals) -> None:
    error = refusal(lambda: guard.decode_video(clip(), interfering(guard, crash, crash)))
    assert error.code == "media_invalid"
    assert crash.name in error.message
    assert works(guard)


def test_a_child_killed_from_outside_harms_no_file(guard: MediaGuard) -> None:
    assert guard.decode_video(clip(), interfering(guard, signal.SIGKILL)).indices == (0, 1)
    assert guard.pid is not None
    os.kill(guard.pid, signal.SIGKILL)  # between files
    assert works(guard)


def test_a_child_that_hangs_is_a_row_error_and_the_next_file_is_fine() -> None:
    with MediaGuard(bounds=DecoderLimits(stall_seconds=0.5)) as guard:
        assert works(guard)
        error = refusal(lambda: guard.decode_video(clip(), interfering(guard, signal.SIGSTOP)))
        assert error.code == "media_timeout"
        assert "no progress" in error.message
        assert works(guard)


def test_time_is_limited() -> None:
    with MediaGuard(bounds=DecoderLimits(image_seconds=-1.2)) as guard:
        error = refusal(lambda: guard.decode_image(hostile_media.scans(5_000, 25)))  # 0.3 s, and gets 0.05
        assert error.code == "media_timeout"
        assert "s of CPU time" in error.message
        assert works(guard)


def test_a_small_video_gets_less_time_than_a_large_one() -> None:
    bounds = DecoderLimits()
    assert bounds.video_cpu_seconds(100_000) == pytest.approx(11)
    assert bounds.video_cpu_seconds(5_000_000) == pytest.approx(60)
    assert bounds.video_cpu_seconds(2 << 30) == 600
    with MediaGuard(bounds=DecoderLimits(video_seconds=0.05)) as guard:
        many_edits = hostile_media.edited(1_000_000)
        assert refusal(lambda: guard.decode_video(many_edits, uniform(4))).code == "media_timeout"
        assert works(guard)


def test_memory_is_limited() -> None:
    large = hostile_media.png(6_000, 4_000)
    with MediaGuard(bounds=DecoderLimits(memory_bytes=64 << 20)) as guard:
        error = refusal(lambda: guard.decode_image(large))
        assert error.code == "media_too_large"
        assert "64 MiB" in error.message
        error = refusal(lambda: guard.decode_video(clip(size=(4000, 3000), frames=2), uniform(2)))
        assert error.code == "media_too_large"
        assert works(guard)


@pytest.mark.parametrize(
    "limits",
    [
        MediaLimits(image_bytes=100, video_bytes=100),
        MediaLimits(image_pixels=60 * 40 - 1, frame_pixels=96 * 64 - 1),
        MediaLimits(image_side=59, video_frames=29),
        MediaLimits(image_side=59, video_seconds=1.0),
        MediaLimits(image_side=59, sampled_frames=7),
        MediaLimits(image_side=59, sampled_pixels=8 * 96 * 64 - 1),
    ],
)
def test_sizes_are_limited(limits: MediaLimits) -> None:
    with MediaGuard(limits) as guard:
        assert refusal(lambda: guard.decode_image(saved(noise(), "PNG"))).code == "media_too_large"
        assert refusal(lambda: guard.decode_video(clip(), uniform(8))).code == "media_too_large"


def test_errors_of_a_sampler_pass_and_leave_the_child_as_it_was(guard: MediaGuard) -> None:
    def refuses(_: VideoInfo) -> Sequence[int]:
        raise RowError("my_code", "mine")

    def breaks(_: VideoInfo) -> Sequence[int]:
        raise KeyError("a bug")

    assert works(guard)
    child = guard.pid
    assert refusal(lambda: guard.decode_video(clip(), refuses)).code == "my_code"
    assert refusal(lambda: guard.decode_video(clip(), lambda _: [])).code == "media_invalid"
    assert works(guard)
    assert guard.pid == child
    with pytest.raises(KeyError):
        guard.decode_video(clip(), breaks)
    assert works(guard)


def test_a_child_that_cannot_start_is_no_fault_of_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with MediaGuard() as guard, pytest.raises(EngineError, match="did not start"):
        works(guard)


def test_the_child_dies_with_its_worker(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import io, time\nfrom PIL import Image\nfrom lsi_ray.media.guard import MediaGuard\n"
        "file = io.BytesIO()\nImage.new('RGB', (8, 8)).save(file, 'PNG')\n"
        "guard = MediaGuard()\nguard.decode_image(file.getvalue())\n"
        "print(guard.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    child.wait(2)


def test_the_child_holds_nothing_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the worker")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        with MediaGuard() as fresh:
            assert works(fresh)
            folder = Path(f"/proc/{fresh.pid}")
            if os.geteuid() != 0:
                pytest.skip("only root may look into the child")
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
            environment, mapped = (folder / "environ").read_bytes(), (folder / "maps").read_text()
    assert len([link for link in links if link.startswith("socket:")]) == 1
    assert all(link.startswith(("socket:", "/dev/null", "/memfd:lsi-media-")) for link in links), links
    assert b"A_SECRET" not in environment
    assert not any(f"/{name}/" in mapped for name in ("torch", "ray", "vllm"))
