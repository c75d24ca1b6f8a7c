"""How the decoding child gives up its rights, for good, once everything it needs is imported and mapped.

After `give_up_rights` it computes, uses the memory it was given and talks over the descriptors it has; it opens no file
and no socket, starts no process and no thread, and dies with its parent. A decoder is best assumed to be exploitable.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

from lsi_ray.media.system_calls import confine

_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def give_up_rights(memory_bytes: int, parent: int) -> bool:
    """Whether a system call filter holds as well as the limits. `memory_bytes`: address space from here on."""
    with contextlib.suppress(OSError):
        # If memory runs out on the node, this process is the one to end: its row fails, the engine lives.
        Path("/proc/self/oom_score_adj").write_text("1000")
    _drop_root()
    _set_limits(memory_bytes)
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    return confine()


def _drop_root() -> None:
    if os.getuid() != 0:
        return
    with contextlib.suppress(OSError):  # in a user namespace that has no other users
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _set_limits(memory_bytes: int) -> None:
    """NOFILE of 0 leaves open descriptors usable and lets no further one be made: no file, no socket."""
    # Of the limits on memory this one also counts shared anonymous mappings. What libraries have reserved by now is in
    # `used`, so that the limit is about decoding alone.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: used + memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")
