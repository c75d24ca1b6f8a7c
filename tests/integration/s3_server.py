"""An S3 server of the tests' own: rclone on a free loopback port."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

ACCESS_KEY = "lsi-test-access-key"
SECRET_KEY = "lsi-test-secret-key-0123456789"
BUCKET = "bucket"


@dataclass(frozen=True)
class S3Server:
    """`folder` holds the bucket's objects as files."""

    endpoint: str
    folder: Path
    log: Path

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )

    def presign(self, method: str, key: str, seconds: int = 3600) -> str:
        operation = {"GET": "get_object", "PUT": "put_object"}[method]
        params = {"Bucket": BUCKET, "Key": key}
        url: str = self.client.generate_presigned_url(operation, Params=params, ExpiresIn=seconds)
        return url

    def path(self, key: str) -> Path:
        return self.folder / BUCKET / key

    def uploads(self, key: str) -> int:
        """How often the object was put."""
        return self.log.read_text().count(f"CREATE OBJECT: {BUCKET} {key}\n")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / BUCKET).mkdir()
    port = _free_port()
    command = [str(Path(sysconfig.get_path("scripts")) / "rclone"), "serve", "s3", str(folder)]
    command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", "/dev/null"]
    # Tests write into its folder. Not 0s: from its first request on, rclone then burns a quarter of a core for ever.
    command += ["--dir-cache-time", "10ms", "-vv"]
    log = (folder.parent / "rclone.log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_for(port, process)
        yield S3Server(f"http://127.0.0.1:{port}", folder, Path(log.name))
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """s3:// in this process and its children goes to the server."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return s3_server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "rclone has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("rclone does not listen")
