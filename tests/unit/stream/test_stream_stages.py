"""The stages as plain objects over a real ledger and a real archive, without Ray and without vLLM."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsi_ray.archive.index import index_tar
from lsi_ray.archive.validate import validate
from lsi_ray.batch_files import Staged
from lsi_ray.config import Config, parse_config
from lsi_ray.intake import save
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.segments import Results
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.storage.local_files import stat_local
from lsi_ray.stream.commit import Commit
from lsi_ray.stream.generate import Generate
from lsi_ray.stream.leases import leases
from lsi_ray.stream.packet import from_block, to_block
from lsi_ray.stream.render import Render

BATCH = "batch_1"


class NotedLedger(Ledger):
    """The ledger with the presence of replicas that the actor adds."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.notes: list[tuple[str, str]] = []

    def note_replica(self, name: str, state: Any, detail: str, engine: dict[str, str]) -> None:
        del name, engine
        self.notes.append((state, detail))


class World:
    """One started batch, and its stages."""

    def __init__(self, folder: Path, prompts: list[str], *, shard_rows: int = 4, start_seconds: float = 0) -> None:
        engine = {"type": "simulated", "allow_scripts": True, "start_seconds": start_seconds}
        self.config = parse_config({"model": "m", "engine": engine}, source="test")
        self.work = WorkDir(folder / "work").create()
        self.ledger = NotedLedger(self.work.ledger)
        self.files = self.work.batch(BATCH).create()
        tar = folder / "in.tar"
        write_tar(tar, prompts)
        with open(tar, "rb") as file:
            index = index_tar(file)
            checked = validate(file, index, served_model="m")
        save(self.files, index, checked)
        Staged(str(tar), True, False, tar.stat().st_size, "", stat_local(tar).version).save(self.files)
        self.ledger.create_batch(NewBatch(batch_id=BATCH, model="m"))
        self.ledger.start_batch(BATCH, checked.rows, len(checked.plan), shard_rows)
        self.session = self.ledger.open_session("m")
        self.render = Render(self.config, self.work.path)
        self.commit = Commit(self.config, self.work.path, self.ledger)

    def generate(self) -> Generate:
        return Generate(self.config, self.ledger)

    def run(self, engine: Generate, *, most_crashes: int = 20) -> None:
        """What the stream does, one shard after another."""
        for lease in leases(self.ledger, self.session, 8, sleep=pytest.fail):
            for block in engine(self.render(to_block(lease))):
                self.commit(block)
            assert sum(state == "restarting" for state, _ in self.ledger.notes) <= most_crashes

    def contents(self) -> dict[int, Any]:
        refs = [(self.files.segments / ref.name, ref) for ref in self.ledger.segments(BATCH)]
        total = self.ledger.batch(BATCH).rows_total
        quarantined = {f.position for f in self.ledger.row_failures(BATCH)}
        plan = np.load(self.files.plan)
        rows = {int(plan[position]["row"]) for position in quarantined}
        lines = Results(refs).rows_in_order(total, lambda _: None)  # type: ignore[arg-type,return-value]
        found = {row: json.loads(result.line) if result else "quarantined" for row, result in enumerate(lines)}
        assert {row for row, value in found.items() if value == "quarantined"} == rows
        return found


def write_tar(path: Path, prompts: list[str]) -> None:
    rows = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": prompt}]},
        }
        for number, prompt in enumerate(prompts)
    ]
    data = "\n".join(map(json.dumps, rows)).encode()
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("jobs.jsonl")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def answer(record: Any) -> str:
    return str(record["response"]["body"]["choices"][0]["message"]["content"])


def test_every_row_is_answered_once_and_by_its_own_answer(tmp_path: Path) -> None:
    world = World(tmp_path, [f"question {n}" for n in range(10)])
    world.run(world.generate())
    contents = world.contents()
    assert [answer(contents[row]).split()[0] for row in range(10)] == [f"r{row}" for row in range(10)]
    assert world.ledger.batch(BATCH).status == BatchStatus.FINALIZING
    progress = world.ledger.progress(BATCH)
    assert (progress.completed, progress.failed, progress.rows_rerun) == (10, 0, 0)


def test_a_row_that_fails_in_the_engine_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    world = World(tmp_path, ["a", "[[lsi:error]]", "c"])
    world.run(world.generate())
    contents = world.contents()
    assert contents[1]["response"]["status_code"] == 400
    assert [answer(contents[row]).split()[0] for row in (0, 2)] == ["r0", "r2"]


