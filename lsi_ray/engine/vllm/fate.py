"""The fate of vLLM's processes: they die with the replica that started them.

vLLM's EngineCore and workers are processes of their own. When their parent is killed, or its node's Ray goes, they stay
behind and hold the GPU's memory (ray#54364; seen here after kill -9 of a driver: two processes, 2.6 GB, for ever). vLLM
runs this function, a general plugin, at the start of each of its processes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

REPLICA = "LSI_REPLICA_PID"
_PR_SET_PDEATHSIG = 1


def share_fate() -> None:
    """Ask the kernel for SIGKILL when the parent dies, in the children of a replica only."""
    replica = os.environ.get(REPLICA)
    if replica is None or int(replica) == os.getpid() or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
