"""Uploads: one object with the right bytes, whatever the server does in between."""

from __future__ import annotations

import os
import random

import pytest
from fault_server import drops, etag_of, says, serving, stores_in_silence

from lsi_ray.errors import StorageError
from lsi_ray.storage.location import Location
from lsi_ray.storage.retry import RetryPolicy
from lsi_ray.storage.transfer import TransferOptions
from lsi_ray.storage.upload import upload

CONTENT = random.Random(9).randbytes(2_500_000)
QUICK = TransferOptions(retry=RetryPolicy(sleep=lambda _: None))


@pytest.fixture
def server():
    with serving(b"") as state:
        yield state


@pytest.fixture
def output(tmp_path):
    path = tmp_path / "out.tar.gz"
    path.write_bytes(CONTENT)
    return path


def test_one_put_with_its_length(server, output):
    uploaded = upload(output, Location.parse(server.url()), options=QUICK)
    assert server.stored == [CONTENT]
    assert (uploaded.size, uploaded.etag) == (len(CONTENT), etag_of(CONTENT))
    (method, headers) = server.seen[0]
    assert method == "PUT"
    assert headers["Content-Length"] == str(len(CONTENT))
    assert "Transfer-Encoding" not in headers
    assert "Content-Type" not in headers


@pytest.mark.parametrize("fault", [says(503), says(429), says(500), drops, says(400, body=b"<Code>SlowDown</Code>")])
def test_transient_faults_are_repeated_with_the_same_bytes(server, output, fault):
    server.faults = [fault, fault]
    upload(output, Location.parse(server.url()), options=QUICK)
    assert server.stored == [CONTENT]
    assert len(server.seen) == 3


def test_lost_answer_is_repeated_with_the_same_bytes(server, output):
    server.faults = [stores_in_silence]
    upload(output, Location.parse(server.url()), options=QUICK)
    assert server.stored == [CONTENT, CONTENT]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (says(403), "output_forbidden"),
        (says(403, body=b"<Message>Request has expired</Message>"), "output_url_expired"),
        (says(400, body=b"<Code>EntityTooLarge</Code>"), "output_too_large"),
        (says(413), "output_too_large"),
        (says(404), "output_not_found"),
        (says(307, {"Location": "/elsewhere"}), "output_rejected"),
    ],
)
def test_refusals_are_not_repeated(server, output, fault, code):
    server.faults = [fault]
    with pytest.raises(StorageError) as caught:
        upload(output, Location.parse(server.url()), options=QUICK)
    assert (caught.value.code, caught.value.transient) == (code, False)
    assert len(server.seen) == 1


def test_gives_up_with_a_transient_error(server, output):
    server.faults = [says(503)] * 100
    with pytest.raises(StorageError) as caught:
        upload(output, Location.parse(server.url()), options=QUICK)
    assert (caught.value.code, caught.value.transient) == ("output_unavailable", True)
    assert len(server.seen) == QUICK.retry.attempts


def test_too_large_for_one_put_is_said_before_sending(server, output):
    with pytest.raises(StorageError) as caught:
        upload(output, Location.parse(server.url()), max_put_bytes=len(CONTENT) - 1, options=QUICK)
    assert caught.value.code == "output_too_large"
    assert server.seen == []


def test_local_target_is_replaced_whole(output, tmp_path):
    target = tmp_path / "new" / "folder" / "result.tar.gz"
    assert upload(output, Location.local(target)).size == len(CONTENT)
    assert upload(output, Location.local(target)).size == len(CONTENT)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == [target.name]
    assert target.stat().st_mode & 0o777 == output.stat().st_mode & 0o777


def test_local_target_that_is_a_folder(output, tmp_path):
    with pytest.raises(StorageError) as caught:
        upload(output, Location.local(tmp_path))
    assert caught.value.code == "output_rejected"
