"""What an engine's scheduler had to do while it was watched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    running_max: int = 0
    """The most rows that ran at once; 0 where it is not known."""
    kv_used_max: float = 0.0
    """Of the KV cache, 0 to 1."""
    kv_tokens: int = 0
    """That the KV cache holds."""
    preemptions: int = 0
    """Rows thrown out of the KV cache, whose work is done again."""
