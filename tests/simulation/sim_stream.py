"""A model's stream with fake replicas: the real lease loop, render and commit stages, around engines made of dice.

Ray Data's part is played here: blocks wait between the stages in any order, a block whose task was lost runs again (on
another replica), a commit may run twice, and what was on its way when a stream died may arrive long after.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sim_disk import KilledError

from lsi_ray.config import Config
from lsi_ray.errors import LsiError, RowError
from lsi_ray.ledger.records import Lease, LeaseAnswer
from lsi_ray.stream.commit import Commit
from lsi_ray.stream.leases import leases
from lsi_ray.stream.packet import Packet, Row
from lsi_ray.stream.render import Render

RowKey = tuple[str, int]
OUTSTANDING = 6
IDLE: Any = object()
"""In place of a lease: there is none now. The real loop would sleep."""


class Harness(Protocol):
    """What a stream needs of the simulated world."""

    dice: random.Random
    faults: bool

    def port(self, process: str) -> Any: ...
    def running(self, process: str) -> Any: ...
    def kill(self, process: str) -> None: ...

    crashed: Callable[..., None]
    interrupted: Callable[..., None]

    def say(self, *what: object) -> None: ...
    def kind(self, row: Row) -> str:
        """The row's fate, which the simulated renderer does not hand on."""
        ...


