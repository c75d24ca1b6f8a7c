"""Keeps an engine full with the rows of a sample, again and again, until its steady rate is known.

Each pass over the sample has a cache salt of its own, so that rows find in the prefix cache what their own pass put
there and nothing else: as in a batch of which the sample is a part.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from lsi_ray.engine import Engine, Finisher, Payload
from lsi_ray.errors import EngineError, RowError
from lsi_ray.tune.measurement import Window, steady
from lsi_ray.tune.sample import Rendered

_BEHIND = 1.25
"""A candidate that would not reach the best with a quarter more is given up at half its time."""
_LONGEST = 3
"""Times the time asked for, to let the slow ones end three waves."""
_WAVES = 3
_LOOK_S = 0.2


@dataclass(slots=True)
class Fed:
    begin: float
    ends: list[float] = field(default_factory=list)
    """When each row left the engine, in order."""
    generated: list[Payload] = field(default_factory=list)
    """What it gave, as `ends`."""
    refused: str = ""
    """Why the last row that the engine refused was refused."""
    cut: bool = False


class Feeder:
    def __init__(self, engine: Engine, rows: Rendered, seats: int) -> None:
        self._engine = engine
        self._rows = rows
        self._seats = seats
        self._next = 0

    async def run(self, seconds: float, beat_rows_per_s: float) -> Fed:
        """Raises EngineError when the engine dies."""
        fed = Fed(time.monotonic())
        # As the stream does: twice as many rows in the engine as it can run, so that none is missing when one ends.
        workers = [asyncio.ensure_future(self._feed(fed)) for _ in range(2 * self._seats)]
        try:
            while not self._enough(fed, seconds, beat_rows_per_s):
                done, _ = await asyncio.wait(workers, timeout=_LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
                for worker in done:
                    worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return fed

    async def _feed(self, fed: Fed) -> None:
        while True:
            number, self._next = self._next, self._next + 1
            turn, row = divmod(number, len(self._rows))
            try:
                generated = await self._engine.generate(self._rows.read(row), f"tune-{number}", 0, f"pass-{turn}")
            except RowError as error:
                fed.refused = str(error)
                if not fed.ends and number > 4 * len(self._rows):
                    raise EngineError(f"the engine refuses every row: {error}") from None
                await asyncio.sleep(0)
                continue
            fed.ends.append(time.monotonic())
            fed.generated.append(generated)

    def _enough(self, fed: Fed, seconds: float, beat_rows_per_s: float) -> bool:
        passed = time.monotonic() - fed.begin
        if passed >= _LONGEST * seconds:
            return True
        if len(fed.ends) < _WAVES * self._seats:
            return False
        fed.cut = passed >= seconds / 2 and rate(self.window(fed)) * _BEHIND < beat_rows_per_s
        return fed.cut or passed >= seconds

    def window(self, fed: Fed, running: int = 0) -> Window:
        """`running`: the most rows that ran at once, where it is known: fewer than may are the real wave."""
        return steady(fed.ends, fed.begin, min(running, self._seats) or self._seats)


def rate(window: Window) -> float:
    return (window.last - window.first) / window.seconds if window.seconds > 0 else 0.0


def tokens(finisher: Finisher, generated: list[Payload]) -> tuple[int, int]:
    """Prompt and output tokens of these rows, counted by the finisher after the clock has stopped."""
    prompt = output = 0
    for one in generated:
        try:
            answer = finisher.finish(one, "tune")
        except RowError:  # an answer that a parser refuses; its tokens are unknown, and it was work all the same
            continue
        prompt += answer.prompt_tokens
        output += answer.completion_tokens
    return prompt, output
