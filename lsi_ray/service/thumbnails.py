"""Small pictures of callers' images and videos: decoded in the media guard's child, and written anew from its pixels.

Nobody's bytes go to a browser as they are. Pictures are made one at a time, and are not kept: a batch that is erased
leaves none behind.
"""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from lsi_ray.archive.messages import Kind
from lsi_ray.errors import RowError
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.limits import DecoderLimits, MediaLimits
from lsi_ray.media.sampling import VideoInfo
from lsi_ray.service.backend import ServiceError

MEDIA_TYPE = "image/jpeg"
_SIDE = 320
_AT_ONCE = 8
"""Of one caller, waiting or being made; a browser asks for 6 at a time."""
_LIMITS = MediaLimits(sampled_frames=1)
_BOUNDS = DecoderLimits(image_seconds=2.0, video_seconds=3.0, most_video_seconds=3.0, wall=4.0)
"""One takes at most so long from the others; what takes longer has no picture."""


class Thumbnails:
    """For one process; starts its child at the first picture."""

    def __init__(self) -> None:
        self._guard: MediaGuard | None = None
        self._asking: Counter[str] = Counter()
        self._mutex = threading.Lock()

    def make(self, caller: str, kind: Kind, data: bytes) -> bytes:
        """A JPEG, at most 320 pixels a side. ServiceError `not_found`: there is no picture of this."""
        with self._one_of(caller):
            try:
                return _encode(self._picture(kind, data))
            except RowError as error:
                raise ServiceError("not_found", f"no picture of this {kind}: {error.code}") from None

    def _picture(self, kind: Kind, data: bytes) -> Image.Image:
        if kind == "image":
            return self._started().decode_image(data).picture
        return Image.fromarray(self._started().decode_video(data, _one_second_in).frames[0])

    def _started(self) -> MediaGuard:
        with self._mutex:
            self._guard = self._guard or MediaGuard(_LIMITS, _BOUNDS)
            return self._guard

    @contextmanager
    def _one_of(self, caller: str) -> Iterator[None]:
        with self._mutex:
            if self._asking[caller] >= _AT_ONCE:
                raise ServiceError("rate_limited", "Too many pictures at once", retry_after_s=1)
            self._asking[caller] += 1
        try:
            yield
        finally:
            with self._mutex:
                self._asking[caller] -= 1
                if not self._asking[caller]:
                    del self._asking[caller]


def _one_second_in(info: VideoInfo) -> list[int]:
    return [min(info.total_frames - 1, int(info.fps))]


def _encode(picture: Image.Image) -> bytes:
    picture = picture.copy()
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
