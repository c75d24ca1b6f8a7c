"""The child that decodes, from the outside: a process, a socket to it, and memory shared with it.

Bytes of files go in by a write into memory that this process never reads, and pixels come out through a window that the
child cannot shrink under it (it is sealed). The child dies when the *thread* that
started it ends (PR_SET_PDEATHSIG counts threads): start it in one that stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import weakref
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

import lsi_ray
from lsi_ray.errors import EngineError
from lsi_ray.media.exchange import PACKET_BYTES, ChildDied, ChildStuck, Order, Ready, Report, Setup, packet, report
from lsi_ray.media.limits import DecoderLimits, MediaLimits
from lsi_ray.media.watch import LOOK_SECONDS, Watch
from lsi_ray.media.window import WINDOW_BYTES

_BOOT = """
import json, sys
descriptor, sys.path[:] = json.loads(sys.argv[1])
from lsi_ray.media.child import main
main(descriptor)
"""
# Nothing of the worker's environment: it may hold credentials, and a decoder needs none.
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    # malloc keeps what a file took for the next one: without, page faults doubled the time of a 1024x768 JPEG.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_NEEDED = ("LD_LIBRARY_PATH", "PYTHONHOME")  # some interpreters do not start without
_KEPT_BYTES = 32 << 20  # shared memory that stays between files; new pages cost time
_SEAL_SHRINK = 2  # F_SEAL_SHRINK, which the module fcntl has since 3.12 only on some systems


class ChildProcess:
    """For one thread at a time."""

    def __init__(self, limits: MediaLimits, bounds: DecoderLimits) -> None:
        """Start the child and wait until it can work, 0.2 s on an idle machine. Raises EngineError."""
        with ExitStack() as stack:
            self._control, theirs = (stack.enter_context(end) for end in _socket_pair())
            self._source = _shared(stack, "source", limits.video_bytes)
            window = _shared(stack, "window", WINDOW_BYTES)
            fcntl.fcntl(window, fcntl.F_ADD_SEALS, _SEAL_SHRINK)
            self.window = np.frombuffer(mmap.mmap(window, WINDOW_BYTES), np.uint8)
            self._process = _start(theirs, self._source, window)
            stack.callback(_end, self._process)
            self._control.settimeout(LOOK_SECONDS)
            theirs.close()
            self.confined = self._set_up(window, limits, bounds)
            self._resources = weakref.finalize(self, stack.pop_all().close)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._resources()

    def give(self, data: bytes) -> None:
        """Put the bytes of a file where the child finds them."""
        status = os.fstat(self._source)
        if status.st_blocks * 512 > _KEPT_BYTES:  # of the last file, which was large
            os.ftruncate(self._source, 0)
            os.ftruncate(self._source, status.st_size)
        written = 0
        while written < len(data):  # the kernel writes at most 2 GiB at once
            written += os.pwrite(self._source, memoryview(data)[written:], written)

    def send(self, order: Order) -> None:
        try:
            self._control.send(packet(order))
        except OSError:
            raise ChildDied(_fate(self._process)) from None

    def report(self, watch: Watch) -> Report:
        """The child's next message. Raises ChildDied, ChildStuck."""
        while True:
            try:
                data = self._control.recv(PACKET_BYTES)
            except TimeoutError:
                data = None
            except OSError:
                data = b""
            if wrong := watch.wrong():
                raise ChildStuck(wrong)
            if data is None:
                continue
            if not data:
                raise ChildDied(_fate(self._process))
            try:
                return report(data)
            except msgspec.MsgspecError as error:
                raise ChildDied(f"its answer makes no sense: {error}") from None

    def _set_up(self, window: int, limits: MediaLimits, bounds: DecoderLimits) -> bool:
        memory = (self._source, limits.video_bytes, window, WINDOW_BYTES, bounds.memory_bytes)
        # Imports wait for much: no stall counts here.
        watch = Watch(self.pid, bounds.start_seconds, replace(bounds, stall_seconds=bounds.start_seconds))
        try:
            self.send(Setup(os.getpid(), *memory, limits))
            ready = self.report(watch)
        except (ChildDied, ChildStuck) as error:
            raise EngineError(f"the process that decodes media did not start: {error}") from None
        if not isinstance(ready, Ready):
            raise EngineError("the process that decodes media did not start: it sends no Ready")
        return ready.confined


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _shared(stack: ExitStack, name: str, size: int) -> int:
    """Memory without pages yet, by its descriptor."""
    descriptor = os.memfd_create(f"lsi-media-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    os.ftruncate(descriptor, size)
    return descriptor


def _start(control: socket.socket, *shared: int) -> subprocess.Popen[bytes]:
    """Isolated (-I) and without site (-S): only these directories, no hooks of the environment's, and 0.1 s less."""
    path = [entry for entry in sys.path if Path(entry).is_absolute()]
    path.append(str(Path(lsi_ray.__file__).parents[1]))  # for an install that is a hook and not a directory
    needed = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, json.dumps([control.fileno(), path])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=_ENVIRONMENT | needed,
            cwd="/",
            pass_fds=(control.fileno(), *shared),
            process_group=0,  # a Ctrl-C in a terminal is not for it
        )
    except OSError as error:
        raise EngineError(f"the process that decodes media did not start: {error}") from error


def _fate(process: subprocess.Popen[bytes]) -> str:
    """How it ended, or that it hung up."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        status = process.wait(1)
        if status >= 0:
            return f"exit status {status}"
        return f"signal {signal.Signals(-status).name}" if -status in set(signal.Signals) else f"signal {-status}"
    return "it hung up"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    # In a call of the kernel's that cannot be interrupted it may live on; nothing more can be done about it then.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
