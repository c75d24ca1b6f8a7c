"""Measures a candidate in a fresh process, and finds out why one failed.

The child is in a session of its own, so that Ctrl-C reaches the parent alone, which then ends it; and it ends with the
parent by the pipe that is its standard input.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from lsi_ray.config import Config
from lsi_ray.errors import ConfigError
from lsi_ray.tune.candidate import Candidate
from lsi_ray.tune.child import Task
from lsi_ray.tune.measurement import Measurement

_POLL_S = 0.1
_END_S = 30.0
# The cause of an engine's death stands in its log, above the front end's "see root cause above".
_ERROR = re.compile(r"(?:^|\s)(?:[\w.]*?)(\w+(?:Error|Exception|Interrupt)): (.+)")
_CONSEQUENCES = ("Engine core initialization failed", "WorkerProc initialization failed", "EngineCore", "cancelled")
_FAILURE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Runner:
    config: Config
    scratch: Path
    seconds: float
    """To measure a candidate for."""
    render_s: float
    limit_s: float
    """For all of one candidate: an engine that starts for longer has failed."""
    alive: Callable[[], None] = lambda: None
    """Called while a child runs; may raise to end it."""
    say: Callable[[str], None] = lambda _: None

    def measure(self, candidate: Candidate, beat: float) -> Measurement:
        """`beat` is a score, rows per second and GPU. Raises what `alive` raises."""
        try:
            config = candidate.applied(self.config)
        except ConfigError as error:
            return Measurement(failure=str(error))
        number = len(list(self.scratch.glob("task-*.json")))
        out, log = self.scratch / f"measured-{number}.json", self.scratch / f"log-{number}.txt"
        phase = self.scratch / f"phase-{number}.txt"
        task = Task(
            config.model_dump(mode="json"),
            str(self.scratch),
            self.seconds,
            self.render_s,
            beat * max(config.engine.gpus, 1),
            str(out),
            str(phase),
        )
        path = self.scratch / f"task-{number}.json"
        path.write_bytes(msgspec.json.encode(task))
        ended = self._run(path, log, phase)
        if not out.exists():
            return Measurement(failure=root_cause(log) or ended)
        measured = msgspec.json.decode(out.read_bytes(), type=Measurement)
        if measured.failure is not None and (cause := root_cause(log)):
            return replace(measured, failure=cause)
        return measured

    def _run(self, task: Path, log: Path, phase: Path) -> str:
        """How the child ended, in words."""
        with log.open("wb") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "lsi_ray.tune.child", str(task)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        said = ""
        deadline = time.monotonic() + self.limit_s
        try:
            while child.poll() is None:
                if time.monotonic() > deadline:
                    return f"it was not done after {self.limit_s:.0f} s"
                self.alive()
                doing = phase.read_text() if phase.exists() else ""
                if doing not in ("", said):  # empty: it is just being written
                    said = doing
                    self.say(said)
                time.sleep(_POLL_S)
            return f"its process ended with {_status(child.returncode)}"
        finally:
            _end(child)


def root_cause(log: Path) -> str | None:
    """The last error in a log that is not the consequence of another."""
    lines = log.read_text(errors="replace").splitlines()
    found = [match for line in lines if (match := _ERROR.search(line)) and not match[2].startswith(_CONSEQUENCES)]
    return f"{found[-1][1]}: {found[-1][2]}"[:_FAILURE_CHARS] if found else None


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL to its whole session: it, and what of the engine is still there."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    assert child.stdin is not None
    child.stdin.close()
    child.wait(_END_S)


def _status(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
