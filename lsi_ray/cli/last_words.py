"""What is said for a process that can no longer speak.

Ray ends a driver by `_exit(1)`, without a Python exception: at once when its raylet is gone, 60 s after its GCS is.
A shell that waits at the other end of a pipe notices any death, kill -9 included, and says how to go on.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SHELL = 'read -r farewell || printf "%s\\n" "$1" >&2'


@contextmanager
def last_words(text: str) -> Iterator[None]:
    """`text` goes to standard error if this process ends inside the block."""
    witness = subprocess.Popen(["sh", "-c", _SHELL, "sh", text], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        with suppress(BrokenPipeError):  # Ctrl-C ends it, too
            witness.communicate(b"farewell\n")
