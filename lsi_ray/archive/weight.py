"""How much work a row is, as far as its text tells: for estimates, never for limits."""

from __future__ import annotations

from lsi_ray.archive.fields import EMBEDDINGS
from lsi_ray.archive.rows import Request


def prompt_bytes(request: Request, line_length: int) -> int:
    """Of text: the line less what `data:` URLs take in it, four characters for three bytes."""
    inline = sum(len(ref.data) for ref in request.media if ref.data is not None)
    return max(line_length - (4 * inline + 2) // 3, 0)


def most_tokens(request: Request, limit: int) -> int:
    """That its answers may have, all `n` together; `limit` stands for what a row leaves to the model."""
    if request.url == EMBEDDINGS:
        return 0
    body = request.body
    named = body.get("max_completion_tokens") or body.get("max_tokens") or limit
    return int(named) * int(body.get("n") or 1)
