"""When something that fails is tried again: waits that double, five minutes at most."""

from __future__ import annotations

from collections.abc import Callable

_FIRST_WAIT_S, _LONGEST_WAIT_S = 2.0, 300.0


class RetryTimes:
    """By key; nothing of it survives a restart, after which everything is tried at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[object, int] = {}
        self._not_before: dict[object, float] = {}

    def due(self, key: object) -> bool:
        return self._not_before.get(key, 0.0) <= self._clock()

    def failed(self, key: object) -> int:
        """The number of failures in a row, this one included."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._not_before[key] = self._clock() + min(_FIRST_WAIT_S * 2.0 ** (count - 1), _LONGEST_WAIT_S)
        return count

    def forget(self, key: object) -> None:
        self._failures.pop(key, None)
        self._not_before.pop(key, None)
