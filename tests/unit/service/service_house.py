"""A service without Ray: the real ledger, desk, supervisor and jobs, under a fake clock, with fake processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lsi_ray.archive.lines import success_line
from lsi_ray.config import parse_config
from lsi_ray.errors import LsiError
from lsi_ray.ledger.records import Answers, ResultLine
from lsi_ray.ledger.segments import write_segment
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import File
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.backend import Caller, Repeat, Submission
from lsi_ray.service.capacity import Capacity
from lsi_ray.service.delivery_job import deliver_batch
from lsi_ray.service.deploy import Deploy, Deployment, ModelSettings, Served
from lsi_ray.service.describe import ModelState, view
from lsi_ray.service.desk import Desk
from lsi_ray.service.ended_rows import EndedRows
from lsi_ray.service.file_desk import FileDesk
from lsi_ray.service.file_store import FileStore, new_file_id
from lsi_ray.service.intake_job import take_in_batch
from lsi_ray.service.kept_urls import KeptUrls
from lsi_ray.service.models_state import Speeds, Work
from lsi_ray.service.sizing import Gpus
from lsi_ray.service.supervisor import Finished, StreamEnd, Supervisor
from lsi_ray.service.webhooks import Outbox
from lsi_ray.storage.secret_url import SecretUrl

MODEL = "lsi/simulated"
ANN, BOB = Caller("ann", "Ann"), Caller("bob", "Bob")


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class TestLedger(ServiceLedger):
    __test__ = False

    def engine_of(self, model):  # noqa: ARG002
        return {"name": "simulated", "version": "1"}


class InlineWorkers:
    """Jobs run at once, in this process; `broken` says what a kind of job raises instead, `held` ones never end."""

    def __init__(self, house):
        self.house = house
        self.broken = {}
        self.held = set()
        self.started = []
        self._running = set()
        self._finished = []

    def start(self, kind, batch_id):
        self.started.append((kind, batch_id))
        if kind in self.held:
            self._running.add((kind, batch_id))
            return
        self._finished.append(self._run(kind, batch_id))

    def _run(self, kind, batch_id):
        trouble = self.broken.get(kind)
        if trouble == "lost":
            return Finished(kind, batch_id, lost=True, detail="killed")
        try:
            if trouble is not None:
                raise trouble
            job = {"intake": take_in_batch, "delivery": deliver_batch}[kind]
            result = job(batch_id, self.house.work, self.house.deployment, self.house.ledger)
            return Finished(kind, batch_id, result=result or "started")
        except LsiError as error:
            return Finished(kind, batch_id, error=error)

    def stop(self, kind, batch_id):
        self._running.discard((kind, batch_id))

    def running(self):
        return frozenset(self._running)

    def finished(self):
        done, self._finished = self._finished, []
        return done


class FakeStreams:
    """`up`: the replicas each stream was asked for; `most`: GPUs."""

    def __init__(self):
        self.up = {}
        self.starts = []
        self.ends = []
        self.most = 8
        self.reason = None

    def start(self, model, replicas):
        self.up[model] = replicas
        self.starts.append(model)

    def resize(self, model, replicas):
        self.up[model] = replicas

    def running(self):
        return dict(self.up)

    def gpus(self):
        return Gpus(0, self.most)

    def ended(self):
        ends, self.ends = self.ends, []
        return ends

    def end(self, model, failure=""):
        self.up.pop(model, None)
        self.ends.append(StreamEnd(model, failure))


class House:
    """The whole service, less HTTP and Ray."""

    def __init__(self, folder, models=(MODEL,), gpus=0, replicas=1, **settings):
        self.folder = folder
        self.clock = FakeClock()
        self.work = WorkDir(folder / "work").create()
        config = {"engine": {"type": "simulated", "gpus": gpus}, "replicas": {"min": 1, "max": replicas}}
        served = {
            name: Served(parse_config({"model": name, **config}, source=name), ModelSettings(config=Path("x")))
            for name in models
        }
        api = {"url_schemes": "http", "url_private": True}
        deploy = Deploy.model_validate({"models": [{"config": "x"}], "api": api, **settings})
        self.deployment = Deployment(deploy, served, paths=True)
        self.posted = []
        self.open()

    def open(self):
        self.ledger = TestLedger(self.work.ledger, clock=self.clock, lock_wait_s=0)
        self.workers, self.streams = InlineWorkers(self), FakeStreams()
        self.outbox = Outbox(
            self.work.path / "webhooks", lambda *post: self.posted.append(post), give_up_s=1000, clock=self.clock
        )
        self.kept = KeptUrls(self.work.path, self.deployment.settings.keep.retry_s, self.clock)
        self.at_hand = Work(self.ledger, Speeds(self.work.path, self.deployment.models), self.clock)
        self.supervisor = Supervisor(
            *(self.ledger, self.work, self.deployment, self.workers, self.streams, self.outbox, self.kept),
            at_hand=self.at_hand,
            clock=self.clock,
        )
        admission = self.deployment.settings.admission
        self.capacity = Capacity(self.ledger, admission, self.at_hand, self.clock, self.supervisor.most_replicas)
        self.ledger.weigh = self.capacity.weigh
        self.files = FileDesk(self.ledger, self.work.path, admission.max_file_bytes_per_caller)
        self.desk = Desk(
            self.ledger,
            self.work,
            self.deployment,
            describe=self.describe,
            capacity=self.capacity,
            kept=self.kept,
            changed=self.changed,
            clock=self.clock,
        )

    def reopen(self):
        self.ledger.close()
        self.open()

    def changed(self, batch_id):
        self.at_hand.stale()
        self.supervisor.poke(batch_id)

    def describe(self, served):
        state = ModelState(self.at_hand.meter(served.batch.model), 0.0, self.streams.reason)
        claims = self.at_hand.claims(served.batch.model)
        served = EndedRows(self.ledger, self.work, self.deployment).named(served)
        return view(served, state, claims, None, self.at_hand.position(served.batch.batch_id), self.clock.now)

    def upload(self, rows, caller=ANN, model=MODEL):
        store = FileStore(self.work.path)
        temporary, file = store.begin()
        file.write(rows if isinstance(rows, bytes) else jobs(rows, model))
        file_id = new_file_id()
        size = store.finish(temporary, file, file_id)
        self.files.add(caller, File(file_id, caller.id, "in.jsonl", size, "batch", self.clock.now, None))
        return file_id

    def submit(self, rows=3, caller=ANN, **how):
        """An uploaded file and an output that goes to a path, unless `how` says otherwise."""
        if "input_url" not in how and "input_file_id" not in how:
            how["input_file_id"] = self.upload(rows, caller)
        repeat = how.pop("repeat", None) or Repeat(fingerprint=str(self.clock.now) + str(how))
        asked = Submission("lsi", "/v1/chat/completions", "24h", how.pop("window_s", 86_400.0), repeat, **how)
        return self.desk.submit(caller, asked)[0].id

    def answer(self, batch_id, rows=None):
        """As the stream would: lease, begin, write a segment, commit."""
        model = self.ledger.batch(batch_id).model
        session = self.ledger.open_session(model)
        for lease in self.ledger.lease(session, 10_000, 10_000).leases:
            if lease.batch_id != batch_id:
                continue
            todo = self.ledger.begin(session, lease.shard_id, "r")
            todo = [position for position in todo if rows is None or position in rows]
            rows_of = np.load(self.work.batch(batch_id).plan)["row"]
            lines = [
                ResultLine(int(rows_of[p]), p, success_line(batch_id, p, f"r{p}", b'{"text":"secret answer"}'))
                for p in todo
            ]
            if lines:
                ref = write_segment(self.work.batch(batch_id).segments, f"{lease.shard_id}-{len(todo)}", lines)
                self.ledger.commit(session, ref, Answers.of(batch_id, lines))

    def tick(self, times=3, seconds=0.0):
        for _ in range(times):
            self.supervisor.tick()
            self.clock.now += seconds

    def status(self, batch_id):
        return str(self.ledger.batch(batch_id).status)

    def output(self, name="out.tar.gz"):
        return SecretUrl(f"file://{self.folder}/{name}")


def jobs(rows, model=MODEL, text="secret question"):
    lines = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": f"{text} {number}"}]},
        }
        for number in range(rows)
    ]
    return "\n".join(map(json.dumps, lines)).encode()
