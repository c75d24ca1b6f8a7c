"""One ledger per work dir: an exclusive `flock` on `<work>/lock`, held for the life of the ledger.

The kernel lets go of the lock when the holder dies, however it dies, so a lock left behind never blocks a restart, and
two ledgers on one machine never write at once. The pid in the file is for people; the lock itself decides.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from lsi_ray.errors import LedgerError

POLL_S = 0.05


class WorkLock:
    """Takes the lock on construction, waiting up to `wait_s` seconds for a dying holder to be gone."""

    def __init__(self, path: Path, *, wait_s: float = 10.0) -> None:
        self.path = path
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = time.monotonic() + wait_s
        while not self._try():
            if time.monotonic() >= give_up:
                raise self._taken()
            time.sleep(POLL_S)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _try(self) -> bool:
        assert self._fd is not None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _taken(self) -> LedgerError:
        assert self._fd is not None
        holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        self.release()
        return LedgerError("work_dir_in_use", f"the work dir {self.path.parent} is in use by process {holder}")
