"""Storage against a real S3 server: pre-signed URLs, refused and expired ones, and s3:// through s3fs."""

from __future__ import annotations

import hashlib
import random
import time

import pytest
from s3_server import BUCKET, S3Server

from lsi_ray.errors import StorageError
from lsi_ray.storage.download import fetch, stat
from lsi_ray.storage.location import Location
from lsi_ray.storage.retry import RetryPolicy
from lsi_ray.storage.transfer import TransferOptions
from lsi_ray.storage.upload import upload

# More than one piece of s3fs, and enough for a multipart upload.
CONTENT = random.Random(3).randbytes(40_000_000)
ONCE = TransferOptions(retry=RetryPolicy(attempts=1))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.tar"
    path.write_bytes(CONTENT)
    return path


def code_of(call) -> str:
    with pytest.raises(StorageError) as caught:
        call()
    assert "Signature=" not in f"{caught.value!r}"
    return caught.value.code


def test_presigned_round_trip(s3_server: S3Server, source):
    put, get = (Location.parse(s3_server.presign(method, "a/out.tar")) for method in ("PUT", "GET"))
    assert upload(source, put, options=ONCE).size == len(CONTENT)
    assert s3_server.path("a/out.tar").read_bytes() == CONTENT
    received = bytearray()
    known = stat(get, options=ONCE)
    fetched = fetch(get, received.extend, version=known.version, options=ONCE)
    assert known.size == fetched.size == len(CONTENT)
    assert fetched.sha256 == hashlib.sha256(received).hexdigest() == hashlib.sha256(CONTENT).hexdigest()


def test_resume_with_a_presigned_url(s3_server: S3Server, monkeypatch):
    """Cut on our side; the server answers the Range request with status 200 and the range."""
    from lsi_ray.storage import http_download

    s3_server.path("in.tar").write_bytes(CONTENT)
    real, cuts = http_download.paced, [3, 100]

    def cutting(chunks, options, stalled):
        for number, chunk in enumerate(real(chunks, options, stalled)):
            yield chunk
            if cuts and number == cuts[0]:
                cuts.pop(0)
                raise stalled("cut")

    monkeypatch.setattr(http_download, "paced", cutting)
    received = bytearray()
    options = TransferOptions(retry=RetryPolicy(sleep=lambda _: None))
    fetch(Location.parse(s3_server.presign("GET", "in.tar")), received.extend, options=options)
    assert received == CONTENT
    assert cuts == []


def test_changed_object_has_another_version(s3_server: S3Server):
    location = Location.parse(s3_server.presign("GET", "changing.tar"))
    s3_server.path("changing.tar").write_bytes(b"one")
    known = stat(location, options=ONCE)
    s3_server.path("changing.tar").write_bytes(b"two and more")
    assert stat(location, options=ONCE) != known
    assert code_of(lambda: fetch(location, lambda _: None, version=known.version, options=ONCE)) == "input_changed"


def test_refusals(s3_server: S3Server, source):
    s3_server.path("there.tar").write_bytes(b"content")
    good = s3_server.presign("GET", "there.tar")
    tampered = good[:-1] + ("0" if good[-1] != "0" else "1")
    for url, code in [
        (tampered, "input_forbidden"),
        (good.replace("there.tar", "other.tar"), "input_forbidden"),
        (s3_server.presign("GET", "missing.tar"), "input_not_found"),
        (s3_server.presign("PUT", "there.tar"), "input_forbidden"),
    ]:
        location = Location.parse(url)
        assert code_of(lambda at=location: fetch(at, lambda _: None, options=ONCE)) == code
        assert code_of(lambda at=location: stat(at, options=ONCE)) == code
    assert code_of(lambda: upload(source, Location.parse(good), options=ONCE)) == "output_forbidden"


def test_expired_urls(s3_server: S3Server, source):
    s3_server.path("there.tar").write_bytes(b"content")
    get, put = (Location.parse(s3_server.presign(method, "there.tar", seconds=1)) for method in ("GET", "PUT"))
    assert get.expires_at is not None
    assert abs(get.expires_at - time.time()) < 5
    while time.time() < get.expires_at + 1:
        time.sleep(0.1)
    assert code_of(lambda: fetch(get, lambda _: None, options=ONCE)) == "input_url_expired"
    assert code_of(lambda: upload(source, put, options=ONCE)) == "output_url_expired"
    assert s3_server.path("there.tar").read_bytes() == b"content"


def test_s3_round_trip(s3_environment: S3Server, source):
    location = Location.parse(f"s3://{BUCKET}/b/out put.tar")
    assert upload(source, location, options=ONCE).size == len(CONTENT)
    assert s3_environment.path("b/out put.tar").read_bytes() == CONTENT
    received = bytearray()
    known = stat(location, options=ONCE)
    fetched = fetch(location, received.extend, version=known.version, options=ONCE)
    assert known.size == len(CONTENT)
    assert fetched.sha256 == hashlib.sha256(received).hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    s3_environment.path("b/out put.tar").write_bytes(b"replaced")
    assert stat(location, options=ONCE) != known


@pytest.mark.usefixtures("s3_environment")
def test_s3_refusals(source, monkeypatch):
    missing = Location.parse(f"s3://{BUCKET}/missing.tar")
    no_bucket = Location.parse("s3://nowhere/out.tar")
    assert code_of(lambda: fetch(missing, lambda _: None, options=ONCE)) == "input_not_found"
    assert code_of(lambda: upload(source, no_bucket, options=ONCE)) == "output_not_found"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    from lsi_ray.storage import s3

    s3._filesystem.cache_clear()
    assert code_of(lambda: stat(missing, options=ONCE)) == "input_forbidden"
    s3._filesystem.cache_clear()
