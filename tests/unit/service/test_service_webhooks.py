from __future__ import annotations

import json
import socket
import threading
import time

import openai
import pytest
from pydantic import SecretStr
from service_house import FakeClock

from lsi_ray.errors import StorageError
from lsi_ray.service import webhooks
from lsi_ray.service.backend import Webhook
from lsi_ray.service.webhooks import AT_ONCE, Outbox, poster
from lsi_ray.storage.guard import STRICT, UrlPolicy
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import TransferOptions

HOOK = Webhook(SecretUrl("https://example.com/hook?key=topsecret"), SecretStr("whsec_c2lnbmluZyBzZWNyZXQ="))


class Receiver:
    def __init__(self, failures=0):
        self.failures = failures
        self.got = []

    def __call__(self, url, headers, body):
        self.got.append((url, headers, body))
        if len(self.got) <= self.failures:
            raise StorageError("output_rejected", "the server answered 500")


def outbox(folder, receiver, clock):
    return Outbox(folder / "webhooks", receiver, give_up_s=3600, clock=clock)


@pytest.mark.parametrize("secret", ["whsec_c2lnbmluZyBzZWNyZXQ=", "a plain secret"])
def test_the_openai_package_takes_our_signature(folder, secret):
    receiver = Receiver()
    box = outbox(folder, receiver, time.time)
    box.put("batch_1", "completed", Webhook(HOOK.url, SecretStr(secret)), time.time())
    assert box.send_due() == 1
    _, headers, body = receiver.got[0]
    client = openai.OpenAI(api_key="x", webhook_secret=secret)
    event = client.webhooks.unwrap(body, headers)
    assert (event.type, event.data.id) == ("batch.completed", "batch_1")
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace(b"batch_1", b"batch_2"), headers)


def test_an_event_is_told_until_it_is_taken(folder):
    clock, receiver = FakeClock(), Receiver(failures=3)
    box = outbox(folder, receiver, clock)
    box.put("b", "failed", HOOK, 1000.0)
    for _ in range(200):
        box.send_due()
        clock.now += 1
        box = outbox(folder, receiver, clock)
    assert len(receiver.got) == 4
    assert len({json.loads(body)["id"] for _, _, body in receiver.got}) == 1
    assert not list((folder / "webhooks").iterdir())


def test_nobody_is_told_for_ever(folder):
    clock, receiver = FakeClock(), Receiver(failures=10_000)
    box = outbox(folder, receiver, clock)
    box.put("b", "failed", HOOK, 1000.0)
    for _ in range(100):
        box.send_due()
        clock.now += 60
    assert 5 <= len(receiver.got) < 12
    assert not list((folder / "webhooks").iterdir())


def test_one_end_is_one_event(folder):
    receiver = Receiver()
    box = outbox(folder, receiver, FakeClock())
    for _ in range(3):
        box.put("b", "completed", HOOK, 1000.0)
    assert box.send_due() == 1


def test_an_end_told_before_is_told_again_to_the_byte(folder):
    """A service that is killed between the event and the erasure puts it anew, later."""
    clock, receiver = FakeClock(), Receiver()
    for _ in range(2):
        box = outbox(folder, receiver, clock)
        box.put("b", "completed", HOOK, 1000.0)
        box.send_due()
        clock.now += 100
    bodies = [body for _, _, body in receiver.got]
    assert len(bodies) == 2
    assert len(set(bodies)) == 1


def test_a_half_written_event_goes_when_the_service_starts(folder):
    outbox(folder, Receiver(), FakeClock())
    (folder / "webhooks" / ".evt_1.json.abc.tmp").write_text("https://example.com/hook?key=topsecret")
    outbox(folder, Receiver(), FakeClock())
    assert not list((folder / "webhooks").iterdir())


def test_webhooks_are_guarded_as_every_url():
    post = poster(TransferOptions(urls=STRICT))
    for url in ("http://example.com/", "https://127.0.0.1/hook?key=topsecret", "https://[::1]/"):
        with pytest.raises(StorageError) as caught:
            post(SecretUrl(url), {}, b"{}")
        assert caught.value.code == "destination_not_allowed"
        assert "topsecret" not in str(caught.value)


def hook(host):
    return Webhook(SecretUrl(f"https://{host}/hook"), SecretStr("a plain secret"))


