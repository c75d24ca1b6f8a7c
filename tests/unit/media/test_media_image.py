from __future__ import annotations

import random
import threading
import warnings
import zlib

import numpy as np
import pytest
from media_clips import noise, saved
from PIL import Image as Pillow

from lsi_ray.errors import RowError
from lsi_ray.media.image import _QUIET, check_outlined, decode_image
from lsi_ray.media.limits import MediaLimits
from lsi_ray.media.outline import read_outline

WHITE = [255, 255, 255]


def refusal(data: bytes, limits: MediaLimits | None = None) -> RowError:
    with pytest.raises(RowError) as caught:
        decode_image(data, limits or MediaLimits())
    with pytest.raises(RowError) as probed:
        check_outlined(data, read_outline(data, limits or MediaLimits()).name, limits or MediaLimits())
    assert probed.value.code == caught.value.code
    return caught.value


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_pixels_that_went_in(kind: str, options: dict[str, bool]) -> None:
    image = noise()
    pixels = decode_image(saved(image, kind, **options)).pixels
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_give_nearly_the_pixels_that_went_in(kind: str) -> None:
    image = Pillow.linear_gradient("L").resize((60, 40)).convert("RGB")
    pixels = decode_image(saved(image, kind)).pixels
    assert pixels.shape == (40, 60, 3)
    assert np.abs(pixels.astype(int) - np.asarray(image)).mean() < 4


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0)), (2, (0, -1))]
)
def test_exif_orientation_turns_the_picture_upright(orientation: int, corner: tuple[int, int]) -> None:
    image = Pillow.new("RGB", (64, 32))
    image.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Pillow.Exif()
    exif[0x112] = orientation
    pixels = decode_image(saved(image, "JPEG", exif=exif, quality=95)).pixels
    assert pixels.shape[:2] == ((64, 32) if orientation in (6, 8) else (32, 64))
    assert pixels[corner][0] > 200


def test_transparency_is_composed_on_white() -> None:
    image = Pillow.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    pixels = decode_image(saved(image, "PNG")).pixels
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[0, 1].tolist() == [127, 127, 127]
    assert pixels[1, 3].tolist() == WHITE


def test_a_transparent_palette_entry_is_white() -> None:
    image = Pillow.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode_image(saved(image, "PNG", transparency=1)).pixels.tolist() == [[[10, 20, 30], WHITE]]


def test_cmyk_is_converted() -> None:
    image = Pillow.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode_image(saved(image, "JPEG", quality=95)).pixels[8, 8].tolist()
    assert red > 250
    assert max(green, blue) < 5


def test_16_bit_greyscale_is_scaled_not_clipped() -> None:
    samples = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    pixels = decode_image(saved(Pillow.fromarray(samples), "PNG")).pixels
    assert pixels[0].tolist() == [[v, v, v] for v in (0, 0, 1, 128, 255)]


def test_a_transparent_16_bit_value_is_white() -> None:
    samples = np.array([[0x1234, 0x1235]], np.uint16)
    data = saved(Pillow.fromarray(samples), "PNG", transparency=0x1234)
    assert decode_image(data).pixels[0].tolist() == [WHITE, [0x12] * 3]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Pillow.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = decode_image(data).pixels[10, 10].tolist()
    assert red > 240
    assert max(green, blue) < 12


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"", "media_invalid", "empty"),
        (b"%PDF-1.7 ...", "unsupported_media_type", "a PDF"),
        (b'<?xml version="1.0"?><svg/>', "unsupported_media_type", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_media_type", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "unsupported_media_type", "a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_media_type", "PostScript"),
        (b"8BPS\0\1", "unsupported_media_type", "Photoshop"),
        (b"SIMPLE  =", "unsupported_media_type", "53 49 4d"),
        *((saved(noise(), kind), "unsupported_media_type", f"is {kind};") for kind in ("TIFF", "BMP", "AVIF")),
        (b"\xff\xd8\xff\xe0 and nothing more", "media_invalid", "JPEG"),
    ],
)
def test_what_is_no_image_is_refused_saying_what_it_is(data: bytes, code: str, says: str) -> None:
    error = refusal(data)
    assert error.code == code
    assert says in error.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_anywhere_is_refused(kind: str) -> None:
    data = saved(noise(), kind)
    # The very end of a file may hold nothing of the picture (JPEG's end marker, the checksum of PNG's last chunk).
    for cut in range(1, len(data) - 24, max(1, len(data) // 40)):
        assert refusal(data[:cut]).code in ("media_invalid", "unsupported_media_type"), cut


def test_errors_tell_no_addresses_and_stay_on_one_line() -> None:
    error = refusal(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert " at 0x" not in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    "limits",
    [MediaLimits(image_bytes=100), MediaLimits(image_pixels=60 * 40 - 1), MediaLimits(image_side=59)],
)
def test_limits_are_checked_before_decoding(limits: MediaLimits, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(noise(), "PNG")
    monkeypatch.setattr(Pillow.Image, "load", lambda _: pytest.fail("decoded"))
    assert refusal(data, limits).code == "media_too_large"


def test_a_decompression_bomb_is_too_large() -> None:
    data = bytearray(saved(Pillow.new("1", (8, 8)), "PNG"))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    assert refusal(bytes(data)).code == "media_too_large"


def test_pillows_warnings_stay_inside_and_others_outside() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0" + b"\x05\0" + bytes(7)  # five entries announced, none there
    data = saved(noise(), "JPEG", exif=exif)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert decode_image(data).pixels.shape == (40, 60, 3)
        assert seen == []
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["mine"]


def test_warnings_stay_ignored_until_the_last_thread_leaves() -> None:
    with _QUIET:
        with _QUIET:
            pass
        warnings.warn("an error under pytest -W error", UserWarning, stacklevel=1)


def test_warning_filters_survive_decoding_in_many_threads() -> None:
    before = list(warnings.filters)
    data = saved(noise(), "PNG")
    threads = [threading.Thread(target=lambda: [decode_image(data) for _ in range(30)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_mutated_files_end_in_pixels_or_a_row_error() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    kinds = ["JPEG", "PNG", "WEBP", "GIF"]
    originals = [saved(noise(), kind) for kind in kinds]
    for _ in range(300):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert decode_image(bytes(data)).pixels.ndim == 3
        except RowError as error:
            assert error.code in ("media_invalid", "media_too_large", "unsupported_media_type")  # noqa: PT017
