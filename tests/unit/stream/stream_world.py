"""One started batch and its stages as plain objects: a real ledger, a real archive, the simulated engine."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsi_ray.archive.index import index_tar
from lsi_ray.archive.validate import validate
from lsi_ray.batch_files import Staged
from lsi_ray.config import parse_config
from lsi_ray.intake import save
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.segments import Results
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.storage.local_files import stat_local
from lsi_ray.stream.commit import Commit
from lsi_ray.stream.generate import Generate
from lsi_ray.stream.leases import leases
from lsi_ray.stream.packet import to_block
from lsi_ray.stream.ports import Replica
from lsi_ray.stream.render import Render

BATCH = "batch_1"


class NotedLedger(Ledger):
    """The ledger with the presence of replicas that the actor adds."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.notes: list[tuple[str, str]] = []
        self.present: dict[str, Replica] = {}

    def note_replica(self, name: str, state: Any, detail: str, engine: dict[str, str]) -> None:
        self.notes.append((state, detail))
        self.present[name] = Replica(name, state, detail, engine, time.time())

    def replicas(self) -> list[Replica]:
        return list(self.present.values())


class World:
    """One started batch, and its stages."""

    def __init__(
        self, folder: Path, prompts: list[str], *, shard_rows: int = 4, greedy: bool = False, **engine: float
    ) -> None:
        engine = {"type": "simulated", "allow_scripts": True, **engine}  # type: ignore[dict-item]
        self.config = parse_config({"model": "m", "engine": engine}, source="test")
        self.work = WorkDir(folder / "work").create()
        self.ledger = NotedLedger(self.work.ledger)
        self.files = self.work.batch(BATCH).create()
        tar = folder / "in.tar"
        write_tar(tar, prompts, {"temperature": 0} if greedy else {})
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


def write_tar(path: Path, prompts: list[str], fields: dict[str, Any]) -> None:
    rows = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": prompt}], **fields},
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
