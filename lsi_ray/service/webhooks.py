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
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from lsi_ray.errors import LsiError
from lsi_ray.ledger.workdir import atomic_write, make_folder, sync_folder
from lsi_ray.service.backend import Webhook
from lsi_ray.storage.http_exchange import Exchange
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import TransferOptions

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 3600.0
AT_ONCE = 8
_EACH = AT_ONCE - 1  # of one caller, and to one host
_CONNECT_S, _SILENCE_S, _WHOLE_S = 5.0, 10.0, 20.0
Post = Callable[[SecretUrl, dict[str, str], bytes], None]


class _Event(msgspec.Struct):
    id: str
    url: str
    secret: str
    body: str
    created_at: float
    tries: int = 0
    next_at: float = 0.0
    caller: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


class Outbox:
    """`post` sends one request and raises LsiError when it was not taken."""

    def __init__(self, folder: Path, post: Post, *, give_up_s: float, clock: Callable[[], float]) -> None:
        make_folder(folder)
        self._folder = folder
        self._post = post
        self._give_up_s = give_up_s
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = self._load()
        self._trying: dict[str, _Event] = {}

    def put(self, batch_id: str, status: str, webhook: Webhook, ended_at: float, *, caller: str = "") -> None:
        """Durable on return. The same end of the same batch again is the same event, to the byte."""
        event_id = "evt_" + hashlib.blake2b(f"{batch_id}/{status}".encode(), digest_size=12).hexdigest()
        body = {
            "id": event_id,
            "object": "event",
            "created_at": int(ended_at),
            "type": f"batch.{status}",
            "data": {"id": batch_id},
        }
        text = json.dumps(body, separators=(",", ":"))
        url, secret = webhook.url.reveal(), webhook.secret.get_secret_value()
        with self._lock:
            if self._path(event_id).exists():
                sync_folder(self._folder)  # whoever wrote it may have been killed before this
                return
            event = _Event(event_id, url, secret, text, self._clock(), caller=caller)
            self._save(event)
            self._waiting[event_id] = event

    def send_due(self) -> int:
        """One try for each event whose time has come and that nobody else is trying; how many were taken.

        For `AT_ONCE` threads side by side, each again and again: a server that never answers holds one of them."""
        taken = 0
        while (event := self._claim()) is not None:
            try:
                taken += self._send(event)
            finally:
                with self._lock:
                    del self._trying[event.id]
                    if self._path(event.id).exists():
                        self._waiting[event.id] = event
        return taken

    def _load(self) -> dict[str, _Event]:
        for torn in self._folder.glob(".*.tmp"):  # of a killed service; it may hold a URL and its secret
            torn.unlink()
        paths = sorted(self._folder.glob("evt_*.json"))
        return {path.stem: msgspec.json.decode(path.read_bytes(), type=_Event) for path in paths}

    def _claim(self) -> _Event | None:
        """Of those due, one of the caller, and then to the host, with the fewest on their way; new ones first. No
        caller and no host has all threads. With 10,000 due it takes 17 ms."""
        now = self._clock()
        with self._lock:
            callers = Counter(event.caller for event in self._trying.values())
            hosts = Counter(event.host for event in self._trying.values())
            free = [
                event
                for event in self._waiting.values()
                if event.next_at <= now and callers[event.caller] < _EACH and hosts[event.host] < _EACH
            ]
            if not free:
                return None
            event = min(free, key=lambda one: (callers[one.caller], hosts[one.host], one.next_at))
            self._trying[event.id] = self._waiting.pop(event.id)
            return event

    def _send(self, event: _Event) -> bool:
        now = self._clock()
        try:
            headers = sign(event.secret, event.id, int(now), event.body)
            self._post(SecretUrl(event.url), headers, event.body.encode())
        except LsiError as error:
            self._again(event, now, str(error))
            return False
        except Exception as error:  # a bug that one event brings out; it is tried again, later and later, as any other
            log.exception("webhook %s", event.id)
            self._again(event, now, type(error).__name__)
            return False
        self._path(event.id).unlink(missing_ok=True)
        return True

    def _again(self, event: _Event, now: float, why: str) -> None:
        wait = min(_FIRST_WAIT_S * 4.0**event.tries, _LONGEST_WAIT_S)
        event.tries += 1
        event.next_at = now + wait
        if event.next_at > event.created_at + self._give_up_s:
            log.warning("webhook %s is given up after %d tries: %s", event.id, event.tries, why)
            self._path(event.id).unlink(missing_ok=True)
            return
        log.info("webhook %s was not taken (%s), again in %.0f s", event.id, why, wait)
        self._save(event)

    def _save(self, event: _Event) -> None:
        atomic_write(self._path(event.id), msgspec.json.encode(event))

    def _path(self, event_id: str) -> Path:
        return self._folder / f"{event_id}.json"


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
    options = replace(options, connect_s=_CONNECT_S, silence_s=_SILENCE_S, whole_s=_WHOLE_S)

    def post(url: SecretUrl, headers: dict[str, str], body: bytes) -> None:
        sent = {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        with Exchange(url, "output", options) as exchange, exchange.send("POST", sent, iter([body])):
            pass

    return post
