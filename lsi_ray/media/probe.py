"""Whether a media file opens, for less than decoding it: what `lsi validate` asks of every file."""

from __future__ import annotations

from typing import Literal

from lsi_ray.media.guard import MediaGuard


def probe(guard: MediaGuard, kind: Literal["image", "video"], data: bytes) -> None:
    """Raise the RowError that decoding would raise, but for damage deep within a video.

    An image is read whole (a JPEG at an eighth of its size); of a video all packets are read and one frame is decoded.
    """
    if kind == "image":
        guard.check_image(data)
    else:
        guard.decode_video(data, lambda _: [0])
