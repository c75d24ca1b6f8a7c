"""Pixels from the child to the guard, through a small window of shared memory in two halves.

The child fills one half while the guard empties the other; each holds whole rows of pixels. A window that is used over
and over stays in the processors' caches and has its pages: shared memory for all frames of a video at once cost 1.5 to
3 times the decoding, most of it in page faults. A picture of up to a megapixel fits into one half, and needs no turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from lsi_ray.media.exchange import ChildDied, Filled

WINDOW_BYTES = 8 << 20
_PIECE_BYTES = 256 << 10
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
        """In four bytes a pixel, as Pillow holds them: out and in again takes a third of the time that three take."""
        width, height = picture.size
        self.begin((height, width, 4))
        # `tobytes` is this loop, and a join of what comes: twice the time.
        encoder = Pillow._getencoder("RGB", "raw", ("RGBX",))
        encoder.setimage(picture.im, (0, 0, width, height))
        end = 0
        while not end:
            _, end, rows = encoder.encode(max(_PIECE_BYTES, 4 * width))
            self.put(np.frombuffer(rows, np.uint8).reshape(-1, width, 4))

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
        if end > math.prod(self._shape) or filled.size % _row_bytes(self._shape):
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
        width, height = self._size
        strip = Pillow.frombytes("RGB", (width, rows.size // (4 * width)), rows, "raw", "RGBX")
        if strip.height == height:
            self._picture = strip
            return
        if self._picture is None:
            self._picture = Pillow.new("RGB", self._size, None)
        self._picture.paste(strip, (0, at // (4 * width)))

    def whole(self, received: int) -> Pillow.Image:
        if self._picture is None or received != 4 * self._size[0] * self._size[1]:
            raise ChildDied(f"it gives {received} bytes for {self._size}")
        return self._picture


def _row_bytes(shape: list[int]) -> int:
    return shape[-2] * shape[-1]
