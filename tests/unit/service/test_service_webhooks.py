from __future__ import annotations

import json
import threading
import time

import openai
import pytest
from pydantic import SecretStr
from service_house import FakeClock

from lsi_ray.errors import StorageError
from lsi_ray.service.backend import Webhook
from lsi_ray.service.webhooks import Outbox, poster
from lsi_ray.storage.guard import STRICT
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


def test_a_server_that_does_not_answer_keeps_nobody_elses_event(folder):
    """Two events, neither taken before the other is on its way."""
    both = threading.Barrier(2, timeout=5)
    box = outbox(folder, lambda *_: both.wait(), time.time)
    for number in range(2):
        box.put(f"batch_{number}", "completed", HOOK, 1000.0)
    assert box.send_due() == 2
