"""Images that are slow to decode, and large ones that only look it."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import hostile_media
import numpy as np
import psutil
import pytest
from media_clips import noise, saved
from PIL import Image

from lsi_ray.errors import RowError
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.limits import DecoderLimits, MediaLimits
from lsi_ray.media.outline import Outline, read_outline

BOMBS = hostile_media.slow_images()


@pytest.fixture(scope="module")
def guard() -> Iterator[MediaGuard]:
    with MediaGuard() as made:
        yield made


def works(guard: MediaGuard) -> bool:
    return np.array_equal(guard.decode_image(saved(noise(), "PNG")).pixels, np.asarray(noise()))


def seconds_here() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def seconds_there(guard: MediaGuard) -> float:
    assert guard.pid is not None
    return sum(psutil.Process(guard.pid).cpu_times()[:2])


@pytest.mark.parametrize("name", BOMBS)
def test_an_image_of_nothing_but_pieces_costs_two_seconds_at_most(guard: MediaGuard, name: str) -> None:
    data = BOMBS[name]()
    assert works(guard)
    child, there, here = guard.pid, seconds_there(guard), seconds_here()
    code = "decoded"
    try:
        guard.decode_image(data)
    except RowError as error:
        code = error.code
    # A child that took too long is gone with its clock: then its limit is what it took.
    took = seconds_there(guard) - there if guard.pid == child else DecoderLimits().image_cpu_seconds(0, len(data))
    assert took + seconds_here() - here < 2
    assert works(guard)
    assert code in ({"media_too_large"} if not name.startswith("GIF") else {"media_timeout", "decoded"})


def segments(kind: bytes, size: int, count: int) -> bytes:
    return (b"\xff" + kind + (size + 2).to_bytes(2, "big") + bytes(size)) * count


def _jpeg_with(more: bytes, **options: bool) -> bytes:
    data = saved(noise(), "JPEG", **options)
    return data[:2] + more + data[2:]


def _pieces(data: bytes, size: int) -> bytes:
    """A PNG's pixels in chunks of `size` bytes."""
    start = data.index(b"IDAT") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    body = data[start + 8 : end - 4]
    cut = [hostile_media._chunk(b"IDAT", body[at : at + size]) for at in range(0, len(body), size)]
    return data[:start] + b"".join(cut) + data[end:]


LARGE: dict[str, Callable[[], bytes]] = {
    "a depth map in 300 segments": lambda: _jpeg_with(segments(b"\xe1", 65_000, 300)),
    "bytes between segments": lambda: _jpeg_with(segments(b"\xe0", 9, 1) + bytes(1000) + b"\xff" * 1000),
    "a picture and its film": lambda: (
        saved(noise(1200, 1000), "JPEG", progressive=True)
        + np.random.default_rng(0).bytes(6 << 20)
        + b"\xff\xda" * 1900
    ),
    "several progressive pictures": lambda: saved(
        noise(), "MPO", progressive=True, save_all=True, append_images=[noise(seed=n) for n in range(40)]
    ),
    "twenty passes": lambda: hostile_media.scans(7_000, 9),
    "small, of hundreds of passes": lambda: hostile_media.scans(200, 4000),
    "restarts": lambda: saved(noise(640, 480), "JPEG", restart_marker_blocks=1),
    "pixels in 10,000 chunks": lambda: _pieces(saved(noise(300, 200), "PNG", compress_level=0), 18),
    "an animation of 2,000": lambda: saved(
        noise(8, 8), "PNG", save_all=True, append_images=[noise(8, 8, n) for n in range(2000)]
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_only_looks_like_much_work_is_decoded(guard: MediaGuard, name: str) -> None:
    assert guard.decode_image(LARGE[name]()).picture.mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_pixels_are_counted_from_the_header(kind: str, options: dict[str, bool]) -> None:
    for image in (noise(37, 53), noise(37, 53).convert("RGBA") if kind == "WEBP" else noise(1, 1)):
        outline = read_outline(saved(image, kind, **options), MediaLimits())
        assert outline == Outline(kind, image.width * image.height)


def test_large_pictures_get_more_time_than_small_ones() -> None:
    bounds = DecoderLimits()
    assert bounds.image_cpu_seconds(12_000_000, 4_000_000) == pytest.approx(1.42)
    assert bounds.image_cpu_seconds(50_000_000, 20_000_000) == pytest.approx(3.8)


def test_every_cut_of_a_file_has_an_outline() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    for kind, options in (("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {})):
        data = saved(noise(9, 9), kind, exif=exif, **options)
        for end in range(16, len(data)):
            assert read_outline(data[:end], MediaLimits()).name == kind
