"""One simulated service: the processes, what happens to them by the dice, and what each step must leave true.

Everything that runs is the product's own code; fake are the clock, the disk's mood, the network, the engines and the
processes. A process is a name: code runs "as" a process, and from the moment it is killed nothing it does has effect.
While a job waits for an answer other things happen (`pause`), last in first out: a job may be overtaken by a whole
life of the service, but two paused jobs wake in reverse order only.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sim_checker import Checker
from sim_disk import Disk, Fuse, KilledError, PowerCutError
from sim_net import Network
from sim_orders import CALLERS, Order
from sim_service import FakeStreams, FakeWorkers, Job, Service, deployment
from sim_stand_ins import EPOCH, Clock
from sim_stream import Stream

from lsi_ray.errors import LsiError
from lsi_ray.ledger.records import Batch
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.delivery_job import deliver_batch
from lsi_ray.service.intake_job import take_in_batch
from lsi_ray.service.supervisor import Finished
from lsi_ray.stream.packet import Packet, Row

TRACE_LINES = 4000
SERVICE = "service"


@dataclass(slots=True)
class Port:
    """A process's way to call the service: answers get lost and calls repeated, until the caller itself is dead."""

    world: World
    process: str

    def __getattr__(self, name: str) -> Any:
        return partial(self.world.call, self.process, name)


