"""`lsi run` from and to a real S3 server: pre-signed URLs, s3://, URLs that end too early, no signature anywhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from archives import check_complete, numbered, write_archive
from runs import Lsi
from s3_server import S3Server

pytestmark = pytest.mark.timeout(400)
ROWS = numbered(40)


def test_from_and_to_presigned_urls_without_a_trace_of_a_signature(lsi: Lsi, s3_server: S3Server) -> None:
    write_archive(s3_server.path("url-in.tar.gz"), ROWS)
    source, target = s3_server.presign("GET", "url-in.tar.gz"), s3_server.presign("PUT", "url-out.tar.gz")
    running = lsi.start("run", source, "-o", target, "-c", lsi.config(tokens_per_second=16.0), "--json")
    running.until(lambda: "starting workers" in running.stderr, "the start of the workers")
    secrets = [url.split("X-Amz-Signature=")[1].split("&")[0] for url in (source, target)]
    words = [" ".join(process.cmdline()) for process in running.members()]
    assert not [line for line in words for secret in secrets if secret in line], (
        "a signature stands in the process list"
    )
    done = running.wait()
    assert done.code == 0, done.stderr
    output = check_complete(s3_server.path("url-out.tar.gz"), ROWS)
    assert output.manifest["input"]["name"].startswith("url-in.tar.gz")
    written = [path.read_bytes() for path in lsi.folder.rglob("*") if path.is_file() and path.suffix != ".gz"]
    for secret in secrets:
        assert secret not in done.stdout + done.stderr
        assert not [data for data in written if secret.encode() in data]


def test_s3_urls(lsi: Lsi, s3_environment: S3Server) -> None:
    write_archive(s3_environment.path("in.tar"), ROWS)
    lsi.env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = lsi("run", "s3://bucket/in.tar", "-o", "s3://bucket/deep/out.tar.gz", "-c", lsi.config())
    assert done.code == 0, done.stderr
    check_complete(s3_environment.path("deep/out.tar.gz"), ROWS)


@pytest.mark.parametrize("fault", ["tampered", "expired"])
def test_an_input_url_that_does_not_hold_is_refused_before_ray(lsi: Lsi, s3_server: S3Server, fault: str) -> None:
    write_archive(s3_server.path("in.tar"), ROWS)
    url = s3_server.presign("GET", "in.tar", seconds=1 if fault == "expired" else 3600)
    if fault == "tampered":
        url = url[:-4] + "0000"
    else:
        time.sleep(2.1)
    done = lsi("run", url, "-o", lsi.folder / "out.tar.gz", "-c", lsi.config())
    assert done.code == 2, done.stderr
    assert "starting Ray" not in done.stderr
    assert "X-Amz-Signature" not in done.stderr
    assert ("expired" in done.stderr) == (fault == "expired"), done.stderr


def test_an_output_url_that_has_expired_keeps_the_answers_for_a_fresh_one(lsi: Lsi, s3_server: S3Server) -> None:
    source = write_archive(lsi.folder / "in.tar", ROWS)
    command = ["run", source, "-o", "env:OUT", "-c", lsi.config(), "--work-dir", lsi.folder / "work"]
    done = lsi(*command, OUT=s3_server.presign("PUT", "late.tar.gz", seconds=1))
    assert done.code == 1, done.stderr
    assert "run the same command again" in done.stderr
    assert not Path(s3_server.path("late.tar.gz")).exists()
    again = lsi(*command, OUT=s3_server.presign("PUT", "late.tar.gz"))
    assert again.code == 0, again.stderr
    assert "starting Ray" not in again.stderr, "only the delivery was left"
    assert check_complete(s3_server.path("late.tar.gz"), ROWS).run_again == 0
