"""All that goes wrong: processes killed, disks full and damaged, clocks set, URLs revoked, the dead that go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sim_callers import Callers
from sim_disk import Fuse
from sim_world import World

from lsi_ray.errors import LsiError
from lsi_ray.ledger.invariants import check_invariants


class Faults:
    """`usual`: what is going on anyway, for faults that last a while."""

    def __init__(self, world: World, callers: Callers, usual: Sequence[Callable[[], None]]) -> None:
        self.world = world
        self.dice = world.dice
        self.callers = callers
        self.usual = usual

    def _did(self, what: str) -> None:
        self.world.happened[what] += 1
        self.world.say("fault:", what)

    def fuse(self) -> None:
        """Somebody dies within the next steps of the disk."""
        if self.world.disk.fuse is None:
            process = self.dice.choice([None, "service", "service"])
            steps = self.dice.choice([1, 3, 10, 30, 100])
            fuse = Fuse(process, self.dice.randint(1, steps), self.dice.random() < 0.4, self.dice.random() < 0.5)
            self.world.disk.fuse = fuse
            self.world.say("fuse", fuse)

    def kill_service(self) -> None:
        self._did("service killed between calls")
        self.world.restart()

    def stop_service(self) -> None:
        self._did("service stopped and started")
        self.world.stop_and_start()

    def kill_stream(self) -> None:
        if running := [stream for stream in self.world.streams.values() if stream.failure is None]:
            self._did("stream killed")
            self.dice.choice(running).stop("killed", zombie=self.dice.random() < 0.7)

    def undead(self) -> None:
        """What is left of a dead stream goes on for a while, beside the next one."""
        world = self.world
        zombies = [stream for stream in world.made if stream.zombie]
        if not zombies:
            return
        self._did("dead stream went on")
        zombie = self.dice.choice(zombies)
        if world.streams[zombie.model] is zombie:
            world.clock.pass_time(self.dice.choice([1.0, 31.0]))
            world.tick()
        if (successor := world.streams[zombie.model]) is not zombie and not successor.session:
            successor.step()
        for _ in range(self.dice.randint(3, 10)):
            zombie.step()
        check_invariants(world.service)

    def ghost(self) -> None:
        """A commit of a stream that is dead arrives."""
        if self.world.ghosts:
            self._did("late commit")
            stream, packet = self.world.ghosts.pop(self.dice.randrange(len(self.world.ghosts)))
            stream.commit(packet)

    def _live(self) -> list[Any]:
        return [stream for stream in self.world.streams.values() if stream.failure is None and stream.session]

    def lose_replica(self) -> None:
        if live := self._live():
            self._did("replica killed")
            self.dice.choice(live).lose_replica()

    def lose_for_good(self) -> None:
        if live := self._live():
            self._did("replica lost for good")
            self.dice.choice(live).lose_for_good()

    def engine_dies(self) -> None:
        if live := self._live():
            self._did("engine died")
            self.dice.choice(live).engine_dies()

    def kill_job(self) -> None:
        """One that waits to run, or is in the middle of it."""
        jobs = list(self.world.workers.jobs.values())
        if jobs:
            self._did("job killed")
            self.world.disk.kill(self.dice.choice(jobs).process)

    def jump(self) -> None:
        """Whoever sets it far ahead ends the time for which outputs are kept and webhooks tried."""
        self._did("clock jumped")
        seconds = self.dice.choice([-7200.0, -300.0, -5.0, 300.0, 4000.0, 90_000.0])
        self.world.clock.pass_time(seconds)
        if seconds >= 4000:
            numbers = [order.number for order in self.world.all_orders]
            self.world.broken |= {f"{what} {number}" for what in ("output", "hook") for number in numbers}

    def network(self) -> None:
        self._did("network weather")
        self.world.net.trouble = self.dice.choice([0.0, 0.3, 0.7])
        self.world.net.down = self.dice.random() < 0.15

    def break_url(self) -> None:
        """It expires or is revoked, whatever it was signed for."""
        if (order := self.callers.some()) is None:
            return
        kind = self.dice.choice(["input", "output", "hook"])
        self._did(f"{kind} URL revoked")
        paths = {
            "input": order.input_path(self.callers.issues[order.number]),
            "output": f"/out/{order.number}-{self.callers.issues[order.number]}.tar.gz",
            "hook": f"/{order.number}",
        }
        self.world.net.revoked.add(paths[kind])
        self.world.broken.add(f"{kind} {order.number}")

    def disk_full(self) -> None:
        self._did("disk full")
        disk = self.world.disk
        disk.full = True
        try:
            for _ in range(self.dice.randint(1, 5)):
                self.world.guarded(self.dice.choice(self.usual))
        except (OSError, LsiError) as error:  # what the actor's thread would log, and the API answer with 500
            self.world.say("no space", error)
        finally:
            disk.full = False

    def damage(self) -> None:
        """A durable segment loses bytes, or a bit, or is gone."""
        files = sorted(path for path in self.world.work.batches.glob("*/segments/*.seg") if path.stat().st_size)
        if not files:
            return
        path = self.dice.choice(files)
        self._did("segment damaged")
        if path.name.startswith("validation"):
            self.world.broken.add(f"validation {path.parent.parent.name}")
        data = bytearray(path.read_bytes())
        where = self.dice.randrange(len(data))
        match self.dice.choice(["flip", "cut", "gone"]):
            case "flip":
                data[where] ^= 1 << self.dice.randrange(8)
            case "cut":
                del data[where:]
            case "gone":
                path.unlink()
                return
        path.write_bytes(bytes(data))

    def stray_message(self) -> None:
        """A call in the name of a session that was replaced, about any shard: it changes nothing."""
        world = self.world
        with world.service.reading() as db:
            stale = db.execute(
                "SELECT session FROM sessions AS old WHERE session <"
                " (SELECT max(session) FROM sessions WHERE sessions.model = old.model)"
            ).fetchall()
            newest = db.execute("SELECT max(shard_id) FROM shards").fetchone()[0]
            before = db.execute("SELECT * FROM shards").fetchall()
        if not stale or newest is None:
            return
        self._did("stray message")
        session, shard_id = self.dice.choice(stale)[0], self.dice.randint(1, newest)
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("lease", (session, 64, 64)),
            ("begin", (session, shard_id, "r")),
            ("crash", (session, [shard_id], "stray")),
            ("release", (session, [shard_id])),
        ]
        name, args = self.dice.choice(calls)
        try:
            world.as_service(lambda: getattr(world.service, name)(*args))
        except LsiError as error:
            world.say("refused", error.code)
        with world.service.reading() as db:
            after = db.execute("SELECT * FROM shards").fetchall()
        world.checker.hold(before == after, name, args, "of a session that was replaced has changed a shard")
