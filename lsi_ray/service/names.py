"""What the service's actors are called, so that every process of a cluster finds them."""

from __future__ import annotations

import hashlib

NAMESPACE = "lsi"
SERVICE = "service"
APP = "lsi"
STREAM_PREFIX = "stream-"


def stream_name(model: str) -> str:
    return STREAM_PREFIX + hashlib.sha256(model.encode()).hexdigest()[:12]