def test_a_row_that_kills_the_engine_is_isolated_and_its_neighbours_answered(tmp_path: Path) -> None:
    prompts = [f"question {n}" for n in range(20)]
    prompts[13] = "[[lsi:dead]]"
    world = World(tmp_path, prompts, shard_rows=16)
    world.run(world.generate(), most_crashes=3)
    contents = world.contents()
    assert contents.pop(13) == "quarantined"
    assert [answer(record).split()[0] for record in contents.values()] == [f"r{row}" for row in contents]
    (failure,) = world.ledger.row_failures(BATCH)
    assert failure.code == "engine_crashed"


def test_shards_that_come_while_the_engine_restarts_wait_for_it(tmp_path: Path) -> None:
    """Many shards in one replica, one of which kills the engine: no row of another becomes an error line."""
    prompts = [f"[[lsi:slow:{20 + n % 30}]] question {n}" for n in range(96)]
    prompts[7] = "[[lsi:dead]]"
    world = World(tmp_path, prompts, shard_rows=4, start_seconds=0.05)
    engine = world.generate()

    def work() -> None:
        for lease in leases(world.ledger, world.session, 8, sleep=lambda _: time.sleep(0.01)):
            with others:
                rendered = world.render(to_block(lease))
            for block in engine(rendered):
                with others:
                    world.commit(block)

    others = threading.Lock()  # render and commit are processes of their own in a stream, and run one call at a time
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    contents = world.contents()
    assert contents.pop(7) == "quarantined"
    assert [answer(record).split()[0] for record in contents.values()] == [f"r{row}" for row in contents]


def test_a_shard_delivered_twice_runs_once(tmp_path: Path) -> None:
    """Ray re-runs a task whose process died: the ledger learns of it by a second beginning."""
    world = World(tmp_path, ["a", "b", "c"])
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    rendered = world.render(to_block(lease))
    first, second = world.generate(), world.generate()
    second._name = "another process"
    blocks = list(first(rendered))
    assert list(second(rendered)) == []
    for block in blocks:
        world.commit(block)
    assert len(world.contents()) == 3
    assert world.ledger.progress(BATCH).rows_rerun == 0


def test_a_repeated_commit_changes_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    world = World(tmp_path, ["a", "b"])
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    (block,) = world.generate()(world.render(to_block(lease)))
    world.commit(block)
    files = sorted(world.files.segments.iterdir())
    world.commit(block)
    assert sorted(world.files.segments.iterdir()) == files
    assert world.ledger.progress(BATCH).completed == 2


def test_an_engine_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsi_ray.engine.simulated import SimulatedReplica
    from lsi_ray.errors import EngineError

    async def refuse(_: SimulatedReplica) -> None:
        raise EngineError("no such weights", code="engine_start_failed")

    monkeypatch.setattr(SimulatedReplica, "start", refuse)
    world = World(tmp_path, ["a"])
    with pytest.raises(EngineError, match="no such weights"):
        world.generate()
    assert [note for note in world.ledger.notes if note[0] == "failed"] == [("failed", "no such weights")] * 3


def test_packets_travel_unchanged() -> None:
    config: Config = parse_config({"model": "m", "engine": {"type": "simulated"}}, source="test")
    (back,) = from_block(to_block(config))
    assert back == config


@pytest.mark.parametrize("stage", ["render", "generate", "commit"])
def test_a_batch_that_is_erased_on_the_way_does_not_end_the_stream(tmp_path: Path, stage: str) -> None:
    world = World(tmp_path, [f"question {n}" for n in range(4)])
    engine = world.generate()
    (lease,) = world.ledger.lease(world.session, 8, 8).leases

    def erase_before(reached: str) -> None:
        if stage == reached:
            world.ledger.request_cancel(BATCH)
            world.ledger.deliver(BATCH, BatchStatus.CANCELLED)
            world.work.erase_batch(BATCH)
            world.ledger.erase(BATCH)

    erase_before("render")
    rendered = world.render(to_block(lease))
    erase_before("generate")
    for block in engine(rendered):
        erase_before("commit")
        assert world.commit(block).column("rows").to_pylist() == [0]
    assert not world.files.path.exists()
