"""Webhooks: an event for each batch that ends, told at least once, signed as OpenAI signs (Standard Webhooks).

An event lies as a file in the outbox, with its URL and secret, from before the batch is erased until it was taken or
its time is over. Its id follows from the batch, so that a repeated one is known as such.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec

from lsi_ray.errors import LsiError
from lsi_ray.ledger.workdir import atomic_write, make_folder, sync_folder
from lsi_ray.service.backend import Webhook
from lsi_ray.storage.http_exchange import Exchange
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import TransferOptions

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 3600.0
_AT_ONCE = 8
_CONNECT_S, _SILENCE_S = 5.0, 10.0
Post = Callable[[SecretUrl, dict[str, str], bytes], None]


class _Event(msgspec.Struct):
    id: str
    url: str
    secret: str
    body: str
    created_at: float
    tries: int = 0
    next_at: float = 0.0


class Outbox:
    """`post` sends one request and raises LsiError when it was not taken."""

    def __init__(self, folder: Path, post: Post, *, give_up_s: float, clock: Callable[[], float]) -> None:
        make_folder(folder)
        for torn in folder.glob(".*.tmp"):  # of a killed service; it may hold a URL and its secret
            torn.unlink()
        self._folder = folder
        self._post = post
        self._give_up_s = give_up_s
        self._clock = clock

    def put(self, batch_id: str, status: str, webhook: Webhook, ended_at: float) -> None:
        """Durable on return. The same end of the same batch again is the same event, to the byte."""
        event_id = "evt_" + hashlib.blake2b(f"{batch_id}/{status}".encode(), digest_size=12).hexdigest()
        if (self._folder / f"{event_id}.json").exists():
            sync_folder(self._folder)  # whoever wrote it may have been killed before this
            return
        body = {
            "id": event_id,
            "object": "event",
            "created_at": int(ended_at),
            "type": f"batch.{status}",
            "data": {"id": batch_id},
        }
        text = json.dumps(body, separators=(",", ":"))
        self._save(_Event(event_id, webhook.url.reveal(), webhook.secret.get_secret_value(), text, self._clock()))

    def send_due(self) -> int:
        """One try for each event whose time has come; how many were taken. Side by side: some servers never answer."""
        due = [event for event in self._events() if event.next_at <= self._clock()]
        if not due:
            return 0
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return sum(pool.map(self._send, due))

    def _events(self) -> Iterator[_Event]:
        for path in sorted(self._folder.glob("evt_*.json")):
            yield msgspec.json.decode(path.read_bytes(), type=_Event)

    def _send(self, event: _Event) -> bool:
        now = self._clock()
        headers = sign(event.secret, event.id, int(now), event.body)
        try:
            self._post(SecretUrl(event.url), headers, event.body.encode())
        except LsiError as error:
            self._again(event, now, error)
            return False
        (self._folder / f"{event.id}.json").unlink(missing_ok=True)
        return True

    def _again(self, event: _Event, now: float, error: LsiError) -> None:
        wait = min(_FIRST_WAIT_S * 4.0**event.tries, _LONGEST_WAIT_S)
        event.tries += 1
        event.next_at = now + wait
        if event.next_at > event.created_at + self._give_up_s:
            log.warning("webhook %s is given up after %d tries: %s", event.id, event.tries, error)
            (self._folder / f"{event.id}.json").unlink(missing_ok=True)
            return
        log.info("webhook %s was not taken (%s), again in %.0f s", event.id, error, wait)
        self._save(event)

    def _save(self, event: _Event) -> None:
        atomic_write(self._folder / f"{event.id}.json", msgspec.json.encode(event))


def sign(secret: str, event_id: str, timestamp: int, body: str) -> dict[str, str]:
    """A secret that begins with `whsec_` is base64, as the standard has it; any other one is taken as it is."""
    encoded = secret.removeprefix("whsec_")
    key = base64.b64decode(encoded) if encoded != secret else secret.encode()
    digest = hmac.digest(key, f"{event_id}.{timestamp}.{body}".encode(), "sha256")
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def poster(options: TransferOptions) -> Post:
    """Over HTTP, under the same guard as every URL of a user's, without redirects, and with less patience."""
    options = replace(options, connect_s=_CONNECT_S, silence_s=_SILENCE_S)

    def post(url: SecretUrl, headers: dict[str, str], body: bytes) -> None:
        sent = {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        with Exchange(url, "output", options) as exchange, exchange.send("POST", sent, iter([body])):
            pass

    return post
