"""Decoding that strangers' files cannot harm: in a child without rights, reused from file to file.

`MediaGuard` gives what `decode_image` and `decode_video` give, to the pixel, and one code more:

| code | meaning |
|---|---|
| `media_invalid` | not decodable, or its decoder crashed on it, twice |
| `media_too_large` | beyond `MediaLimits`, or decoding took more memory than `DecoderLimits` allow |
| `media_timeout` | decoding took longer than `DecoderLimits` allow, or hung |
| `unsupported_media_type` | a format or a codec that is not accepted |

A crash is tried once more in a fresh child: one that was killed from outside says nothing about the file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeVar

from lsi_ray.errors import RowError
from lsi_ray.media.decoder import Decoder
from lsi_ray.media.exchange import ChildDied, ChildStuck
from lsi_ray.media.image import Image
from lsi_ray.media.limits import DEFAULT_DECODER_LIMITS, DEFAULT_LIMITS, DecoderLimits, MediaLimits
from lsi_ray.media.outline import read_outline
from lsi_ray.media.sampling import Sampler
from lsi_ray.media.video import Video

T = TypeVar("T")


class MediaGuard:
    """Starts its child at the first file; one file at a time, from any thread. `close` it, or drop it."""

    def __init__(self, limits: MediaLimits = DEFAULT_LIMITS, bounds: DecoderLimits = DEFAULT_DECODER_LIMITS) -> None:
        self._limits = limits
        self._bounds = bounds
        # Children are started by one thread that stays, because they die with the thread that starts them.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="media-guard")
        self._decoder: Future[Decoder] | None = None
        self._busy = threading.Lock()

    def __enter__(self) -> MediaGuard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the child, once there is one."""
        return self._decoder.result().child.pid if self._decoder is not None else None

    def close(self) -> None:
        self._drop()
        self._starter.shutdown()

    def decode_image(self, data: bytes) -> Image:
        """As `lsi_ray.media.image.decode_image`. Raises RowError, and EngineError if no child starts."""
        outline = read_outline(data, self._limits)
        return self._decode("image", lambda decoder: decoder.image(data, outline))

    def check_image(self, data: bytes) -> None:
        """Raise what `decode_image` would raise, for less."""
        outline = read_outline(data, self._limits)
        self._decode("image", lambda decoder: decoder.check_image(data, outline))

    def decode_video(self, data: bytes, sample: Sampler) -> Video:
        """As `lsi_ray.media.video.decode_video`; `sample` runs here. Raises RowError, and EngineError."""
        self._limits.check("video file", len(data), self._limits.video_bytes, "bytes")
        return self._decode("video", lambda decoder: decoder.video(data, sample))

    def _decode(self, kind: Literal["image", "video"], work: Callable[[Decoder], T]) -> T:
        with self._busy:
            try:
                return self._attempt(work)
            except ChildDied:
                pass
            except ChildStuck as stuck:
                raise RowError("media_timeout", f"The {kind} takes too long to decode: {stuck}.") from None
            try:
                return self._attempt(work)
            except (ChildDied, ChildStuck) as crash:
                raise RowError("media_invalid", f"The {kind} cannot be decoded, its decoder ends: {crash}.") from None

    def _attempt(self, work: Callable[[Decoder], T]) -> T:
        if self._decoder is None:
            self._start()
        assert self._decoder is not None
        try:
            return work(self._decoder.result())
        except RowError:
            raise
        except BaseException:
            self._drop()
            self._start()  # ahead of the next file
            raise

    def _start(self) -> None:
        self._decoder = self._starter.submit(Decoder, self._limits, self._bounds)

    def _drop(self) -> None:
        if self._decoder is not None and not self._decoder.cancel() and self._decoder.exception() is None:
            self._decoder.result().close()
        self._decoder = None
