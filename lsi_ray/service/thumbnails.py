"""Small pictures of callers' images and videos: decoded in the media guard's child, and written anew from its pixels.

Nobody's bytes go to a browser as they are. Pictures are made one at a time, and are not kept: a batch that is erased
leaves none behind.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
_BOUNDS = DecoderLimits(
    most_image_seconds=2.0, video_seconds=3.0, most_video_seconds=3.0, wall=4.0, least_wall_seconds=12.0
)
"""One takes at most so long from the others; what takes longer has no picture."""


class Thumbnails:
    """For one event loop. Its child and its thread start at the first picture: the loop's own threads, which write
    uploads and read results, do not wait for pictures."""

    def __init__(self) -> None:
        self._guard: MediaGuard | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")
        self._asking: Counter[str] = Counter()

    async def make(self, caller: str, read: Callable[[], tuple[Kind, bytes]]) -> bytes:
        """A JPEG, at most 320 pixels a side, of what `read` finds. Raises what that raises, and ServiceError
        `not_found`, there is no picture of this, and `rate_limited`."""
        with self._one_of(caller):
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._make, read)

    def _make(self, read: Callable[[], tuple[Kind, bytes]]) -> bytes:
        kind, data = read()
        try:
            return _encode(self._picture(kind, data))
        except RowError as error:
            raise ServiceError("not_found", f"no picture of this {kind}: {error.code}") from None

    def _picture(self, kind: Kind, data: bytes) -> Image.Image:
        self._guard = self._guard or MediaGuard(_LIMITS, _BOUNDS)
        if kind == "image":
            return self._guard.decode_image(data).picture
        return Image.fromarray(self._guard.decode_video(data, _one_second_in).frames[0])

    @contextmanager
    def _one_of(self, caller: str) -> Iterator[None]:
        if self._asking[caller] >= _AT_ONCE:
            raise ServiceError("rate_limited", "Too many pictures at once", retry_after_s=1)
        self._asking[caller] += 1
        try:
            yield
        finally:
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
