"""One image, decoded as a viewer would show it.

Pixels are equal to those of vLLM's own loader (vllm/multimodal/media/image.py: upright by EXIF, transparency on white,
RGB; the parity test compares them), except for 16-bit greyscale: Pillow clips it there, so that nearly everything turns
white; here it is scaled, by its high byte, as Pillow itself does with 16-bit colour.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from lsi_ray.errors import RowError
from lsi_ray.media.limits import DEFAULT_LIMITS, MediaLimits
from lsi_ray.media.outline import read_outline


@dataclass(frozen=True, slots=True)
class Image:
    """`picture` is loaded and RGB."""

    picture: Pillow.Image

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 of shape (height, width, 3), RGB, read-only; a copy."""
        return np.asarray(self.picture)


def decode_image(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> Image:
    """Decode the first frame of an image file.

    Raises RowError `media_invalid`, `media_too_large` (before decoding) or `unsupported_media_type`.
    """
    return decode_outlined(data, read_outline(data, limits).name, limits)


def decode_outlined(data: bytes, name: str, limits: MediaLimits) -> Image:
    """As `decode_image`, of a file whose outline has been read. `name`: of `sniff.IMAGE_FORMATS`."""
    with _decoding(name):
        return Image(_rgb(_upright(_open(data, name, limits))))


def check_outlined(data: bytes, name: str, limits: MediaLimits) -> None:
    """Raise what `decode_outlined` would raise, for less: a JPEG is decoded at an eighth of its size."""
    with _decoding(name):
        image = _open(data, name, limits)
        image.draft("RGB", (1, 1))
        _rgb(image.crop((0, 0, 1, 1)))


def _open(data: bytes, name: str, limits: MediaLimits) -> Pillow.Image:
    """Read the header only; of all of Pillow's plugins just the one for `name` is tried."""
    image = Pillow.open(io.BytesIO(data), formats=[name])
    width, height = image.size
    limits.check(f"image of {width}x{height}", max(width, height), limits.image_side, "pixels a side")
    limits.check(f"image of {width}x{height}", width * height, limits.image_pixels, "pixels")
    return image


def _upright(image: Pillow.Image) -> Pillow.Image:
    image.load()
    # Broken EXIF data says nothing about the orientation; the pixels are fine.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Pillow.Image) -> Pillow.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        image = _from_16_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _from_16_bits(image: Pillow.Image) -> Pillow.Image:
    samples = np.asarray(image)
    grey = Pillow.fromarray((samples >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    grey.putalpha(Pillow.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8)))
    return grey


def _on_white(image: Pillow.Image) -> Pillow.Image:
    white = Pillow.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into a RowError, and keep its warnings from people's terminals."""
    try:
        with _QUIET:
            yield
    except (RowError, MemoryError):
        raise
    except Pillow.DecompressionBombError as error:
        raise RowError("media_too_large", "The image is too large: its header asks for too many pixels.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise RowError("media_invalid", f"The {name} image cannot be decoded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The error's text without addresses, which differ from run to run; of one line."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "the data", str(error))
    return " ".join(text.split())[:200] or type(error).__name__


class _Quiet:
    """Ignores warnings while any thread is inside. `catch_warnings` by itself is not safe among threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


_QUIET = _Quiet()
