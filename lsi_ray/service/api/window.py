"""Completion windows: a whole number and one of m, h, d, w. Strict, because one gateway read `7days` as 24 hours."""

from __future__ import annotations

import re

PATTERN = r"^[1-9][0-9]{0,5}[mhdw]$"
UNIT_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
UNIT_NAMES = {"m": "minutes", "h": "hours", "d": "days"}


def parse_window(text: str) -> float:
    """Seconds. Raises ValueError that says how to write it."""
    if not re.fullmatch(PATTERN[1:-1], text):
        shown = f"{text[:20]!r}{'...' if len(text) > 20 else ''}"
        raise ValueError(f"{shown} is not a time: write a whole number and m, h, d or w, such as 15m, 24h, 7d, 2w")
    return float(int(text[:-1]) * UNIT_S[text[-1]])


def check_window(text: str, least: str, most: str) -> float:
    """Seconds, within the bounds. Raises ValueError."""
    seconds = parse_window(text)
    if not parse_window(least) <= seconds <= parse_window(most):
        raise ValueError(f"{text} is not between {least} and {most}")
    return seconds


def show_duration(seconds: float) -> str:
    """About how long, for people: 45 s, 12 minutes, 3.5 hours, 6.9 days."""
    for unit, least in (("d", 2 * 86_400), ("h", 2 * 3600), ("m", 120)):
        if seconds >= least:
            return f"{seconds / UNIT_S[unit]:.3g} {UNIT_NAMES[unit]}"
    return f"{seconds:.0f} s"
