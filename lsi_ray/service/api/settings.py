"""What an operator may set about the HTTP API; part of the deployment's YAML."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lsi_ray.service.api.window import parse_window
from lsi_ray.storage.guard import STRICT, UrlPolicy


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rate(_Section):
    """Requests of one caller: `burst` at once, and `per_second` on average."""

    per_second: float = Field(gt=0)
    burst: int = Field(default=1, ge=1)


class Rates(_Section):
    lsi_writes: Rate = Rate(per_second=1.0, burst=5)
    """LSI's documented limit is 1 request/s; the burst lets a script submit, look and cancel."""
    openai_writes: Rate = Rate(per_second=10.0, burst=50)
    """Writes are counted in one place for all Serve replicas, exactly."""
    reads: Rate = Rate(per_second=50.0, burst=200)
    """Each Serve replica counts for itself: a caller may have as many times this as there are replicas."""


class ApiSettings(_Section):
    min_window: str = "1m"
    max_window: str = "30d"
    max_priority: int = Field(default=100, ge=0)
    """A caller may ask for priorities from minus this to this."""
    short_urls: Literal["refuse", "warn"] = "refuse"
    """What happens to a pre-signed URL that has expired or ends before the window."""
    url_schemes: Literal["https", "http"] = "https"
    """`http` also allows URLs without TLS, on any port: for tests and closed networks."""
    url_private: bool = False
    """Let URLs lead to private addresses, loopback, 10.0.0.0/8 and the like, on any port. Whoever has a token then
    reaches, through this service, whatever it reaches itself; narrow it with `url_hosts`. Link-local addresses and the
    metadata of clouds are refused all the same."""
    url_hosts: tuple[str, ...] = ()
    """Patterns such as `*.s3.eu-central-1.amazonaws.com`, one of which the host of a URL must match; empty: any."""
    repeat_within: str = "2m"
    """The same body of the same caller within this time, without an Idempotency-Key, is the same batch."""
    sign_in_for: str = "12h"
    """How long the web page knows a browser before it asks for the token again."""
    rates: Rates = Rates()
    max_concurrent: int = Field(default=64, ge=1)
    """Requests of one caller at once, for each Serve replica; uploads and results count for as long as they stream."""
    max_body_bytes: int = Field(default=64 * 2**10, ge=1024)
    max_file_bytes: int = Field(default=5_000_000_000, ge=1024)
    max_batches_per_request: int = Field(default=50, ge=1)
    body_timeout_s: float = Field(default=20.0, gt=0)
    """A client must bring its body (uploads: their next piece, and 1 KiB/s from then on) within this time."""

    @field_validator("min_window", "max_window", "repeat_within", "sign_in_for")
    @classmethod
    def _is_window(cls, text: str) -> str:
        parse_window(text)
        return text

    @model_validator(mode="after")
    def _check(self) -> ApiSettings:
        if parse_window(self.min_window) > parse_window(self.max_window):
            raise ValueError(f"min_window {self.min_window} is above max_window {self.max_window}")
        return self

    @property
    def repeat_within_s(self) -> float:
        return parse_window(self.repeat_within)

    @property
    def sign_in_s(self) -> float:
        return parse_window(self.sign_in_for)

    @property
    def url_policy(self) -> UrlPolicy:
        http = self.url_schemes == "http"
        ports = None if http or self.url_private else STRICT.ports
        return UrlPolicy(allow_http=http, allow_private=self.url_private, ports=ports, hosts=self.url_hosts)
