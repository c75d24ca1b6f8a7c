"""A disk that can be watched, that fills up, and that forgets what was not synced.

Everything below `root` goes through here: the product's own files by sim_hooks.py, SQLite's by sim_sqlite.py. Each
write, sync, rename, link and removal is one step. A process may be killed before, in the middle of (a write) or after
any of its steps: what it had written stays, what it still held in memory is gone, and nothing it does later has an
effect. A power cut kills everybody, and every file and folder keeps an arbitrary part of what was changed in it since
its last sync (sim_platter.py): pages torn, names old or new, bytes cut or garbled.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sim_platter import Platter
from sim_sqlite import IOERR

ENOSPC, SQLITE_FULL = 28, 13


class KilledError(BaseException):
    """The simulated process has died; BaseException, so that nothing of the product's survives it."""

    def __init__(self, process: str) -> None:
        super().__init__(process)
        self.process = process


class PowerCutError(BaseException):
    """The machine has died, with every process."""


@dataclass(slots=True)
class Fuse:
    """`steps` more steps of `process` (None: of anybody), then it dies; `power`: then everybody does."""

    process: str | None
    steps: int
    power: bool
    after: bool = False


class Disk:
    """Who runs, who is dead, and the steps they take."""

    def __init__(self, root: Path, dice: random.Random, clock: Callable[[], float] = time.time) -> None:
        self.root = str(root)
        self.dice = dice
        self.platter = Platter(self.root, dice, clock)
        self.sqlite_wrote, self.sqlite_synced = self.platter.sqlite_wrote, self.platter.sqlite_synced
        self.process = "world"
        self.dead: set[str] = set()
        self.cut = False
        self.full = False
        self.fuse: Fuse | None = None
        self.next_fuse: Callable[[], Fuse | None] = lambda: None
        self.steps = 0
        self.counts: Counter[str] = Counter()
        self.opened: list[io.BufferedWriter] = []
        self.fds: dict[int, str] = {}
        """Open descriptors of the product's, to the names they were opened by."""

    # -- processes

    @contextmanager
    def acting_as(self, process: str) -> Iterator[None]:
        """What happens inside is done by this process, dead or alive."""
        before, self.process = self.process, process
        try:
            yield
        finally:
            self.process = before

    @contextmanager
    def running(self, process: str) -> Iterator[None]:
        """What happens inside is done by this process; raises at the end if it died of it, whatever it returned."""
        with self.acting_as(process):
            self.check()
            try:
                yield
            except (KilledError, PowerCutError):
                raise
            except BaseException:
                self.check()
                raise
            self.check()

    def check(self) -> None:
        if self.cut:
            raise PowerCutError
        if self.process in self.dead:
            raise KilledError(self.process)

    def kill(self, process: str) -> None:
        self.dead.add(process)

    def close_all(self) -> None:
        """As the kernel does when processes end."""
        for file in self.opened:
            if not file.closed:
                file.raw.close()
        for fd in self.fds:
            os.close(fd)
        self.opened, self.fds = [], {}

    def _die(self, fuse: Fuse) -> None:
        self.fuse = self.next_fuse()
        if fuse.power:
            self.cut = True
        else:
            self.dead.add(self.process)

    def _burn(self) -> Fuse | None:
        """One step is about to be taken. The fuse, if it has burnt down."""
        if self.process == "world":
            return None
        self.steps += 1
        fuse = self.fuse
        if fuse is None or (fuse.process is not None and fuse.process != self.process):
            return None
        fuse.steps -= 1
        return fuse if fuse.steps <= 0 else None

    def step(self, kind: str, act: Callable[[], Any], torn: Callable[[], Any] = lambda: None) -> Any:
        """`torn`: what is left of the step when the process dies in it."""
        self.check()
        self.counts[kind] += 1
        if self.full and kind in ("write", "create", "mkdir"):
            raise OSError(ENOSPC, "No space left on device")
        fuse = self._burn()
        if fuse is None:
            return act()
        left = (act if fuse.after else torn)()
        if isinstance(left, io.FileIO):
            left.close()
        elif kind == "create" and left is not None:
            os.close(left)
        self._die(fuse)
        self.check()
        raise AssertionError("unreachable")

    # -- SQLite's files

    def sqlite_op(self, kind: str, path: str) -> int:  # noqa: ARG002 - Watcher
        if self.cut or self.process in self.dead:
            return IOERR
        self.counts["sqlite " + kind] += 1
        if self.full and kind == "write":
            return SQLITE_FULL
        fuse = self._burn()
        if fuse is not None:
            self._die(fuse)
            return IOERR
        return 0

    def inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)