class World:
    callers = CALLERS

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.names = random.Random(seed + 0.5)
        self.clock = Clock()
        self.disk = Disk(folder, self.dice, self.clock)
        self.checker = Checker(self)
        self.net = Network(self.dice, self.pause, self.clock.pass_time, self.checker.put, self.checker.told)
        self.crashed, self.interrupted = self.checker.crashed, self.checker.interrupted
        self.work = WorkDir(folder)
        self.deployment = deployment(self.dice.choice([2, 4, 12]))
        self.orders: list[Order] = []
        self.retries: dict[str, Order] = {}
        self.kinds: dict[str, str] = {}
        self.streams: dict[str, Stream] = {}
        self.ghosts: list[tuple[Stream, Packet]] = []
        self.workers: FakeWorkers
        self.service: Service
        self.faults = False
        self.depth = 0
        self.acts = 0
        self.happened: Counter[str] = Counter()
        self.broken: set[str] = set()
        """What a fault has spoilt for good: "input 3", "output 3", "validation batch_...": such a batch may fail."""
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self._digest = hashlib.sha256()
        self._numbers: Counter[str] = Counter()
        self.made: list[Stream] = []
        self.act: Callable[[], None] = lambda: None

    # -- what others tell

    def say(self, *what: object) -> None:
        line = f"{self.acts:4} {self.clock.now - EPOCH:10.1f} {'  ' * self.depth}{' '.join(map(str, what))}"
        line = line.replace(self.disk.root, "~")
        self.trace.append(line)
        self._digest.update(line.encode() + b"\n")

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    @property
    def all_orders(self) -> list[Order]:
        return self.orders + list(self.retries.values())

    def kind(self, row: Row) -> str:
        return "ok" if row.error is not None or row.custom_id is None else self.kinds.get(row.custom_id, "ok")

    def order_of(self, batch_id: str) -> Order | None:
        batch = self.service.batch(batch_id)
        if "retry_of" in batch.options:
            return self.retries[batch.options["retry_of"]]
        return self.orders[int(batch.metadata["order"])]

    # -- processes

    def new_process(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{kind}{self._numbers[kind]}"

    def running(self, process: str) -> AbstractContextManager[None]:
        return self.disk.running(process)

    def kill(self, process: str) -> None:
        self.disk.kill(process)

    def port(self, process: str) -> Port:
        return Port(self, process)

    def pause(self, _why: str) -> None:
        """Somebody waits: now and then others get on meanwhile."""
        if self.faults and self.depth < 2 and self.dice.random() < 0.1:
            self.depth += 1
            try:
                with self.disk.acting_as("world"):
                    for _ in range(self.dice.randint(1, 4)):
                        self.act()
            finally:
                self.depth -= 1
        self.disk.check()

    def call(self, process: str, name: str, *args: Any, **kwargs: Any) -> Any:
        """One call of a service that may die in it, whose answer may be lost, and that is then called again."""
        self.pause(name)
        while True:
            try:
                with self.disk.running(SERVICE):
                    answer: Any = self._outcome(name, args, kwargs)
            except KilledError as killed:
                if killed.process != SERVICE:
                    raise
                self.restart(orphan=process)
                self.disk.check()
                continue
            if self.faults and self.dice.random() < 0.03:
                self.happened["answer lost"] += 1
                self.say("answer lost", name)
                continue
            if isinstance(answer, LsiError):
                raise answer
            return answer

    def _outcome(self, name: str, args: Any, kwargs: Any) -> Any:
        try:
            return getattr(self.service, name)(*args, **kwargs)
        except LsiError as error:
            return error

    def run_job(self, job: Job) -> None:
        workers, finished = self.workers, None
        self.say("job", job.kind, job.batch_id)
        act = {"intake": take_in_batch, "delivery": deliver_batch}[job.kind]
        if self.faults and self.disk.fuse is None and self.dice.random() < 0.15:
            self.disk.fuse = Fuse(
                job.process, self.dice.randint(1, 60), self.dice.random() < 0.3, self.dice.random() < 0.5
            )
        try:
            with self.running(job.process):
                result = act(job.batch_id, self.work, self.deployment, self.port(job.process))  # type: ignore[operator]
            finished = Finished(job.kind, job.batch_id, result=result or "started")
        except KilledError as killed:
            if killed.process != job.process:
                raise
            finished = Finished(job.kind, job.batch_id, lost=True, detail="killed")
        except LsiError as error:
            finished = Finished(job.kind, job.batch_id, error=error)
        except OSError as error:
            finished = Finished(job.kind, job.batch_id, lost=True, detail=str(error))
        self.say("job ends", job.kind, job.batch_id, finished.result or finished.error or finished.detail)
        workers.end(job, finished)

    # -- the service's life

    def start(self) -> None:
        """Until it is up: it may be killed while it starts."""
        while True:
            try:
                with self.running(SERVICE):
                    self._open()
                return
            except KilledError:
                self._bury()
            except (OSError, LsiError):
                if not self.disk.full:
                    raise
                self.say("no space to start in; somebody makes some")
                self.disk.full = False

    def _open(self) -> None:
        self.workers = FakeWorkers(lambda: self.new_process("job"), self.disk.kill)
        streams, told = FakeStreams(self.streams, self._launch), (self._ended, self.checker.disowned.add)
        self.service = Service(self.work, self.deployment, self.workers, streams, self.clock, *told)

    def restart(self, orphan: str = "") -> None:
        """The service is dead, and its workers with it: at once, or (who waits for an answer) when they are done."""
        self.happened["service killed"] += 1
        self.say("service restarts")
        for job in self.workers.jobs.values():
            if job.process != orphan or self.dice.random() < 0.5:
                self.disk.kill(job.process)
        self._bury()
        self.start()

    def _bury(self) -> None:
        """What the kernel does for a dead process: its files are closed, with nothing more written."""
        self.disk.dead.add(SERVICE)
        self._close_service()
        self.disk.dead.discard(SERVICE)

    def _close_service(self) -> None:
        """In vain, as far as the disk is concerned."""
        if hasattr(self, "service"):
            with suppress(KilledError, PowerCutError, LsiError), self.disk.acting_as(SERVICE):
                self.service.close()

    def power_cut(self) -> None:
        self.happened["power cut"] += 1
        self.say("power cut")
        for stream in self.made:
            stream.zombie = False
            stream.stop("power")
        self.disk.cut = True
        self._close_service()
        self.disk.cut = False
        self.disk.dead.clear()
        self.disk.process = "world"
        self.disk.platter.lose_unsynced()
        self.streams, self.ghosts = {}, []
        self.start()

    def stop_and_start(self) -> None:
        """In good order."""
        self.say("service stops")
        for job in self.workers.jobs.values():
            self.disk.kill(job.process)
        with self.running(SERVICE):
            self.service.close()
        self.start()

    def _launch(self, model: str) -> Stream:
        self._numbers["stream"] += 1
        stream = Stream(self, self.deployment.config(model), self.work.path, self._numbers["stream"])
        if (old := self.streams.get(model)) is not None:
            self.ghosts += [(old, packet) for packet in old.finished]
        self.streams[model] = stream
        self.made.append(stream)
        return stream

    def _ended(self, batch: Batch) -> None:
        self.say("over", batch.batch_id, batch.status)

    # -- guarded acts

    def guarded(self, act: Callable[[], None]) -> None:
        """One act of a process of its own; what dies in it is started again."""
        try:
            act()
        except KilledError as killed:
            if killed.process == SERVICE:
                self.restart()
            else:
                self.disk.dead.discard("api")
        except PowerCutError:
            if self.depth:
                raise
            while self.disk.cut:  # it may go again while all come up
                with suppress(PowerCutError):
                    self.power_cut()

    def as_service(self, act: Callable[[], object]) -> None:
        with self.running(SERVICE):
            act()

    # -- what the service's threads do

    def tick(self) -> None:
        self.as_service(self.service.supervisor.tick)

    def hooks(self) -> None:
        self.as_service(self.service.outbox.send_due)

    def job(self) -> None:
        """One of those that wait, as a process of its own."""
        waiting = self.workers.waiting
        if waiting:
            self.run_job(waiting.pop(self.dice.randrange(len(waiting))))

    # -- the end

    def deaf(self, order: Order) -> bool:
        return f"hook {order.number}" in self.broken

    def may_fail_with(self, order: Order) -> set[str]:
        """Why a batch of this order may have failed."""
        due = {"bad_gzip"} if order.hopeless else set()
        spoilt = {f"output {order.number}", *(f"validation {batch_id}" for batch_id in order.ids)}
        if spoilt & self.broken:
            due |= {"output_undeliverable"}
        if f"input {order.number}" in self.broken:
            due |= {"input_url_expired"}
        return due

    def close(self) -> None:
        if hasattr(self, "service"):
            self.service.close()
        for stream in self.made:
            stream.close()
        self.disk.close_all()
