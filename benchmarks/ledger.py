"""How fast is the ledger, and how large does it get? Batches leased, begun and committed shard after shard.

    python benchmarks/ledger.py [--batches 20] [--rows 50000] [--folder DIR]

One process, as in the service; segments are names only. Prints, and writes to results/ledger.json, the CPU and the time
of one shard's life (lease, begin, commit), commits/s with the disk's fdatasync, and bytes per row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from measure.host import describe

from lsi_ray.ledger.records import Answers, Lease, NewBatch, SegmentRef
from lsi_ray.ledger.service_ledger import ServiceLedger

SHARD_ROWS = 64
LEASED = 16  # shards at a time, about a busy replica's appetite
RESULT = Path(__file__).parent / "results" / "ledger.json"


def fill(ledger: ServiceLedger, batches: int, rows: int) -> float:
    begun = time.perf_counter()
    for number in range(batches):
        batch_id = f"batch-{number}"
        ledger.create_batch(NewBatch(batch_id, "m", deadline=time.time() + 86_400 + number, caller=str(number % 7)))
        ledger.start_batch(batch_id, rows, rows, SHARD_ROWS)
    return time.perf_counter() - begun


def commit(ledger: ServiceLedger, session: int, lease: Lease) -> None:
    todo = ledger.begin(session, lease.shard_id, "replica")
    assert todo
    count = len(todo)
    answers = Answers(lease.batch_id, todo, (False,) * count, (500,) * count, (100,) * count, (0,) * count)
    ledger.commit(session, SegmentRef(f"{lease.shard_id}", 1, count, "0" * 64), answers)


def answer_all(ledger: ServiceLedger) -> int:
    session, request, shards = ledger.open_session("m"), 0, 0
    while True:
        request += 1
        answer = ledger.lease(session, LEASED * SHARD_ROWS, LEASED * SHARD_ROWS, request=request)
        if not answer.leases:
            return shards
        for lease in answer.leases:
            commit(ledger, session, lease)
        shards += len(answer.leases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        ledger = ServiceLedger(Path(folder) / "ledger.sqlite")
        fill_s = fill(ledger, arguments.batches, arguments.rows)
        cpu, clock = time.process_time(), time.perf_counter()
        shards = answer_all(ledger)
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        ledger.close()
    rows = arguments.batches * arguments.rows
    found = {
        "rows": rows,
        "shards": shards,
        "plan_s_per_million_rows": fill_s / rows * 1e6,
        "cpu_ms_per_shard": 1000 * cpu / shards,
        "ms_per_shard": 1000 * clock / shards,
        "commits_per_s": shards / clock,
        "rows_per_s": rows / clock,
        "bytes_per_row": size / rows,
    }
    for name, value in found.items():
        print(f"{name:26} {value:,.2f}")
    arguments.output.write_text(json.dumps({"host": describe(), "found": found}, indent=1))


if __name__ == "__main__":
    main()
