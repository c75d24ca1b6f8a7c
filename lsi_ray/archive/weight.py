"""How much work a row is, as far as its text and its files tell: for estimates and order, never for limits."""

from __future__ import annotations

from collections.abc import Mapping

from lsi_ray.archive.fields import EMBEDDINGS
from lsi_ray.archive.index import Member
from lsi_ray.archive.media_refs import MediaRef
from lsi_ray.archive.rows import Request

_BYTES_PER_TOKEN = 4  # of text
_PIXEL_BYTES_PER_TOKEN = 28 * 28 * 3  # of an image, as Qwen-VL has it
_RENDERED_PER_FILE = 16  # a byte of JPEG or H.264 becomes 10 to 20 of pixels
_RENDERED_BYTES = {"image": (2**19, 2**24), "video": (2**22, 2**26)}
"""From small pictures up to the pixel budgets of the models, whatever the file."""


def prompt_bytes(request: Request, line_length: int) -> int:
    """Of text: the line less what `data:` URLs take in it, four characters for three bytes."""
    inline = sum(len(ref.data) for ref in request.media if ref.data is not None)
    return max(line_length - (4 * inline + 2) // 3, 0)


def rendered_bytes(request: Request, members: Mapping[str, Member]) -> int:
    """Of its media as pixels: what makes a rendered row large."""
    return sum(_rendered(ref, members) for ref in request.media)


def _rendered(ref: MediaRef, members: Mapping[str, Member]) -> int:
    size = len(ref.data or b"") if ref.member is None else members[ref.member].size
    least, most = _RENDERED_BYTES[ref.kind]
    return min(max(_RENDERED_PER_FILE * size, least), most)


def prompt_tokens(text_bytes: int, media_bytes: int) -> int:
    return text_bytes // _BYTES_PER_TOKEN + media_bytes // _PIXEL_BYTES_PER_TOKEN


def most_tokens(request: Request, limit: int) -> int:
    """That its answers may have, all `n` together; `limit` stands for what a row leaves to the model."""
    if request.url == EMBEDDINGS:
        return 0
    body = request.body
    named = body.get("max_completion_tokens") or body.get("max_tokens") or limit
    return int(named) * int(body.get("n") or 1)