class _Leasing:
    """The ledger for the lease loop: where that would sleep, it is given IDLE."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def lease(self, *args: Any, **kwargs: Any) -> LeaseAnswer:
        answer: LeaseAnswer = self._port.lease(*args, **kwargs)
        return LeaseAnswer((IDLE,), "wait") if answer.state == "wait" and not answer.leases else answer


@dataclass(slots=True)
class Run:
    """A shard in an engine. `left` have not finished, `ready` have and wait to be handed on."""

    packet: Packet
    left: list[Row]
    ready: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class Replica:
    name: str
    runs: list[Run] = field(default_factory=list)

    def takes(self, packet: Packet) -> bool:
        """As the Gate of generate.py: a suspect is alone in its engine."""
        return not self.runs if packet.exclusive else not any(run.packet.exclusive for run in self.runs)

    def rows(self) -> list[RowKey]:
        return [(run.packet.batch_id, row.row) for run in self.runs for row in run.left + run.ready or run.packet.rows]


class Stream:
    """One session, from its start to its end. `failure`: what ended it early, "" for a good end; None: it runs."""

    def __init__(self, world: Harness, config: Config, work: Path, number: int) -> None:
        self.world, self.config, self.model = world, config, config.model
        self.process = f"stream{number}"
        self.failure: str | None = None
        self.zombie = False
        """Its driver is dead, and its tasks do not know yet."""
        self.session = 0
        self._port = world.port(self.process)
        self._render, self._commit = Render(config, work), Commit(config, work, self._port)
        self._leases: Iterator[Lease] = iter(())
        self._source_open, self._opening, self._leasing, self._idle = True, False, False, False
        self._names = Counter[str]()
        self._gone: set[str] = set()
        self.rendered: list[Packet] = []
        self.replicas = [self._new_replica() for _ in range(world.dice.choice([1, 1, 2]))]
        self.finished: list[Packet] = []
        self._committing: list[Packet] = []

    def close(self) -> None:
        """Give back what the operating system would."""
        self._render._loop.close()
        for files in self._render._batches.values():
            files.close()
        self._render._batches.clear()

    def step(self) -> bool:
        """Some part of it does something, or there is nothing to do: then False. A stream whose process is killed in it
        ends as lost."""
        if (self.failure is not None and not self.zombie) or self._opening:
            return False
        self._idle = False
        try:
            with self.world.running(self.process):
                self._step()
        except KilledError as killed:
            if killed.process != self.process:
                raise
            self._end("its driver was lost")
        except LsiError as error:
            self._end(f"{type(error).__name__}: {error}")
        return not self._idle

    def _step(self) -> None:
        if not self.session:
            self._open()
            return
        acts: list[tuple[Callable[[], None], int]] = [
            (self._lease, 3 if self._source_open and not self._leasing and len(self.rendered) < 4 else 0),
            (self._begin, 4 if self.rendered else 0),
            (self._progress, 6 if any(run.left for replica in self.replicas for run in replica.runs) else 0),
            (self._commit_one, 4 if self.finished else 0),
            (self._lose, 1 if self._gone else 0),
        ]
        weights = [weight for _, weight in acts]
        if any(weights):
            self.world.dice.choices([act for act, _ in acts], weights)[0]()
        elif not self._source_open and not self._leasing:
            self._end("")

    def _open(self) -> None:
        self._opening = True
        self.session = self._port.open_session(self.model)
        self._opening = False
        self._leases = leases(_Leasing(self._port), self.session, OUTSTANDING, sleep=_never)
        self.world.say("session", self.model, self.session)

    def _lease(self) -> None:
        self._leasing = True
        lease = next(self._leases, None)
        self._leasing = False
        if lease is None:
            self._source_open = False
        elif lease is IDLE:
            self._idle = not self.rendered and not self.finished and not any(one.runs for one in self.replicas)
        else:
            self.rendered.append(self._render._loop.run_until_complete(self._render._render_shard(lease)))
            self.world.say("lease", lease.batch_id, lease.start, lease.stop, lease.attempt, len(lease.todo()))

    def _begin(self) -> None:
        """A block comes to a replica that has room, now and then although it has come to one before."""
        packet = self.world.dice.choice(self.rendered)
        able = [replica for replica in self.replicas if replica.takes(packet)]
        if not able:
            return
        replica, run = self.world.dice.choice(able), Run(packet, [])
        self.rendered.remove(packet)
        if self.world.faults and self.world.dice.random() < 0.05:
            self._stand_aside(packet)
            return
        replica.runs.append(run)  # it is through the gate
        todo = self._port.begin(packet.session, packet.shard_id, replica.name)
        self.world.say("begin", packet.batch_id, packet.shard_id, replica.name, todo)
        run.left = [row for row in packet.rows if row.position in (todo or ())]
        if not run.left and run in replica.runs:
            replica.runs.remove(run)

    def _stand_aside(self, packet: Packet) -> None:
        """As a replica without an engine: the shard goes to the others."""
        self.world.say("release", packet.batch_id, packet.shard_id)
        self._port.release(packet.session, (packet.shard_id,))

    def _progress(self) -> None:
        """One row of one shard finishes, or brings the engine down; now and then a shard hands on what it has."""
        choices = [(replica, run) for replica in self.replicas for run in replica.runs if run.left]
        replica, run = self.world.dice.choice(choices)
        row = self.world.dice.choice(run.left)
        kind = self.world.kind(row)
        if kind in ("crash", "hang"):
            self._down(
                replica, (run.packet.batch_id, row.row), "engine_timeout" if kind == "hang" else "engine_crashed"
            )
            return
        run.left.remove(row)
        run.ready.append(_answered(row, kind))
        if not run.left:
            replica.runs.remove(run)
        if not run.left or self.world.dice.random() < 0.1:
            self.finished.append(_with(run.packet, run.ready))
            run.ready = []

    def _down(self, replica: Replica, cause: RowKey | None, code: str) -> None:
        """The engine is gone with all that runs in it: each shard hands on its finished rows and tells of the crash."""
        self.world.say("engine down", replica.name, cause, code)
        runs = [run for run in replica.runs if run.left]
        replica.runs = [run for run in replica.runs if not run.left]
        rows = [(run.packet.batch_id, row.row) for run in runs for row in run.left]
        fenced = self.zombie
        try:
            for run in runs:
                rows += self._hand_on(run)
                self._port.crash(run.packet.session, (run.packet.shard_id,), "exit code 139", code=code)
        except BaseException:
            self.world.crashed(rows, cause, blamed=False)
            raise
        self.world.crashed(rows, cause, blamed=not fenced)

    def _hand_on(self, run: Run) -> list[RowKey]:
        """What has finished is made durable before the shard is blamed, unless it takes too long: those rows."""
        if run.ready:
            self.finished.append(_with(run.packet, run.ready))
        waiting = [packet for packet in self.finished if packet.shard_id == run.packet.shard_id]
        if self.world.faults and self.world.dice.random() < 0.2:
            return [(packet.batch_id, row.row) for packet in waiting for row in packet.rows]
        for packet in waiting:
            if packet in self.finished:  # a fault in the middle of a commit may have seen to it
                self._commit_this(packet)
        return []

    def _commit_this(self, packet: Packet) -> None:
        self.finished.remove(packet)
        self._committing.append(packet)
        self.commit(packet)
        self._committing.remove(packet)

    def _commit_one(self) -> None:
        packet = self.world.dice.choice(self.finished)
        self._commit_this(packet)
        if self.world.faults and self.world.dice.random() < 0.1:
            self.finished.append(packet)

    def commit(self, packet: Packet) -> None:
        accepted = self._commit._commit(packet)
        self.world.say("commit", packet.batch_id, packet.shard_id, len(packet.rows), accepted)

    # -- faults

    def lose_replica(self) -> None:
        """Its process dies, which nobody is told; Ray runs its blocks again, elsewhere, as they came."""
        replica = self.world.dice.choice(self.replicas)
        self.world.say("replica lost", replica.name)
        self.world.crashed(replica.rows(), None, blamed=True)
        self.rendered += [run.packet for run in replica.runs]
        self.replicas[self.replicas.index(replica)] = self._new_replica()

    def lose_for_good(self) -> None:
        """Its node is gone, and Ray keeps what was sent to it, begun or not, until the session ends."""
        replica = self.world.dice.choice(self.replicas)
        self.world.say("replica gone", replica.name)
        self.world.crashed(replica.rows(), None, blamed=True)
        self.rendered = [packet for packet in self.rendered if self.world.dice.random() < 0.5]
        self.replicas[self.replicas.index(replica)] = self._new_replica()
        self._gone.add(replica.name)

    def _lose(self) -> None:
        """The ledger's process has found out."""
        gone, self._gone = self._gone, set()
        self.world.say("lose", *sorted(gone))
        self._port.lose(self.session, gone)

    def engine_dies(self) -> None:
        self._down(self.world.dice.choice(self.replicas), None, "engine_crashed")

    def stop(self, failure: str, *, zombie: bool = False) -> None:
        if self.failure is None:
            self._end(failure)
            self.zombie = zombie and self.session > 0
        if not self.zombie:
            self.world.kill(self.process)

    def _end(self, failure: str) -> None:
        self.zombie = False
        if self.failure is not None:
            return
        self.failure = failure
        self.world.say("stream ends", self.model, self.session, failure)
        waiting = [(packet.batch_id, row.row) for packet in self.finished + self._committing for row in packet.rows]
        self.world.interrupted([row for replica in self.replicas for row in replica.rows()] + waiting)

    def _new_replica(self) -> Replica:
        self._names["replica"] += 1
        return Replica(f"{self.process}-r{self._names['replica']}")


def _answered(row: Row, kind: str) -> Row:
    if kind == "error":
        error = RowError("model_refused", "the model does not take this request")
        return replace(row, payload=None, error=error)
    return row


def _with(packet: Packet, rows: list[Row]) -> Packet:
    return replace(packet, rows=list(rows))


def _never(_: float) -> None:
    raise AssertionError("the lease loop sleeps although it was given something")
