"""A model of one vLLM engine: continuous batching with chunked prefill, and a prefix cache of blocks under LRU.

Invariants: requests wait in order of arrival; a running one holds the blocks of its whole prompt and answer (vLLM takes
those of the answer one by one, and preempts where they run out: here nothing is preempted); blocks of a prompt can be
shared from the step in which they are scheduled, as in vLLM; what nobody holds is evicted least recently used first.

A step takes 1 unit, the time to read the weights once, or as long as its tokens' arithmetic takes, if that is longer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

BLOCK = 16
TOKENS_PER_UNIT = 256


@dataclass(slots=True)
class Work:
    """One request. `prefix`: what begins its prompt, as (identity, tokens) in order; the rest is its own."""

    number: int
    prefix: tuple[tuple[str, int], ...]
    prompt: int
    answer: int
    shard: int = 0
    left: int = 0
    """Prompt tokens to be computed."""
    said: int = 0
    held: list[tuple[str, int]] = field(default_factory=list)

    def blocks(self) -> list[tuple[str, int]]:
        """Of the whole prompt, full ones; a block belongs to all that stands before it."""
        found: list[tuple[str, int]] = []
        for end in range(BLOCK, self.prompt + 1, BLOCK):
            at, owner = 0, f"row {self.number}"
            for identity, tokens in self.prefix:
                at += tokens
                if end <= at:
                    owner = identity
                    break
            found.append((owner, end))
        return found


class Engine:
    def __init__(self, seats: int, step_tokens: int, cache_tokens: int) -> None:
        self._seats, self._step_tokens = seats, step_tokens
        self._room = cache_tokens // BLOCK
        self._uses: dict[tuple[str, int], int] = {}
        self._idle: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._answers = 0  # blocks of answers, which nobody shares
        self.waiting: deque[Work] = deque()
        self.running: list[Work] = []
        self.time = 0.0
        self.prompt_tokens = self.cached_tokens = 0
        self.starved = 0.0
        """Time with a free seat and nobody waiting."""

    def step(self) -> list[Work]:
        """Those that have finished."""
        self._admit()
        budget, computed = self._step_tokens - len(self.running), len(self.running)
        for work in self.running:
            part = min(work.left, budget)
            work.left -= part
            budget, computed = budget - part, computed + part
        took = max(1.0, computed / TOKENS_PER_UNIT)
        self.time += took
        self.starved += took * (1 - len(self.running) / self._seats) if not self.waiting else 0.0
        done = []
        for work in self.running:
            work.said += not work.left
            if work.said >= work.answer:
                done.append(work)
        for work in done:
            self._leave(work)
        return done

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._seats:
            work = self.waiting[0]
            blocks = work.blocks()
            known = 0
            while known < len(blocks) and (blocks[known] in self._uses or blocks[known] in self._idle):
                known += 1
            new = sum(block not in self._uses for block in blocks) - sum(
                block in self._idle for block in blocks[:known]
            )
            needed = new + -(-work.answer // BLOCK)
            taken = len(self._uses) + self._answers + sum(b in self._idle for b in blocks[:known])
            if self.running and taken + needed > self._room:
                return
            self._enter(self.waiting.popleft(), blocks, known)

    def _enter(self, work: Work, blocks: list[tuple[str, int]], known: int) -> None:
        known = min(known, (work.prompt - 1) // BLOCK)  # the last token is always computed
        work.left = work.prompt - known * BLOCK
        self.prompt_tokens += work.prompt
        self.cached_tokens += known * BLOCK
        for block in blocks:
            self._idle.pop(block, None)
            self._uses[block] = self._uses.get(block, 0) + 1
        self._answers += -(-work.answer // BLOCK)
        while self._idle and len(self._uses) + self._answers + len(self._idle) > self._room:
            self._idle.popitem(last=False)
        work.held = blocks
        self.running.append(work)

    def _leave(self, work: Work) -> None:
        self.running.remove(work)
        self._answers -= -(-work.answer // BLOCK)
        for block in reversed(work.held):  # the end of a prompt is forgotten before its beginning
            self._uses[block] -= 1
            if not self._uses[block]:
                del self._uses[block]
                self._idle[block] = None
