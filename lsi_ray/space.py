"""Space on the disk of a work dir: asked for before it is needed, and waited for when it has run out.

A full disk is nobody's fault and passes: the error is transient, and no row is run again or given up for it.
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from lsi_ray.errors import LsiError, StorageError

log = logging.getLogger(__name__)

FULL = "work_dir_full"
_ERRNO = (errno.ENOSPC, errno.EDQUOT)
_WAIT_S = 2.0
_SEGMENT_BYTES = 64 * 2**10
T = TypeVar("T")


@contextmanager
def telling_full_disk(folder: Path) -> Iterator[None]:
    """A disk that runs full while the block writes to `folder` is StorageError `work_dir_full`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _ERRNO:
            raise
        raise StorageError(FULL, f"no space left in {folder}", transient=True) from error


def check_space(folder: Path, size: int) -> None:
    """Raises StorageError `work_dir_full` where `size` bytes do not fit."""
    free = shutil.disk_usage(folder).free
    if free < size:
        message = f"{folder} has {free / 1e6:,.1f} MB free, and {size / 1e6:,.1f} MB are to be written"
        raise StorageError(FULL, message, transient=True)


def is_full(folder: Path) -> bool:
    """Whether a segment would hardly fit."""
    return shutil.disk_usage(folder).free < _SEGMENT_BYTES


def when_there_is_space(act: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
    """What `act` gives, when the disk is not full any more. It may be called many times."""
    while True:
        try:
            return act()
        except LsiError as error:
            if error.code != FULL:
                raise
            log.warning("%s; waiting for space", error)
        sleep(_WAIT_S)