def host_of(url):
    return url.reveal().split("/")[2]


class Dead:
    """Whoever posts to a dead host waits there until `over`; `told` are the hosts that took an event."""

    def __init__(self, is_dead=lambda host: "dead" in host):
        self.is_dead = is_dead
        self.over = threading.Event()
        self.told = []
        self.waiting = []

    def __call__(self, url, *_):
        host = host_of(url)
        if self.is_dead(host):
            self.waiting.append(host)
            self.over.wait(10)
            raise StorageError("output_unavailable", "nobody there")
        self.told.append(host)


def side_by_side(box, act):
    """`act` while as many threads as the service has send what is due."""
    ended = threading.Event()

    def run():
        while not ended.is_set():
            box.send_due()
            ended.wait(0.01)

    threads = [threading.Thread(target=run) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        act()
    finally:
        box._post.over.set()
        ended.set()
        for thread in threads:
            thread.join()


def until(true):
    limit = time.monotonic() + 5
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize("hosts", [1, 20], ids=["one-host", "many-hosts"])
def test_dead_hosts_of_one_caller_keep_nobody_elses_event(folder, hosts):
    """Also not one that comes while they are being tried: rounds do not wait for each other."""
    post = Dead()
    box = outbox(folder, post, time.time)
    for number in range(20):
        box.put(f"dead_{number}", "completed", hook(f"dead{number % hosts}.example"), 1000.0, caller="ann")

    def act():
        until(lambda: len(post.waiting) == AT_ONCE - 1)
        box.put("late", "completed", hook("alive.example"), 1000.0, caller="bob")
        until(lambda: post.told == ["alive.example"])

    side_by_side(box, act)
    assert len(list((folder / "webhooks").iterdir())) == 20


def test_one_dead_host_of_many_callers_keeps_nobody_elses_event(folder):
    post = Dead()
    box = outbox(folder, post, time.time)
    for number in range(20):
        box.put(f"dead_{number}", "completed", hook("dead.example"), 1000.0, caller=f"caller {number}")

    def act():
        until(lambda: len(post.waiting) == AT_ONCE - 1)
        box.put("late", "completed", hook("alive.example"), 1000.0, caller="bob")
        until(lambda: post.told == ["alive.example"])

    side_by_side(box, act)


def test_a_caller_with_none_on_the_way_comes_first(folder):
    order, box = [], None

    def post(url, *_):
        order.append(host_of(url))
        if len(order) == 1:
            box.send_due()

    box = outbox(folder, post, FakeClock())
    for number, caller in enumerate(["ann", "ann", "ann", "bob"]):
        box.put(f"batch_{number}", "completed", hook(f"{caller}{number}"), 1000.0, caller=caller)
    box.send_due()
    assert sorted(order) == ["ann0", "ann1", "ann2", "bob3"]
    assert [host[:3] for host in order[:2]] == ["ann", "bob"]


def test_an_event_that_brings_out_a_bug_keeps_nobody_elses(folder):
    receiver = Receiver()
    box = outbox(folder, receiver, FakeClock())
    box.put("bad", "completed", Webhook(HOOK.url, SecretStr("whsec_=not base64")), 1000.0, caller="ann")
    box.put("good", "completed", HOOK, 1000.0, caller="bob")
    assert box.send_due() == 1
    assert len(list((folder / "webhooks").iterdir())) == 1


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_trickles_is_left_at_the_deadline(part, monkeypatch):
    monkeypatch.setattr(webhooks, "_WHOLE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=trickle, args=(server, part))
        thread.start()
        post = poster(TransferOptions(urls=UrlPolicy(allow_http=True, allow_private=True, ports=None)))
        begun = time.monotonic()
        with pytest.raises(StorageError):
            post(SecretUrl(f"http://127.0.0.1:{server.getsockname()[1]}/hook"), {}, b"{}")
        assert time.monotonic() - begun < 10
        thread.join()


def trickle(server, part):
    connection, _ = server.accept()
    with connection:
        start = b"HTTP/1.1 500 Oh\r\ncontent-length: 4000\r\n" + (b"\r\n" if part == "body" else b"x-slow: ")
        try:
            connection.sendall(start)
            for _ in range(600):
                connection.sendall(b"a")
                time.sleep(0.05)
        except OSError:
            return
