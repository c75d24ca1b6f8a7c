"""What the guard and its child tell each other: one JSON object per packet of a UNIX socket.

The child is believed nothing: what it sends is decoded into these types and then compared with what was asked for.
Pixels go through shared memory (see window.py), not through here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lsi_ray.media.limits import MediaLimits
from lsi_ray.media.sampling import VideoInfo

PACKET_BYTES = 1 << 17  # 4,096 indices are 33 KB

_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class ChildDied(Exception):
    """The child ended, or says what it cannot know; the message tells how."""


class ChildStuck(Exception):
    """The child met a limit; the message tells which. It still runs, and must be ended."""


class Setup(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The first thing a child hears. `source` and `window`: descriptors of shared memory, for bytes and for pixels."""

    parent: int
    source: int
    source_bytes: int
    window: int
    window_bytes: int
    memory_bytes: int
    limits: MediaLimits


class Ready(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The child has given up its rights and can decode. `confined`: by a system call filter as well."""

    confined: bool


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Decode the first `size` bytes of the source; of an image with `check`, only tell whether it can be decoded."""

    kind: Literal["image", "video"]
    size: int
    check: bool = False


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Which frames of this video? Asked once per video."""

    info: VideoInfo


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Ascending indices; none at all end the job."""

    indices: list[int]


class Filled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The next half of the window holds `size` bytes of pixels, which belong at byte `at` of all of them.

    `shape` is that of all of them; of a video's frames there may be fewer in the end. `at` of 0 starts (again).
    """

    shape: list[_Size]
    at: _Size
    size: _Size


class Emptied(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """That half of the window may be written again."""


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The last pixels are in the window, and of a video the frames are these. Not followed by Emptied."""

    last: Filled
    indices: list[int] = []


class Fine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The image that was to be checked can be decoded."""


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    code: Literal["media_invalid", "media_too_large", "unsupported_media_type"]
    message: Annotated[str, msgspec.Meta(max_length=1000)]


Order = Setup | Job | Sample | Emptied
Report = Ready | Question | Filled | Done | Fine | Refused

_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)
_encoder = msgspec.json.Encoder()


def packet(message: Order | Report) -> bytes:
    return _encoder.encode(message)


def order(data: bytes) -> Order:
    return _orders.decode(data)


def report(data: bytes) -> Report:
    """Raises msgspec.MsgspecError."""
    return _reports.decode(data)
