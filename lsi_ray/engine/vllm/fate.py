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
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess

REPLICA = "LSI_REPLICA_PID"
_GONE_S = 60.0
_PR_SET_PDEATHSIG = 1


def share_fate() -> None:
    """Ask the kernel for SIGKILL when the parent dies, in the children of a replica only."""
    replica = os.environ.get(REPLICA)
    if replica is None or int(replica) == os.getpid() or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def end_for_good(processes: Sequence[BaseProcess]) -> None:
    """SIGKILL to these children and all below them, which takes a stopped process too; returns when they are gone.

    vLLM's own shutdown begins with SIGTERM and waits 5 s; a stopped process does not even notice.
    """
    import psutil  # a requirement of vLLM's

    family: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            family += psutil.Process(process.pid).children(recursive=True)
    for process in processes:
        process.kill()
    for below in family:
        with suppress(psutil.NoSuchProcess):
            below.kill()
    for process in processes:
        process.join(_GONE_S)
    psutil.wait_procs(family, timeout=_GONE_S)
