"""Downloads from a server that fails in every way: the bytes are right, each given once, and little is read twice."""

from __future__ import annotations

import hashlib
import random

import pytest
from fault_server import (
    FaultServer,
    changes_to,
    crawls,
    cut,
    drops,
    ignores_range,
    range_with_200,
    says,
    sends_from,
    serving,
)

from lsi_ray.errors import StorageError
from lsi_ray.storage.download import fetch, stat
from lsi_ray.storage.guard import STRICT
from lsi_ray.storage.location import Location
from lsi_ray.storage.pace import paced
from lsi_ray.storage.retry import RetryPolicy
from lsi_ray.storage.transfer import Fetched, TransferOptions

SIZE = 3_000_000
CONTENT = random.Random(7).randbytes(SIZE)
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


@pytest.fixture
def server():
    with serving(CONTENT) as state:
        yield state


@pytest.fixture
def waits():
    return []


@pytest.fixture
def options(waits):
    return TransferOptions(retry=RetryPolicy(sleep=waits.append), silence_s=5.0)


def download(server: FaultServer, options: TransferOptions, **more) -> tuple[bytes, Fetched]:
    received = bytearray()
    fetched = fetch(Location.parse(server.url()), received.extend, options=options, **more)
    return bytes(received), fetched


def refused(server: FaultServer, options: TransferOptions, **more) -> StorageError:
    with pytest.raises(StorageError) as caught:
        download(server, options, **more)
    return caught.value


def test_whole_object(server, options, waits):
    received, fetched = download(server, options)
    assert received == CONTENT
    assert fetched == Fetched(SIZE, hashlib.sha256(CONTENT).hexdigest(), server.etag)
    assert waits == []
    assert server.seen[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("reset", [False, True])
def test_resumes_after_cuts_at_random_bytes(server, reset):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    points = sorted(random.Random(seed).sample(range(SIZE), 10))
    server.faults = [cut(at, reset) for at in points]
    received, fetched = download(server, TransferOptions(retry=RetryPolicy(sleep=lambda _: None, attempts=30)))
    assert received == CONTENT
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    if not reset:  # a reset throws away what is still in the sockets' buffers, up to megabytes on loopback
        assert server.sent <= 1.1 * SIZE
    assert all(headers["If-Range"] == server.etag for _, headers in server.seen[1:] if "Range" in headers)


def test_progress_starts_the_count_of_attempts_again(server):
    options = TransferOptions(retry=RetryPolicy(attempts=2, sleep=lambda _: None))
    server.faults = [cut(1_100_000), cut(2_200_000), cut(2_900_000)]
    assert download(server, options)[0] == CONTENT


@pytest.mark.parametrize(
    "fault",
    [says(503), says(500), says(408), says(425), says(429), drops, says(400, body=b"<Code>RequestTimeout</Code>")],
)
def test_transient_answers_are_tried_again(server, options, waits, fault):
    server.faults = [fault, fault]
    assert download(server, options)[0] == CONTENT
    assert len(waits) == 2


def test_retry_after_is_the_least_that_is_waited(server, options, waits):
    server.faults = [says(429, {"Retry-After": "17"}), says(503, {"Retry-After": "99999"})]
    download(server, options)
    assert waits == [17.0, options.retry.longest_retry_after_s]


def test_gives_up_after_its_attempts_with_a_transient_error(server, options, waits):
    server.faults = [says(503)] * 100
    error = refused(server, options)
    assert (error.code, error.transient) == ("input_unavailable", True)
    assert len(server.seen) == options.retry.attempts
    assert all(wait <= 2.0**n for n, wait in enumerate(waits))


@pytest.mark.parametrize("etag", [True, False])
def test_server_that_starts_again_is_read_over(server, options, etag):
    if not etag:
        server.etag = None
    server.faults = [cut(1_000_000), ignores_range]
    received, fetched = download(server, options)
    assert received == CONTENT
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_range_answered_with_200_is_a_range(server, options):
    server.faults = [cut(1_000_000), range_with_200]
    assert download(server, options)[0] == CONTENT
    assert server.sent == SIZE


@pytest.mark.parametrize("first", [1, 999_999, 1_000_001, SIZE - 1])
def test_wrong_range_is_not_believed(server, options, first):
    server.faults = [cut(1_000_000), sends_from(first)]
    assert download(server, options)[0] == CONTENT


def test_crawling_transfer_is_tried_again(server):
    told = []
    options = TransferOptions(
        retry=RetryPolicy(sleep=lambda _: None),
        slow_bytes_per_s=10_000,
        slow_window_s=0.05,
        on_retry=lambda error, _: told.append(error.message),
    )
    server.faults = [crawls]
    assert download(server, options)[0] == CONTENT
    assert "bytes came in" in told[0]


def test_time_of_the_sink_is_not_the_servers():
    now = [0.0]
    options = TransferOptions(slow_bytes_per_s=1.0, slow_window_s=10.0)
    taken = []
    for chunk in paced([b"x"] * 100, options, AssertionError, clock=lambda: now[0]):
        now[0] += 60.0
        taken.append(chunk)
    assert len(taken) == 100


def test_silence_is_a_fault(server, waits):
    options = TransferOptions(retry=RetryPolicy(sleep=waits.append), silence_s=0.1)
    server.faults = [lambda request: request.give(until=1000) is None]
    assert download(server, options)[0] == CONTENT
    assert len(waits) >= 1


@pytest.mark.parametrize("etag", [True, False])
@pytest.mark.parametrize("size", [SIZE, SIZE + 1, SIZE - 1, 10])
def test_replaced_object_ends_the_download(server, options, etag, size):
    def swap(request):
        changes_to(random.Random(8).randbytes(size))(request)
        if not etag:
            server.etag = None
        return not etag and ignores_range(request)

    if not etag:
        server.etag = None
    server.faults = [cut(1_000_000), swap]
    error = refused(server, options)
    assert (error.code, error.transient) == ("input_changed", False)


def test_version_of_an_earlier_stat_is_held(server, options):
    known = stat(Location.parse(server.url()), options=options)
    assert known.size == SIZE
    assert download(server, options, version=known.version)[1].version == known.version
    server.replace(b"another")
    assert refused(server, options, version=known.version).code == "input_changed"
    assert stat(Location.parse(server.url()), options=options) != known


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (says(403, body=EXPIRED), "input_url_expired"),
        (says(400, body=EXPIRED), "input_url_expired"),
        (says(403, body=b"<Code>SignatureDoesNotMatch</Code>"), "input_forbidden"),
        (says(401), "input_forbidden"),
        (says(404), "input_not_found"),
        (says(400), "input_rejected"),
        (says(302, {"Location": "http://127.0.0.1:1/"}), "input_rejected"),
        (says(204), None),
    ],
)
def test_refusals_are_not_repeated(server, options, fault, code):
    server.faults = [fault]
    if code is None:
        assert download(server, options)[0] == b""
    else:
        error = refused(server, options)
        assert (error.code, error.transient) == (code, False)
    assert len(server.seen) == 1


