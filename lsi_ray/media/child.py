"""The process that decodes: one file at a time, from shared memory into shared memory, without rights.

It imports neither ray, torch nor vllm. Bytes of strangers reach it only after `give_up_rights`.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from lsi_ray.errors import RowError
from lsi_ray.media.confinement import give_up_rights
from lsi_ray.media.exchange import (
    PACKET_BYTES,
    Done,
    Emptied,
    Fine,
    Job,
    Order,
    Question,
    Ready,
    Refused,
    Report,
    Sample,
    Setup,
    order,
    packet,
)
from lsi_ray.media.image import check_outlined, decode_outlined
from lsi_ray.media.limits import MediaLimits
from lsi_ray.media.sampling import VideoInfo
from lsi_ray.media.sniff import image_format
from lsi_ray.media.video import decode_frames
from lsi_ray.media.warm_up import warm_up
from lsi_ray.media.window import Outlet

T = TypeVar("T")


def main(descriptor: int) -> None:
    """Serve until the guard closes its end of the socket."""
    control = socket.socket(fileno=descriptor)
    setup = _receive(control)
    assert isinstance(setup, Setup)
    child = _Child(control, setup)
    warm_up()
    os.dup2(0, 2)  # until here the worker's standard error, for a failing start
    confined = give_up_rights(setup.memory_bytes, setup.parent)
    control.send(packet(Ready(confined)))
    while (message := _receive(control)) is not None:
        if isinstance(message, Job):  # else an Emptied that came after the end of its job
            control.send(packet(child.answer(message)))


def _receive(control: socket.socket) -> Order | None:
    data = control.recv(PACKET_BYTES)
    return order(data) if data else None


class _Child:
    def __init__(self, control: socket.socket, setup: Setup) -> None:
        self._control = control
        self._limits: MediaLimits = setup.limits
        self._memory_bytes = setup.memory_bytes
        self._source = memoryview(mmap.mmap(setup.source, setup.source_bytes, prot=mmap.PROT_READ))
        self._window = np.frombuffer(mmap.mmap(setup.window, setup.window_bytes), np.uint8)
        os.close(setup.source)
        os.close(setup.window)

    def answer(self, job: Job) -> Report:
        try:
            data = self._source[: job.size]
            return self._video(data) if job.kind == "video" else self._image(bytes(data), job.check)
        except RowError as error:
            return Refused(_code(error), error.message[:1000])
        except MemoryError:
            allowed = f"{self._memory_bytes >> 20:,} MiB"
            return Refused("media_too_large", f"The {job.kind} is too large: decoding takes more than {allowed}.")
        except Exception as error:  # hostile bytes; the next file finds this process as it was
            return Refused("media_invalid", f"The {job.kind} cannot be decoded: {type(error).__name__}: {error}"[:1000])

    def _image(self, data: bytes, check: bool) -> Done | Fine:
        """The guard has read the outline."""
        if check:
            check_outlined(data, image_format(data), self._limits)
            return Fine()
        picture = decode_outlined(data, image_format(data), self._limits).picture
        outlet = self._outlet()
        outlet.put_picture(picture)
        return Done(outlet.last())

    def _video(self, data: memoryview) -> Done:
        outlet = self._outlet()
        indices, _ = decode_frames(data, self._ask, self._limits, outlet)
        return Done(outlet.last(), indices)

    def _outlet(self) -> Outlet:
        return Outlet(self._window, self._send, lambda: self._wait_for(Emptied))

    def _ask(self, info: VideoInfo) -> Sequence[int]:
        self._send(Question(info))
        return self._wait_for(Sample).indices

    def _send(self, report: Report) -> None:
        self._control.send(packet(report))

    def _wait_for(self, kind: type[T]) -> T:
        message = _receive(self._control)
        assert isinstance(message, kind), message
        return message


def _code(error: RowError) -> Any:
    return error.code
