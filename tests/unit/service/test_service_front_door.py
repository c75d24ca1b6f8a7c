"""What holds a connection without a request is cut, and what is a request is served meanwhile; on a real uvicorn."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from contextlib import closing, suppress

import httpx
import pytest
import uvicorn

from lsi_ray.service import front_door
from lsi_ray.service.front_door import FrontDoor, Limits

ENDED = b""


class Quick(FrontDoor):
    limits = Limits(headers_s=0.3, header_bytes=2048, linger_s=0.3, unread_s=0.3, connections=40)


async def app(scope, receive, send):
    """/early answers before the body has come, /big sends more than a socket holds; others echo the body's size."""
    size = 0
    while scope["path"] != "/early":
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    body = b"x" * 50_000_000 if scope["path"] == "/big" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for at in range(0, len(body), 1 << 20):
        await send({"type": "http.response.body", "body": body[at : at + (1 << 20)], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def server():
    one = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, http=Quick, lifespan="off", log_level="error"))
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    while not one.started:
        time.sleep(0.005)
    yield one
    one.should_exit = True
    thread.join(5)


@pytest.fixture
def port(server):
    return server.servers[0].sockets[0].getsockname()[1]


def connect(port):
    one = socket.create_connection(("127.0.0.1", port), timeout=10)
    return closing(one)


def answer(port, body=b"abc"):
    return httpx.post(f"http://127.0.0.1:{port}/", content=body, trust_env=False).text


def rest(one):
    """All that comes until the other side ends it."""
    data = b""
    try:
        while piece := one.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def trickle(one, piece, seconds=5.0):
    """How long one may go on sending."""
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < seconds:
            one.sendall(piece)
            time.sleep(0.02)
    except OSError:
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize("said", [b"", b"\r\n", b"POST / HT", b"POST / HTTP/1.1\r\nHost: a\r\nX-A: b"])
def test_silence_before_the_end_of_the_headers_is_cut(port, said):
    with connect(port) as one:
        begun = time.monotonic()
        one.sendall(said)
        assert rest(one) == ENDED
        assert 0.2 < time.monotonic() - begun < 30


@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"x"])
def test_headers_that_trickle_are_cut(port, piece):
    with connect(port) as one:
        one.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nX-B: ")
        assert trickle(one, piece) < 3
        assert answer(port) == "3"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-A: " + b"a" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 400 + b"\r\n",
        b"GET / HTTP/1.1\r\nX-A: " + b"a" * 3000,
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 400,
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_headers_over_the_limit_are_refused(port, head, pieces):
    with connect(port) as one:
        step = -(-len(head) // pieces)
        with suppress(OSError):  # it may not wait for the last piece
            for at in range(0, len(head), step):
                one.sendall(head[at : at + step])
                time.sleep(0.01)
        said = rest(one)
        assert said.startswith(b"HTTP/1.1 431 ") or (pieces > 1 and said == ENDED)


def test_large_headers_within_the_limit_and_large_bodies_pass(port):
    assert (
        httpx.post(f"http://127.0.0.1:{port}/", headers={"X-A": "a" * 1500}, content=b"b" * 3_000_000).text == "3000000"
    )


def test_a_connection_is_used_again_and_again(port):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        for size in (0, 10, 100_000):
            assert client.post("/", content=b"b" * size).text == str(size)
            time.sleep(0.1)
        assert client.post("/", content=iter([b"b" * 10, b"c" * 20])).text == "30"
        time.sleep(0.4)  # uvicorn's own time between requests, 5 s, is not ours
        assert client.post("/", content=b"b").text == "1"


def test_requests_in_one_breath_are_all_answered(port):
    with connect(port) as one:
        one.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab" * 5)
        said = b""
        while said.count(b"200 OK") < 5:
            said += one.recv(65536)


def test_what_is_left_of_a_body_that_was_answered_may_not_take_for_ever(port):
    with connect(port) as one:
        one.sendall(b"POST /early HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
        assert trickle(one, b"a") < 3


@pytest.mark.parametrize(
    "junk", [b"5;" + b"a" * 20_000, b"0\r\n" + b"X-A: " + b"a" * 20_000, b"0\r\n" + b"X-A: b\r\n" * 3000]
)
def test_trailers_and_extensions_of_chunks_have_an_end(port, junk):
    with connect(port) as one:
        one.sendall(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        for at in range(0, len(junk), 1000):
            try:
                one.sendall(junk[at : at + 1000])
            except OSError:
                break
        assert b"200 OK" not in rest(one)


def test_an_answer_that_nobody_reads_is_given_up(port, server):
    with connect(port) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.sendall(b"GET /big HTTP/1.1\r\n\r\n")
        assert one.recv(10)
        deadline = time.monotonic() + 5
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not server.server_state.connections


def test_a_crowd_of_idle_connections_keeps_nobody_out(port, server):
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(120)]
    try:
        for _ in range(5):
            assert answer(port) == "3"
        assert len(server.server_state.connections) <= 41
    finally:
        for one in crowd:
            one.close()


def test_serve_is_told_by_its_callback(monkeypatch):
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    assert front_door.guard() == []
    config = uvicorn.Config(app, lifespan="off")
    config.load()
    assert config.http_protocol_class is FrontDoor


def test_seeded_bytes_end_every_connection(port):
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    asyncio.run(_noise(port, seed))
    assert answer(port) == "3"


async def _noise(port, seed):
    import random

    rng = random.Random(seed)
    words = [
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"abc",
        b"\0\xff",
    ]

    async def one():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"".join(rng.choice(words) for _ in range(20)))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()

    await asyncio.gather(*(one() for _ in range(30)), return_exceptions=False)
