"""What one row, and all rows together, may cost at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowLimits:
    line_bytes: int = 16 << 20
    """One line of jobs.jsonl. Media as `data:` URLs are what makes lines long; files in the archive cost less."""
    rows: int = 1_000_000
    """Rows of one batch. A row costs about 70 bytes while the batch is validated, a bad one about 400."""
    max_tokens: int = 131_072
    """Highest max_tokens and min_tokens; deployments set it to the context length of the model."""
    messages: int = 4096
    """Messages of one request, and parts of one message."""
    media: int = 256
    """Images and videos of one request. The model's own, usually lower limit is checked where it is rendered."""
    media_bytes: int = 512 << 20
    """One referenced file, compressed as it lies in the archive; it is read as a whole."""


DEFAULT_ROW_LIMITS = RowLimits()
