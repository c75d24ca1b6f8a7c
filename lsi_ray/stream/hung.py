"""Replicas that say nothing any more: looked for on their own nodes, and killed where they cannot go on.

Ray notices that a process has died, not that one stands still: stopped, or locked up for good, it keeps its GPU and
every shard that was sent to it. Killed, it is started again by Ray, and its shards with it (`Ledger.begin`).
"""

from __future__ import annotations

import os
import secrets
import socket
from typing import Any

import psutil
import ray
from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

DEAF_S = 900.0
"""A process that runs is taken for slow until it has been silent for so long: the thread that speaks for it needs a
moment of the interpreter every 20 s, however much the others have to do."""

_TITLE = "Generate"
_KILL_S = 10.0


def replica_name() -> str:
    """Of this process: where it is, the actor, which stays the same when Ray restarts it, and a token, because pods may
    count their pids from 1 alike."""
    token = secrets.token_hex(4)
    if not ray.is_initialized():
        return f"{socket.gethostname()}:{os.getpid()}:{token}:{token}"
    context = ray.get_runtime_context()
    return f"{context.get_node_id()}:{os.getpid()}:{context.get_actor_id()}:{token}"


class Search:
    """Asks the nodes, without waiting for their answers."""

    def __init__(self) -> None:
        self._asked: dict[str, Any] = {}
        self._gone: set[str] = set()

    def gone(self, name: str, silent_s: float) -> bool:
        """Whether the process is known to have ended, or has been ended because it stands still. Ask again later."""
        if name in self._gone:
            return True
        if name not in self._asked:
            self._asked[name] = _ask(name, silent_s)
            return False
        ready, _ = ray.wait([self._asked[name]], timeout=0)
        if ready and _answer(self._asked.pop(name)):
            self._gone.add(name)
        return name in self._gone


def _ask(name: str, silent_s: float) -> Any:
    node, pid, *_ = name.split(":")
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    look = ray.remote(end_if_hung).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return look.remote(int(pid), _TITLE, deaf=silent_s >= DEAF_S)


def _answer(asked: Any) -> bool:
    try:
        return bool(ray.get(asked))
    except (NodeDiedError, TaskUnschedulableError):  # with all that was on it
        return True
    except RayError:  # the task was lost, which says nothing of the replica
        return False


def end_if_hung(pid: int, title: str, *, deaf: bool) -> bool:
    """Whether the process `pid` of that title is gone. One that is stopped, or `deaf`, is killed first."""
    try:
        process = psutil.Process(pid)
        if title not in " ".join(process.cmdline()):  # the pid is another's by now
            return True
        if not deaf and process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
            return False
        process.kill()
        process.wait(_KILL_S)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:  # in the kernel, on a broken driver or disk
        return False
    return True
