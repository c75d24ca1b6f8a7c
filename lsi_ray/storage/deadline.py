"""An end to one exchange as a whole. Timeouts are of single reads: a server that trickles never meets one.

The socket is shut down and not closed, by another thread: that wakes whoever waits in it, and its number stays taken.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any


class Deadline:
    """From `start` on, `seconds` (None: never) until the connections of the exchange are shut down."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.over = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        if self.seconds is not None:
            self._timer = threading.Timer(self.seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._socket = None

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore tells of each connection, and again when TLS has taken over its socket."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
                if self.over:
                    self._shut()

    def _end(self) -> None:
        with self._lock:
            self.over = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is None:
            return
        with suppress(OSError):  # it has ended by itself, or TLS is just taking it over, and is told of next
            # Of `socket`: an SSLSocket's own drops its TLS under the thread that is reading.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