def test_refusal_of_a_url_that_is_past_is_called_so(server):
    options = TransferOptions(now=lambda: 3e9)
    server.faults = [says(403)]
    assert refused(server, options).code == "input_url_expired"


def test_size_limit_holds_for_announced_and_for_endless_bodies(server, options):
    assert refused(server, options, max_bytes=SIZE - 1).code == "input_too_large"
    assert download(server, options, max_bytes=SIZE)[0] == CONTENT

    def endless(request):
        request.send_response_only(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            for _ in range(1000):
                request.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")
        except OSError:
            pass
        request.hang_up()
        return True

    server.faults = [endless]
    assert refused(server, options, max_bytes=100_000).code == "input_too_large"


def test_errors_of_the_sink_pass_through(server, options, waits):
    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fetch(Location.parse(server.url()), full, options=options)
    assert waits == []


def test_empty_object(options):
    with serving(b"") as server:
        assert download(server, options)[1].size == 0


def test_local_file(tmp_path):
    path = tmp_path / "in.tar"
    path.write_bytes(CONTENT)
    received = bytearray()
    fetched = fetch(Location.local(path), received.extend, max_bytes=SIZE)
    assert (bytes(received), fetched.sha256) == (CONTENT, hashlib.sha256(CONTENT).hexdigest())
    with (tmp_path / "copy").open("wb") as file:
        assert fetch(Location.parse(path.as_uri()), file).size == SIZE
    known = stat(Location.local(path))
    path.write_bytes(CONTENT[1:])
    for call, code in [
        (lambda: fetch(Location.local(path), received.extend, version=known.version), "input_changed"),
        (lambda: fetch(Location.local(path), received.extend, max_bytes=10), "input_too_large"),
        (lambda: fetch(Location.local(tmp_path / "none"), received.extend), "input_not_found"),
        (lambda: stat(Location.local(tmp_path)), "input_rejected"),
    ]:
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code == code


def test_local_file_that_changes_while_it_is_read(tmp_path):
    path = tmp_path / "in.tar"
    path.write_bytes(CONTENT)

    def append(_):
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(StorageError) as caught:
        fetch(Location.local(path), append)
    assert caught.value.code == "input_changed"


def test_strict_policy_does_not_even_connect(server):
    error = refused(server, TransferOptions(urls=STRICT))
    assert error.code == "destination_not_allowed"
    assert server.seen == []
