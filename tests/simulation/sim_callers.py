"""Callers: they order batches, ask again when no answer came, look, cancel, change and retry. All by the dice."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sim_orders import Order, again, draw
from sim_world import World

from lsi_ray.errors import LsiError
from lsi_ray.ledger.service_records import File
from lsi_ray.service.backend import Patch, ServiceError
from lsi_ray.service.file_store import FileStore, new_file_id


class Callers:
    """`issues`: how often an order's URLs were renewed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.dice
        self.planned = self.dice.choice([1, 1, 2, 2, 3])
        self.issues: Counter[int] = Counter()

    def order(self) -> None:
        world = self.world
        if len(world.orders) >= self.planned:
            return
        order = draw(self.dice, len(world.orders))
        world.orders.append(order)
        self.know(order)
        self.send(order)

    def know(self, order: Order) -> None:
        world = self.world
        if order.in_url:
            world.net.objects[order.input_path()] = order.input_bytes()
        for row, kind in enumerate(order.kinds):
            world.kinds[order.custom_id(row)] = kind

    def send_again(self) -> None:
        """A caller that had no answer asks again, and one that had may too."""
        if (order := self.some()) is not None:
            self.send(order)

    def send(self, order: Order) -> None:
        world = self.world
        if not order.in_url and order.file_id is None and not self._upload(order):
            return
        if order.first_sent is None:
            order.first_sent = world.clock.now
        elif order.key is None and (order.ids or abs(world.clock.now - order.first_sent) > 60):
            return
        try:
            if order.retry_of is None:
                made, _ = self.ask("submit", order.caller, order.submission())
            else:
                made, _ = self.ask("retry", order.caller, order.retry_of, order.retry())
        except ServiceError as error:
            world.say("refused", order.number, error.code)
            order.refused = True
            return
        batch_id = made.batch.batch_id
        order.ids.add(batch_id)
        world.say("acknowledged", order.number, batch_id)
        world.checker.hold(len(order.ids) == 1, "order", order.number, "made", order.ids)
        world.checker.acknowledged[batch_id] = order

    def _upload(self, order: Order) -> bool:
        """As ray_backend.create_file, in the API's process. Whether it was acknowledged."""
        world = self.world
        with world.running("api"):
            store = FileStore(world.work.path)
            temporary, file = store.begin()
            file.write(order.input_bytes())
            file_id = new_file_id()
            size = store.finish(temporary, file, file_id)
        now = world.clock.now
        record = File(file_id, order.caller.id, "in.jsonl", size, "batch", now, now + 30 * 86400.0)
        with world.running("service"):
            world.service.ask_files("add", order.caller, record)
        order.file_id = file_id
        world.say("uploaded", order.number, file_id)
        return True

    def ask(self, name: str, *args: Any) -> Any:
        """Once: whoever has no answer does not know whether it was done."""
        with self.world.running("service"):
            return self.world.service.ask(name, *args)

    def some(self) -> Order | None:
        everything = self.world.all_orders
        return self.dice.choice(everything) if everything else None

    def _mine(self) -> tuple[Order, str] | None:
        """An acknowledged batch and its order."""
        known = self.world.checker.acknowledged
        if not known:
            return None
        batch_id = self.dice.choice(list(known))
        return known[batch_id], batch_id

    def _on_mine(self, name: str, *more: Any) -> Any:
        if (mine := self._mine()) is None:
            return None
        order, batch_id = mine
        try:
            self.world.say(name, batch_id)
            return self.ask(name, order.caller, batch_id, *more)
        except LsiError as error:
            self.world.say("refused", error.code)
            return None

    def look_up(self) -> None:
        self._on_mine("get")

    def cancel(self) -> None:
        self._on_mine("cancel")

    def archive(self) -> None:
        self._on_mine("archive")

    def patch(self) -> None:
        if (mine := self._mine()) is None:
            return
        order, batch_id = mine
        kind = self.dice.choice(["window", "output", "priority"])
        self.world.say("patch", batch_id, kind)
        patch = {
            "window": Patch(window="x", window_s=self.dice.choice([60.0, 3600.0, 90_000.0])),
            "output": self.new_urls(order),
            "priority": Patch(priority=self.dice.randint(-5, 5)),
        }[kind]
        try:
            self.ask("patch", order.caller, batch_id, patch)
        except ServiceError as error:
            self.world.say("refused", error.code)

    def new_urls(self, order: Order) -> Patch:
        self.issues[order.number] += 1
        issue = self.issues[order.number]
        source = order.input_url(issue) if order.in_url else None
        if source is not None:
            self.world.net.objects[order.input_path(issue)] = order.input_bytes()
        return Patch(input_url=source, output_url=order.output_url(issue) if order.out_url else None)

    def retry(self) -> None:
        """Ask for the failed rows of an ended batch again."""
        world = self.world
        if (mine := self._mine()) is None:
            return
        old, batch_id = mine
        batch = world.service.batch(batch_id)
        if not batch.status.terminal or batch_id in world.retries or old.hopeless or old.retry_of is not None:
            return
        failed = world.service.failed_rows(batch_id)
        if failed == ():
            return
        rows = range(len(old.kinds)) if failed is None else failed
        number = 100 + len(world.retries)
        order = world.retries[batch_id] = again(old, number, rows, batch_id)
        self.know(order)
        self.send(order)
