"""The invariants of a running service, in one place. `look` after every step, `at_end` when all should be over.

conservation   every delivered batch holds each row of its input once, as a right answer or an error that is due
history        statuses move along the declared graph, and no restart takes one back that was seen
counts         never fall (but by a declared disown), and stand still once the batch is terminal
no effect      nothing is put, and nobody is told another story, once a batch is terminal
acknowledged   is found by its caller, and by nobody else, after any crash
one output     never two different bodies to one URL, nor two events for one end
erased         nothing of the user's is left in the work dir
poison         costs at most three engines; who is blamed was there
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sim_orders import FAILURES, Order

from lsi_ray.errors import LsiError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.states import TRANSITIONS, BatchStatus
from lsi_ray.service.file_store import FileStore

if TYPE_CHECKING:
    from sim_world import World

RowKey = tuple[str, int]
EARLY = {"expired": "batch_expired", "cancelled": "batch_cancelled"}
"""The code of rows that a batch left when it ended so."""


class BrokenError(BaseException):
    """An invariant does not hold. BaseException, so that nothing of the product's takes it for a fault to survive."""


@dataclass(slots=True)
class Seen:
    """What was last seen of a batch."""

    history: tuple[str, ...] = ()
    counts: tuple[int, int] = (0, 0)
    erased: bool = False
    rows: int = 0


