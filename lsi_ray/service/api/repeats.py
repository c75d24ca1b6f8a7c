"""When two POSTs are the same request: by Idempotency-Key where given, else by their content.

The OpenAI SDK sends a POST again, up to twice, after 408, 409, 429, 5xx or a lost connection, without a key.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.backend import Repeat, ServiceError

REPLAYED = "Idempotent-Replayed"
KEY_PATTERN = r"^[\x21-\x7e]{1,255}$"


def repeat_of(path: str, body: Any, key: str | None, settings: ApiSettings, index: int | None = None) -> Repeat:
    """`body` is decoded JSON: its spelling does not matter. Requests of one array differ by their `index`, so that two
    alike in one array are two batches while the array sent again is none. Raises ServiceError
    `invalid_idempotency_key`."""
    if key is not None and not re.fullmatch(KEY_PATTERN[1:-1], key):
        raise ServiceError(
            "invalid_idempotency_key",
            "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces",
            param="Idempotency-Key",
        )
    content = json.dumps([path, body, index], sort_keys=True).encode()
    if key is not None and index is not None:
        key = f"{key}#{index}"
    return Repeat(hashlib.sha256(content).hexdigest(), key, settings.repeat_within_s)
