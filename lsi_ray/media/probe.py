"""Whether a media file opens, for less than decoding it: what `lsi validate` asks of every file."""

from __future__ import annotations

from typing import Literal

from lsi_ray.media.image import check_image
from lsi_ray.media.limits import DEFAULT_LIMITS, MediaLimits
from lsi_ray.media.video import decode_video


def probe(kind: Literal["image", "video"], data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> None:
    """Raise the RowError that decoding would raise, but for damage deep within a video.

    An image is read whole (a JPEG at an eighth of its size); of a video all packets are read and one frame is decoded.
    """
    if kind == "image":
        check_image(data, limits)
    else:
        decode_video(data, lambda _: [0], limits)
