"""The names of fields on the wire, where the service's own words are others: the one place that maps them.

Inside, a batch has an `input_url` and an `output_url`; both surfaces call them `input_file_uri` and `output_file_uri`
(OpenAI's has no word of its own: there, URLs occur in PATCH and retry only).
"""

from __future__ import annotations

import re

_NAMES = {"input_url": "input_file_uri", "output_url": "output_file_uri"}
_WORDS = re.compile(r"\b(?:input_url|output_url)\b")


def wire_name(field: str | None) -> str | None:
    return _NAMES.get(field, field) if field is not None else None


def in_wire_words(text: str) -> str:
    """A message for callers. Codes such as `input_url_expired` stay as they are."""
    return _WORDS.sub(lambda found: _NAMES[found[0]], text)
