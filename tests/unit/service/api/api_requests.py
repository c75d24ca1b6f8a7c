"""What the API's tests send, and where: requests, a clock, a real server on the loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import uvicorn
from fastapi import FastAPI

from lsi_ray.service.api.settings import Rate, Rates

FAST = Rates(**{kind: Rate(per_second=1000, burst=1000) for kind in ("lsi_writes", "openai_writes", "reads")})
SECRET = "c0ffee5ec12e7"


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def serve(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(5)


def signed(now: float, seconds: float, name: str = "in.tar.gz") -> str:
    """A pre-signed URL as S3 makes it, with a signature that must show up nowhere."""
    date = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    return str(
        httpx.URL(
            f"https://bucket.s3.eu-central-1.amazonaws.com/jobs/{name}",
            params={
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Date": date,
                "X-Amz-Expires": str(int(seconds)),
                "X-Amz-Signature": SECRET,
            },
        )
    )


def lsi_body(clock: Clock, **changes: object) -> dict[str, object]:
    return {
        "input_file_uri": signed(clock.now, 8 * 86_400),
        "output_file_uri": signed(clock.now, 8 * 86_400, "out.tar.gz"),
        "endpoint": "/v1/chat/completions",
        "model_id": "Qwen/Qwen2.5-VL-32B-Instruct",
        "completion_window": "7d",
        "store": "s3",
        "metadata": {"k": "v"},
    } | changes
