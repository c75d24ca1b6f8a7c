"""A real `lsi serve` in a process of its own, with a small storage that remembers every upload; and ways to hurt it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sysconfig
import tarfile
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil

LSI = Path(sysconfig.get_path("scripts")) / "lsi"
MODEL = "lsi/simulated"


class Storage:
    """GET and PUT by path, as pre-signed URLs; `refused` paths answer 403. `puts` holds the digest of every upload."""

    def __init__(self, query: str = "X-Amz-Signature=topsecretsignature") -> None:
        self.query = query
        self.objects: dict[str, bytes] = {}
        self.puts: dict[str, list[str]] = defaultdict(list)
        self.refused: set[str] = set()
        self.events: list[dict[str, Any]] = []
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                self._answer(storage.objects.get(path), 403 if path in storage.refused else 404)

            def do_PUT(self) -> None:
                path, body = self.path.partition("?")[0], self._body()
                if path in storage.refused:
                    self._answer(None, 403)
                    return
                storage.objects[path] = body
                storage.puts[path].append(hashlib.sha256(body).hexdigest())
                self._answer(b"")

            def do_POST(self) -> None:
                storage.events.append(json.loads(self._body()))
                self._answer(b"")

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers["Content-Length"]))

            def _answer(self, body: bytes | None, refusal: int = 404) -> None:
                """With the range that was asked for, as storage answers."""
                status, extra = (200, {}) if body is not None else (refusal, {})
                data = self._gossip() if body is None else body
                asked = self.headers.get("Range", "")
                if body is not None and asked.startswith("bytes="):
                    first, _, last = asked.removeprefix("bytes=").partition("-")
                    end = min(int(last or len(data) - 1), len(data) - 1)
                    extra = {"Content-Range": f"bytes {int(first)}-{end}/{len(data)}"}
                    status, data = 206, data[int(first) : end + 1]
                self.send_response(status)
                for name, value in {"ETag": '"1"', "Content-Length": str(len(data)), **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def _gossip(self) -> bytes:
                """As some servers do, an error repeats what was asked."""
                return f"<Error><Resource>{self.path}</Resource></Error>".encode()

            def log_message(self, *_: object) -> None:
                return

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}?{self.query}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed here; it is no news."""


class Service:
    def __init__(self, folder: Path, deploy: str, configs: dict[str, str]) -> None:
        self.folder = folder
        self.work = folder / "work"
        for name, text in configs.items():
            (folder / name).write_text(text)
        (folder / "deploy.yaml").write_text(deploy)
        self.port = free_port()
        self.token = ""
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(LSI), "serve", "-c", str(self.folder / "deploy.yaml"), "--port", str(self.port)]
        environment = {**os.environ, "RAY_ADDRESS": "", **self.environment}
        log = (self.folder / "serve.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--work-dir", str(self.work)],
            stdout=subprocess.PIPE if not self.token else log,
            stderr=log,
            env=environment,
        )
        if not self.token:
            assert self.process.stdout is not None
            self.token = self.process.stdout.readline().decode().strip()
        self.wait_until(self._healthy, 90, "the service does not answer")

    def stop(self) -> None:
        """As a person would; then whatever is left."""
        assert self.process is not None
        tree = self.tree()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            _kill(tree)

    def kill_everything(self) -> None:
        """The machine is gone."""
        _kill(self.tree())

    def pids(self, title: str) -> list[int]:
        """Of the processes of this service's Ray whose title begins so."""
        found = []
        for process in self.tree():
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def kill(self, title: str) -> None:
        pids = self.pids(title)
        assert pids, f"no process is called {title}"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def new_token(self, caller: str) -> str:
        """While it runs."""
        command = [str(LSI), "token", "create", "--caller", caller, "--work-dir", str(self.work)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        token = how.pop("token", None) or self.token
        headers = {"Authorization": f"Bearer {token}", **how.pop("headers", {})}
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30, **how)

    def submit(self, storage: Storage, name: str, rows: int, *, token: str | None = None, **body: Any) -> str:
        storage.objects[f"/{name}.tar"] = archive(rows, name)
        asked = {
            "input_file_uri": storage.url(f"/{name}.tar"),
            "output_file_uri": storage.url(f"/{name}.out"),
            "endpoint": "/v1/chat/completions",
            "model_id": MODEL,
            "completion_window": "24h",
            "store": "s3",
            **body,
        }
        response = self.call("POST", "/v1/inference/batches", json=asked, token=token)
        assert response.status_code == 201, response.text
        batch_id: str = response.json()[0]["id"]
        return batch_id

    def get(self, batch_id: str, token: str | None = None) -> dict[str, Any]:
        """However long the service takes to come back."""
        found: dict[str, Any] = {}

        def ask() -> bool:
            try:
                response = self.call("GET", f"/v1/inference/batches/{batch_id}", token=token)
            except httpx.TransportError:
                return False
            found.update(response.json() if response.status_code == 200 else {})
            return response.status_code == 200

        self.wait_until(ask, 60, "no answer")
        return found

    def wait(self, batch_id: str, *statuses: str, seconds: float = 60) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def reached() -> bool:
            found.clear()
            found.update(self.get(batch_id))
            return found["status"] in statuses

        self.wait_until(reached, seconds, lambda: f"{batch_id} is {found}")
        return found

    def wait_for_rows(self, batch_id: str, rows: int) -> None:
        self.wait_until(lambda: self.get(batch_id)["request_counts"]["completed"] >= rows, 60, "no rows")

    def wait_until(self, true: Any, seconds: float, said: Any) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, said() if callable(said) else said
            time.sleep(0.1)

    def _healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "serve.log").read_text()[-3000:]
        try:
            return self.call("GET", "/v1/inference/health").status_code == 200
        except httpx.TransportError:
            return False

    def tree(self) -> list[psutil.Process]:
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def archive(rows: int, name: str) -> bytes:
    lines = [
        json.dumps(
            {
                "custom_id": f"{name}-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": MODEL,
                    "max_tokens": 16,
                    "messages": [{"role": "user", "content": f"canaryquestion {number}"}],
                },
            }
        )
        for number in range(rows)
    ]
    data = "\n".join(lines).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("jobs.jsonl")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def delivered(data: bytes) -> tuple[list[str], list[str]]:
    """custom_ids of the output lines, and of the error lines."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        parts = {
            name: [json.loads(line)["custom_id"] for line in tar.extractfile(name).read().splitlines()]  # type: ignore[union-attr]
            for name in tar.getnames()
            if name.endswith(".jsonl")
        }
    return parts["output.jsonl"], parts.get("error.jsonl", [])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
