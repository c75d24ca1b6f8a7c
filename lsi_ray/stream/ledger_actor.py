"""The ledger inside one Ray actor, and the client that the stages call it with.

The actor adds to the ledger what need not survive it: which replicas are there and what they are doing.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayActorError, RayTaskError

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.records import LeaseAnswer
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.space import when_there_is_space
from lsi_ray.stream.hung import Search
from lsi_ray.stream.logs import LOG_FILE, log_lines
from lsi_ray.stream.lost import Lost
from lsi_ray.stream.ports import Replica, ReplicaState, StreamLedger, present


class LedgerActor(Ledger):
    """`Ledger`, plus the presence of replicas (in memory) and a way to end the source early."""

    def __init__(self, work: Path) -> None:
        log_lines(work / LOG_FILE)
        super().__init__(WorkDir(work).create().ledger)
        self._replicas: dict[str, Replica] = {}
        self._lost = Lost(self, lambda: list(self._replicas.values()), Search().gone)
        self._lost.watch()

    def lease(self, session: int, max_rows: int, max_outstanding_rows: int, *, request: int = 0) -> LeaseAnswer:
        return self._lost.check(session, super().lease(session, max_rows, max_outstanding_rows, request=request))

    def note_replica(self, name: str, state: ReplicaState, detail: str, engine: dict[str, str]) -> None:
        self._replicas[name] = Replica(name, state, detail, engine, time.monotonic())

    def replicas(self) -> list[Replica]:
        return present(self._replicas.values(), time.monotonic())

    def forget_replicas(self) -> None:
        self._replicas.clear()

    def pid(self) -> int:
        return os.getpid()


class RemoteLedger:
    """Calls the actor by method name and waits for the answer. Pickles."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteLedger, (self._actor,)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(_patiently, getattr(self._actor, name))

    def kill(self) -> None:
        """End the actor at once. What it acknowledged is on disk."""
        ray.kill(self._actor)


def _patiently(method: Any, *args: Any, **kwargs: Any) -> Any:
    """Any call may be repeated (ledger.py); the end of the stream would throw away what is in flight."""
    return when_there_is_space(lambda: _call(method, *args, **kwargs))


def _call(method: Any, *args: Any, **kwargs: Any) -> Any:
    """What the ledger raises is raised here as it is, without Ray's traceback around it."""
    try:
        return ray.get(method.remote(*args, **kwargs))
    except RayTaskError as error:
        raise error.cause from error
    except RayActorError as error:
        raise LedgerError("ledger_lost", "the process that kept the ledger has died") from error


def start_ledger(work: Path) -> RemoteLedger:
    """Start the ledger's actor on this node. It dies with the driver; what it acknowledged is on disk.

    Calls run one after another: SQLite has one writer, and a call takes about a millisecond.
    """
    remote = ray.remote(LedgerActor).options(num_cpus=0, max_restarts=0, scheduling_strategy=this_node())
    ledger = RemoteLedger(remote.remote(work))
    ledger.pid()
    return ledger


def this_node() -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def as_stream_ledger(ledger: RemoteLedger) -> StreamLedger:
    return cast(StreamLedger, ledger)