@dataclass(slots=True)
class Checker:
    world: World
    batches: dict[str, Seen] = field(default_factory=dict)
    puts: dict[str, str] = field(default_factory=dict)
    delivered: set[str] = field(default_factory=set)
    """Batches of which an archive has arrived."""
    events: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    changes: int = 0
    _last: tuple[object, int] | None = None
    disowned: set[str] = field(default_factory=set)
    acknowledged: dict[str, Order] = field(default_factory=dict)
    deaths: Counter[RowKey] = field(default_factory=Counter)
    excused: Counter[RowKey] = field(default_factory=Counter)
    hits: Counter[RowKey] = field(default_factory=Counter)
    """Ends of engines and streams that a row was in, and of these the ones that no row had caused."""
    strays: Counter[RowKey] = field(default_factory=Counter)

    def hold(self, condition: bool, *what: object) -> None:
        if not condition:
            raise BrokenError(" ".join(map(str, what)))

    # -- every step

    def look(self) -> None:
        with self.world.service.reading() as db:
            if self._last == (db, db.total_changes):
                return
            self._last = (db, db.total_changes)
            rows = db.execute(
                "SELECT batch_id, completed, failed, rows_total, erased, group_concat(passed) FROM"
                " (SELECT batch_no, status AS passed FROM history ORDER BY batch_no, step)"
                " JOIN batches USING (batch_no) JOIN counts USING (batch_no) GROUP BY batch_no"
            ).fetchall()
        found = {row[0]: row for row in rows}
        for batch_id in self.acknowledged:
            self.hold(batch_id in found, batch_id, "was acknowledged and is gone")
        for batch_id, row in found.items():
            self._look_at(batch_id, (row[1], row[2]), row[3], bool(row[4]), tuple(row[5].split(",")))

    def _look_at(self, batch_id: str, counts: tuple[int, int], total: int, erased: bool, path: tuple[str, ...]) -> None:
        seen = self.batches.get(batch_id)
        if seen is None:
            seen = self.batches[batch_id] = Seen()
        if (seen.history, seen.counts, seen.erased) == (path, counts, erased):
            return
        self.hold(path[: len(seen.history)] == seen.history, batch_id, "was", seen.history, "and is", path)
        for before, after in pairwise(path):
            self.hold(after in TRANSITIONS[BatchStatus(before)], batch_id, before, "->", after, "is not declared")
        fell = counts[0] < seen.counts[0] or counts[1] < seen.counts[1]
        self.hold(not fell or batch_id in self.disowned, batch_id, "fell from", seen.counts, "to", counts)
        self.hold(not (seen.rows and total != seen.rows), batch_id, "has", total, "rows, had", seen.rows)
        self.hold(sum(counts) <= total or not total, batch_id, counts, "of", total)
        over = bool(seen.history) and BatchStatus(seen.history[-1]).terminal
        self.hold(not over or counts == seen.counts, batch_id, "ended with", seen.counts, "and has", counts)
        terminal = BatchStatus(path[-1]).terminal
        self.hold(terminal or self.world.work.batch(batch_id).path.exists(), batch_id, path[-1], "without its folder")
        self.hold(terminal or not erased, batch_id, path[-1], "is erased")
        self.changes += 1
        seen.history, seen.counts, seen.erased, seen.rows = path, counts, erased, total
        self.world.say("is", batch_id, path[-1], *counts, "erased" if erased else "")

    def status(self, batch_id: str) -> BatchStatus | None:
        with self.world.service.reading() as db:
            row = db.execute("SELECT status FROM batches WHERE batch_id = ?", (batch_id,)).fetchone()
            return BatchStatus(row[0]) if row else None

    def crashed(self, rows: list[RowKey], cause: RowKey | None, *, blamed: bool) -> None:
        """An engine with these rows in it is gone. `blamed`: the ledger was told."""
        for row in rows:
            self.hits[row] += 1
            self.strays[row] += cause is None
        if cause is not None:
            self.deaths[cause] += 1
            self.excused[cause] += not blamed
            deaths, excused = self.deaths[cause], self.excused[cause]
            self.hold(deaths <= 3 + excused, cause, "cost", deaths, "engines, excused", excused)

    def interrupted(self, rows: list[RowKey]) -> None:
        """Their stream ended: not one of them is to blame, and yet they may be blamed."""
        self.crashed(rows, None, blamed=False)
        self.excused.update(rows)

    # -- effects

    def put(self, path: str, body: bytes) -> None:
        digest = hashlib.sha256(body).hexdigest()
        known = self.puts.setdefault(path, digest)
        self.world.say("put", path, len(body), digest[:12])
        self.hold(known == digest, path, "got two different bodies")
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            parts = {name: _read(tar, name) for name in tar.getnames()}
        manifest = json.loads(parts["manifest.json"])
        batch_id = manifest["batch_id"]
        status = self.status(batch_id)
        self.hold(status is not None and not status.terminal, batch_id, "is", status, "and sends its output")
        order = self.world.order_of(batch_id)
        assert order is not None
        self.hold(str(order.number) == path.split("/")[-1].split("-")[0], batch_id, "wrote to", path)
        self.rows(batch_id, order, manifest["status"], parts["output.jsonl"], parts.get("error.jsonl", b""))
        self.delivered.add(batch_id)

    def rows(self, batch_id: str, order: Order, outcome: str, output: bytes, errors: bytes) -> None:
        """Each row of the order once, in order, with the only right answer or a code that is due."""
        answered = [json.loads(line) for line in output.splitlines()]
        failed = [json.loads(line) for line in errors.splitlines()]
        expected = {order.custom_id(row): row for row in range(len(order.kinds))}
        ids = [line["custom_id"] for line in answered], [line["custom_id"] for line in failed]
        all_ids = Counter(ids[0] + ids[1])
        self.hold(
            all_ids == Counter(expected.keys()), batch_id, "has the rows", sorted(all_ids.items()), "of", len(expected)
        )
        for part in ids:
            self.hold(part == sorted(part, key=expected.__getitem__), batch_id, "is out of order")
        for line in answered:
            row = expected[line["custom_id"]]
            text = line["response"]["body"]["choices"][0]["message"]["content"]
            self.hold(order.kinds[row] == "ok" and text == order.answer(row), batch_id, "row", row, "says", text)
        for line in failed:
            self._failed_row(batch_id, order, outcome, expected[line["custom_id"]], line)

    def _failed_row(self, batch_id: str, order: Order, outcome: str, row: int, line: dict[str, Any]) -> None:
        error = line["error"] or line["response"]["body"]["error"]
        due = FAILURES.get(order.kinds[row], set())
        # Cancelled after it was packed: the output is that of an expired batch.
        early = EARLY.values() if outcome == "cancelled" else [EARLY.get(outcome)]
        if error["code"] in due or error["code"] in early:
            return
        key = (batch_id, row)
        blamed = error["code"] in ("engine_crashed", "engine_timeout") and self.hits[key] >= 3 and self.strays[key] >= 1
        what = (batch_id, "row", row, order.kinds[row], "failed with", error["code"], self.hits[key], self.strays[key])
        self.hold(blamed, *what)

    def told(self, path: str, body: bytes) -> None:
        event = json.loads(body)
        batch_id, status = event["data"]["id"], event["type"].removeprefix("batch.")
        self.world.say("told", path, status)
        self.events[batch_id].add(body.decode())
        now = self.status(batch_id)
        self.hold(now is not None and now.terminal and now == status, batch_id, "is", now, "and tells of", status)
        self.hold(len(self.events[batch_id]) == 1, batch_id, "tells two stories", self.events[batch_id])

    # -- the end

    def at_end(self) -> None:
        check_invariants(self.world.service)
        for batch_id, order in self.acknowledged.items():
            self._ended(batch_id, order)
        self._nothing_left()

    def _ended(self, batch_id: str, order: Order) -> None:
        with self.world.disk.running("service"):
            mine = self.world.service.desk.get(order.caller, batch_id)
            other = next(caller for caller in self.world.callers if caller != order.caller)
            try:
                self.world.service.desk.get(other, batch_id)
                self.hold(False, batch_id, "is shown to", other.id)
            except LsiError as error:
                self.hold(error.code == "not_found", batch_id, "says", error.code)
        batch, state = mine.batch, mine.state  # type: ignore[attr-defined]
        self.hold(batch.status.terminal and batch.erased, batch_id, "is", batch.status, batch.erased)
        if batch.status == BatchStatus.FAILED:
            codes = {finding.code for finding in batch.findings}
            self.hold(codes <= self.world.may_fail_with(order), batch_id, "failed with", codes)
        elif batch.shard_rows and not any("could not be delivered" in warning for warning in state.warnings):
            self._delivered(batch_id, order, batch.status, (state.output_file_id, state.error_file_id))
        if order.webhook and not self.world.deaf(order):
            self.hold(len(self.events[batch_id]) == 1, batch_id, "told nobody of its end")

    def _delivered(self, batch_id: str, order: Order, status: str, files: tuple[str | None, str | None]) -> None:
        if order.out_url:
            self.hold(batch_id in self.delivered, batch_id, "is", status, "without its output")
            return
        store = FileStore(self.world.work.path)
        parts = [store.path(name).read_bytes() if name is not None else b"" for name in files]
        self.rows(batch_id, order, status, parts[0], parts[1])

    def _nothing_left(self) -> None:
        left = list((self.world.work.batches).iterdir())
        self.hold(not left, "folders are left:", left)
        markers = [order.marker.encode() for order in self.world.orders if order.in_url and order.out_url and order.ids]
        for path, data in self._files():
            for marker in markers:
                self.hold(marker not in data, path, "still holds", marker)
            self.hold(b"X-Amz-Signature" not in data, path, "holds a signature")

    def _files(self) -> Iterator[tuple[str, bytes]]:
        for path in sorted(self.world.work.path.rglob("*")):
            if path.is_file() and path.parent.name != "files":
                yield path.name, path.read_bytes()


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()
