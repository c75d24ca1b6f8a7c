"""One `lsi serve` on a Ray of its own with limits on, whose every secret is known, for the tests that look for leaks,
open doors and crowds."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from runs import TOKEN
from service_process import Service, Storage

CANARY = f"canary{secrets.token_hex(8)}"
BODY_TIMEOUT_S = 2.0
WRITES_PER_S = 5.0
CONFIG = "model: lsi/simulated\nengine: {type: simulated, max_num_seqs: 64, tokens_per_second: 40}\n"
DEPLOY = f"""
models: [{{config: sim.yaml, idle_timeout_s: 600}}]
api:
  url_schemes: http
  url_private: true
  body_timeout_s: {BODY_TIMEOUT_S}
  rates: {{lsi_writes: {{per_second: {WRITES_PER_S}, burst: 20}}}}
admission: {{refuse: false}}
"""


def signed_query() -> str:
    """As S3 signs, with the canary in each of the secret values."""
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={CANARY}cred%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"
        f"&X-Amz-Date={date}&X-Amz-Expires=604800&X-Amz-SignedHeaders=host"
        f"&X-Amz-Security-Token={CANARY}session&X-Amz-Signature={CANARY}signature"
    )


class Guarded(Service):
    """Keeps every answer it gets; `secrets` are the words that must be nowhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, DEPLOY, {"sim.yaml": CONFIG})
        self.environment = dict(TOKEN)
        self.answers: list[httpx.Response] = []
        self.other = ""

    def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        answer = super().call(method, path, **how)
        self.answers.append(answer)
        return answer

    def patient(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Waits where it is told to."""
        while (answer := self.call(method, path, **how)).status_code == 429:
            time.sleep(0.2)
        return answer

    @property
    def secrets(self) -> list[bytes]:
        tokens = [token.rpartition("-")[2] for token in (self.token, self.other)]
        words = [CANARY, *tokens, TOKEN["RAY_AUTH_TOKEN"]]
        return [word.encode() for word in words] + [base64.b64encode(CANARY.encode())[:16]]

    def leaks(self, data: bytes) -> list[str]:
        return [word.decode() for word in self.secrets if word in data]

    @property
    def session(self) -> Path:
        """Ray's folder: logs, events, sockets."""
        for process in self.tree():
            for word in process.cmdline():
                if word.startswith(("--session_dir=", "--session-dir=")):
                    return Path(word.partition("=")[2])
        raise AssertionError("no raylet")

    def listeners(self) -> list[tuple[psutil.Process, str, int]]:
        members = {process.pid: process for process in self.tree()}
        return [
            (members[found.pid], found.laddr.ip, found.laddr.port)
            for found in psutil.net_connections("tcp")
            if found.pid in members and found.status == psutil.CONN_LISTEN
        ]


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    service = Guarded(tmp_path_factory.mktemp("guarded"))
    service.start()
    service.other = service.new_token("other")
    yield service
    service.stop()


@pytest.fixture(scope="session")
def gossip() -> Iterator[Storage]:
    """Storage whose URLs hold the canary, and whose errors repeat them."""
    storage = Storage(signed_query())
    yield storage
    storage.close()


def private_bytes(processes: list[psutil.Process], title: str) -> int:
    """Without what is shared with others: Ray's object store."""
    found = [one.memory_info() for one in processes if (one.cmdline() or [""])[0].startswith(title)]
    assert found, title
    return sum(memory.rss - memory.shared for memory in found)
