"""Pixels from the child to the guard, through a small window of shared memory in two halves.

The child fills one half while the guard empties the other; each holds whole rows of pixels. A window that is used over
and over stays in the processors' caches and has its pages: shared memory for all frames of a video at once cost 1.5 to
3 times the decoding, most of it in page faults. A picture of up to a megapixel fits into one half, and needs no turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import _imaging

from lsi_ray.media.exchange import ChildDied, Filled

WINDOW_BYTES = 8 << 20
Pixels = NDArray[np.uint8]


class Outlet:
    """The child's end, for one file; a `lsi_ray.media.video.Sink`."""

    def __init__(self, window: Pixels, hand_over: Callable[[Filled], None], wait: Callable[[], object]) -> None:
        """`hand_over` tells the guard that a half is full, `wait` waits until it has emptied one."""
        self._halves = np.split(window, 2)
        self._hand_over = hand_over
        self._wait = wait
        self._handed = 0

    def begin(self, shape: tuple[int, ...]) -> None:
        self._shape = list(shape)
        self._room = self._halves[0].size // _row_bytes(self._shape) * _row_bytes(self._shape)
        self._at = 0
        self._filled = 0

    def put(self, pixels: Pixels) -> None:
        """Rows of (width, channels); a view with any strides."""
        row, rest = _row_bytes(self._shape), pixels
        while len(rest):
            if self._filled == self._room:
                self._turn()
            piece = rest[: (self._room - self._filled) // row]
            end = self._filled + len(piece) * row
            self._halves[self._handed % 2][self._filled : end].reshape(piece.shape)[...] = piece
            self._filled = end
            rest = rest[len(piece) :]

    def put_picture(self, picture: Pillow.Image) -> None:
        """An RGB picture in four bytes a pixel, as Pillow holds it: one copy."""
        width, height = picture.size
        self.begin((height, width, 4))
        rows = self._room // (4 * width)
        for top in range(0, height, rows):
            if top:
                self._turn()
            strip = _picture_in(self._halves[self._handed % 2], width, min(rows, height - top))
            strip.paste(picture.im, (0, -top, width, height - top))
            self._filled = 4 * width * strip.size[1]

    def _turn(self) -> None:
        """To the other half. The guard has emptied it when it has answered all but this one."""
        self._hand_over(self.last())
        if self._handed:
            self._wait()
        self._handed += 1

    def last(self) -> Filled:
        """What the half that is being filled holds. At the end it goes with the news of the end."""
        filled = Filled(self._shape, self._at, self._filled)
        self._at += self._filled
        self._filled = 0
        return filled


class Store(Protocol):
    """Where the guard puts what comes. A second `begin` means that the first was in vain."""

    def begin(self, shape: list[int]) -> None:
        """Raises ChildDied for a shape that cannot be."""

    def put(self, at: int, rows: Pixels) -> None:
        """Whole rows, in one dimension; the first is the one at byte `at` of all."""


class Inlet:
    """The guard's end, for one file. Raises ChildDied for what cannot be."""

    def __init__(self, window: Pixels, store: Store, most_bytes: int) -> None:
        self._halves = np.split(window, 2)
        self._store = store
        self._most_bytes = most_bytes
        self._taken = 0
        self._shape: list[int] = []
        self.bytes = 0

    def take(self, filled: Filled) -> None:
        half = self._halves[self._taken % 2]
        if filled.at == 0:
            self._begin(filled.shape)
        end = filled.at + filled.size
        if filled.shape != self._shape or filled.at != self.bytes or filled.size > half.size:
            raise ChildDied(f"it fills {filled.size} bytes at {filled.at} of {filled.shape}")
        if end > math.prod(self._shape) or not filled.size or filled.size % _row_bytes(self._shape):
            raise ChildDied(f"it fills {filled.size} bytes at {filled.at} of {filled.shape}")
        self._store.put(filled.at, half[: filled.size])
        self.bytes = end
        self._taken += 1

    def _begin(self, shape: list[int]) -> None:
        if len(shape) not in (3, 4) or not 0 < math.prod(shape) <= self._most_bytes:
            raise ChildDied(f"it claims pixels of shape {shape}")
        self._store.begin(shape)
        self._shape = shape
        self.bytes = 0


class Frames:
    """A Store of frames in one array."""

    def begin(self, shape: list[int]) -> None:
        if len(shape) != 4 or shape[3] != 3:
            raise ChildDied(f"it claims frames of shape {shape}")
        self._shape = shape
        self._bytes = np.empty(math.prod(shape), np.uint8)

    def put(self, at: int, rows: Pixels) -> None:
        self._bytes[at : at + rows.size] = rows

    def array(self, count: int, received: int) -> Pixels:
        """The first `count` frames, of (height, width, 3), if that is what was received."""
        shape = [count, *self._shape[1:]]
        if not count or math.prod(shape) != received:
            raise ChildDied(f"it gives {received} bytes for {shape}")
        return self._bytes[:received].reshape(shape)


class Picture:
    """A Store of one picture, in Pillow's memory."""

    def begin(self, shape: list[int]) -> None:
        if len(shape) != 3 or shape[2] != 4:
            raise ChildDied(f"it claims pixels of shape {shape}")
        self._size = (shape[1], shape[0])
        self._picture: Pillow.Image | None = None

    def put(self, at: int, rows: Pixels) -> None:
        width = self._size[0]
        if self._picture is None:
            self._picture = Pillow.new("RGB", self._size, None)
        strip, top = _picture_in(rows, width, rows.size // (4 * width)), at // (4 * width)
        self._picture.im.paste(strip, (0, top, width, top + strip.size[1]))

    def whole(self, received: int) -> Pillow.Image:
        if self._picture is None or received != 4 * self._size[0] * self._size[1]:
            raise ChildDied(f"it gives {received} bytes for {self._size}")
        return self._picture


def _picture_in(memory: Pixels, width: int, height: int) -> Any:
    """Pillow's view of memory as an RGB picture, whose pixels take four bytes: what is pasted there is copied once."""
    return _imaging.map_buffer(memory, (width, height), "raw", 0, ("RGB", 0, 1))


def _row_bytes(shape: list[int]) -> int:
    return shape[-2] * shape[-1]
