"""What callers order: batches with rows of known fates, and what must come back of each row."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pydantic import SecretStr

from lsi_ray.archive.tar_writer import TarWriter, open_gzip
from lsi_ray.service.backend import Caller, Repeat, Retry, Submission, Webhook
from lsi_ray.storage.secret_url import SecretUrl

MODELS = ("sim/a", "sim/b")
CALLERS = (Caller("ann", "Ann"), Caller("bob", "Bob"))

IN, OUT, HOOK = "1.0.0.1", "1.0.0.2", "1.0.0.3"
"""Addresses in place of names: nobody is asked to resolve them."""

FAILURES = {
    "bad": {"invalid_value"},
    "error": {"model_refused"},
    "crash": {"engine_crashed"},
    "hang": {"engine_timeout", "engine_crashed"},
}
"""Codes a row of a kind may end with, beside those of a batch that ends early."""


@dataclass(slots=True)
class Order:
    """One request to make a batch, sent until it is acknowledged and now and then once more.

    `kinds`: per row ok, bad (refused by validation), error (by the engine), crash or hang (of the engine).
    """

    number: int
    caller: Caller
    model: str
    kinds: tuple[str, ...]
    key: str | None
    window_s: float
    in_url: bool
    out_url: bool
    webhook: bool
    hopeless: bool = False
    """The input is no archive: the batch must fail."""
    root: Order | None = None
    """A retry's first order, whose input it runs again: those rows of it whose numbers are given."""
    numbers: tuple[int, ...] = ()
    retry_of: str | None = None
    file_id: str | None = None
    ids: set[str] = field(default_factory=set)
    """Of the batches that an acknowledgement named: never more than one."""
    first_sent: float | None = None
    refused: bool = False

    @property
    def marker(self) -> str:
        return f"mark{(self.root or self).number}kram"

    def input_path(self, issue: int = 0) -> str:
        return f"/in/{self.number}-{issue}.tar"

    @property
    def body_digest(self) -> str:
        return hashlib.sha256(f"order {self.number}".encode()).hexdigest()

    def input_url(self, issue: int = 0) -> SecretUrl:
        return SecretUrl(f"http://{IN}{self.input_path(issue)}?X-Amz-Signature=secret{self.marker}")

    def output_url(self, issue: int = 0) -> SecretUrl:
        return SecretUrl(f"http://{OUT}/out/{self.number}-{issue}.tar.gz?X-Amz-Signature=secret{self.marker}")

    @property
    def hook(self) -> Webhook | None:
        if not self.webhook:
            return None
        return Webhook(SecretUrl(f"http://{HOOK}/{self.number}?key=secret{self.marker}"), SecretStr("s" + self.marker))

    def submission(self) -> Submission:
        return Submission(
            surface="lsi",
            endpoint="/v1/chat/completions",
            window="24h",
            window_s=self.window_s,
            repeat=Repeat(self.body_digest, self.key),
            input_url=self.input_url() if self.in_url else None,
            input_file_id=None if self.in_url else self.file_id,
            output_url=self.output_url() if self.out_url else None,
            model=self.model,
            metadata={"order": str(self.number)},
            webhook=self.hook,
        )

    def retry(self) -> Retry:
        """Now and then on the input URL of the batch, as long as that is kept."""
        return Retry(
            Repeat(self.body_digest, self.key),
            failed_only=True,
            input_url=self.input_url() if self.in_url and self.number % 2 else None,
            output_url=self.output_url() if self.out_url else None,
        )

    def custom_id(self, row: int) -> str:
        return f"{self.marker}-{self.numbers[row] if self.numbers else row}"

    def body(self, row: int) -> dict[str, object]:
        number, kind = self.numbers[row] if self.numbers else row, self.kinds[row]
        text = f"{self.marker} row {number} [[{kind}]]"
        bad = {"temperature": 99} if kind == "bad" else {}
        return {"model": self.model, "messages": [{"role": "user", "content": text}], **bad}

    def jobs(self) -> bytes:
        lines = (
            {"custom_id": self.custom_id(row), "method": "POST", "url": "/v1/chat/completions", "body": self.body(row)}
            for row in range(len(self.kinds))
        )
        return b"\n".join(json.dumps(line).encode() for line in lines)

    def input_bytes(self) -> bytes:
        """A tar, gzipped for every second one; for the Files API the bare lines."""
        if self.root is not None:
            return self.root.input_bytes()
        if self.hopeless:
            return b"\x1f\x8b no archive " + self.marker.encode() * 20
        if not self.in_url:
            return self.jobs()
        target = io.BytesIO()
        plain = open_gzip(target) if self.number % 2 else target
        tar = TarWriter(plain)
        tar.add_bytes("jobs.jsonl", self.jobs())
        tar.close()
        if plain is not target:
            plain.close()
        return target.getvalue()

    def answer(self, row: int) -> str:
        """The text of the only right answer: the simulated engine's."""
        digest = hashlib.sha256(json.dumps(self.body(row), sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.custom_id(row)} {digest}"


def draw(dice: random.Random, number: int) -> Order:
    rows = dice.choice([1, 2, 3, 5, 8, 13])
    mood = dice.choice(
        [("ok",), ("ok",), ("ok", "ok", "ok", "bad", "error"), ("ok", "ok", "ok", "ok", "crash", "hang")]
    )
    return Order(
        number=number,
        caller=dice.choice(CALLERS),
        model=dice.choice(MODELS[: dice.choice([1, 1, 2])]),
        kinds=tuple(dice.choice(mood) for _ in range(rows)),
        key=dice.choice([None, f"key-{number}"]),
        window_s=dice.choice([300.0, 3600.0, 86_400.0]),
        in_url=dice.random() < 0.6,
        out_url=dice.random() < 0.7,
        webhook=dice.random() < 0.5,
        hopeless=dice.random() < 0.05,
    )


def again(old: Order, number: int, rows: Sequence[int], retry_of: str) -> Order:
    """A retry of some rows of a batch that has ended."""
    return replace(
        old,
        number=number,
        root=old.root or old,
        kinds=tuple(old.kinds[row] for row in rows),
        numbers=tuple(old.numbers[row] if old.numbers else row for row in rows),
        key=f"retry-{number}",
        webhook=False,
        retry_of=retry_of,
        ids=set(),
        first_sent=None,
        refused=False,
    )
