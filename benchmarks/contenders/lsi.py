"""`lsi run`, with a look at its segments before delivery erases them.

A row counts as answered when the segment that holds it is on disk: so it counts 64 rows at a time, and durable ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contenders.task import Answers, Task
from lsi_ray.cli import run
from lsi_ray.ledger.segments import read_segment
from lsi_ray.stream import cluster


def main(task: Task) -> int:
    answers: Answers = []
    module: Any = run
    deliver = module.deliver

    def spying(batch_id: str, target: Any, folder: Any, ledger: Any, *rest: Any) -> Any:
        for ref in ledger.segments(batch_id):
            path = folder.segments / ref.name
            good = sum(not result.failed for result in read_segment(path, ref))
            answers.append((path.stat().st_mtime, good))
        return deliver(batch_id, target, folder, ledger, *rest)

    module.deliver = spying
    hold_rows()
    out = Path(task.out)
    code = run.run_command(
        run.RunOptions(
            source=task.archive,
            output=str(out / "output.tar.gz"),
            config=Path(task.config),
            work_dir=out / "work",
            replicas=None,
            max_rows=None,
            strict=False,
            json=True,
        )
    )
    task.answered(sorted(answers))
    return code


def hold_rows() -> None:
    """Its ledger becomes the gated one: once Ray is up, as `lsi run` sets Ray's environment before it imports it."""
    module: Any = cluster
    start = module.cluster

    @contextmanager
    def started(*args: Any, **kwargs: Any) -> Iterator[bool]:
        with start(*args, **kwargs) as own:
            from contenders.gated_ledger import GatedLedger
            from lsi_ray.stream import ledger_actor

            actor: Any = ledger_actor
            actor.LedgerActor = GatedLedger
            yield own

    module.cluster = started


if __name__ == "__main__":
    raise SystemExit(main(Task.from_command_line()))
