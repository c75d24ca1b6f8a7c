"""What is reached over the network: a Ray cluster, the storage of inputs and outputs, a service."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx

from lsi_ray.doctor.check import Check, failed, ok, warning
from lsi_ray.errors import LsiError
from lsi_ray.storage.download import stat
from lsi_ray.storage.location import Location
from lsi_ray.storage.presign import presign
from lsi_ray.storage.retry import RetryPolicy
from lsi_ray.storage.transfer import TransferOptions

_CONNECT_S = 5.0
_SKEW_GOOD, _SKEW_MOST = 30.0, 900.0  # S3 refuses a signature from 15 minutes on
_OPTIONS = TransferOptions(retry=RetryPolicy(attempts=2), connect_s=_CONNECT_S, silence_s=20.0, whole_s=40.0)


def ray_address(address: str) -> Check:
    """The head of the cluster that RAY_ADDRESS names."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return ok("RAY_ADDRESS", f"{address}: Ray finds it by itself")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        advice = "start the cluster, open the port, or unset RAY_ADDRESS to run on this machine alone"
        return failed("RAY_ADDRESS", f"nobody answers at {address}: {error}", advice)
    return ok("RAY_ADDRESS", f"a head listens at {address}")


def storage(location: Location, look: Callable[..., object] = stat) -> Check:
    """As a run would read it, with its retries cut short."""
    try:
        look(location, options=_OPTIONS)
    except LsiError as error:
        return failed("storage", str(error), _STORAGE_ADVICE.get(error.code, _STORAGE_ADVICE["other"]))
    return ok("storage", f"{location} can be read")


_STORAGE_ADVICE = {
    "input_forbidden": "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy; a pre-signed URL ends, "
    "and is bound to GET or PUT; and see the clock",
    "input_not_found": "the storage answers, so the network is right: check the bucket and the key",
    "input_expired": "sign a new URL, for as long as the batch may take",
    "other": "check the endpoint (AWS_ENDPOINT_URL), DNS, the proxy (HTTPS_PROXY) and the firewall, from this machine",
}


def skew(
    location: Location, ask: Callable[[str], str | None] | None = None, now: Callable[[], float] = time.time
) -> Check:
    """This machine's clock against that of the storage, which says the time with every answer."""
    try:
        said = (ask or _date)(_origin(location))
    except (httpx.HTTPError, LsiError) as error:
        return warning("time", f"the storage does not say the time: {error}", "see the line of the storage")
    if said is None:
        return warning("time", "the storage does not say the time", "compare by hand: `date -u`")
    ahead = now() - parsedate_to_datetime(said).timestamp()
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the storage's clock"
    if abs(ahead) >= _SKEW_MOST:
        return failed("time", found, "signatures are refused from 15 minutes on: run chrony or systemd-timesyncd")
    if abs(ahead) > _SKEW_GOOD:
        return warning("time", found, "run chrony or systemd-timesyncd before it is 15 minutes")
    return ok("time", f"within {abs(ahead):.0f} s of the storage's clock")


def _origin(location: Location) -> str:
    """Scheme and host alone: nothing signed is sent to learn the time."""
    assert location.url is not None
    url = presign(location.url, "GET", 60.0) if location.kind == "s3" else location.url
    parts = urlsplit(url.reveal())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"


def _date(origin: str) -> str | None:
    said: str | None = httpx.head(origin, timeout=_CONNECT_S).headers.get("date")
    return said


def service(url: str) -> Check:
    """The service of LSI_URL, by the one route that asks for no token."""
    advice = "start it with `lsi serve`, or set LSI_URL to where it is"
    try:
        answer = httpx.get(f"{url.rstrip('/')}/v1/inference/health", timeout=_CONNECT_S)
    except httpx.HTTPError as error:
        return failed("service", f"{url}: {error}", advice)
    if answer.status_code != 200:
        return failed("service", f"{url} answers {answer.status_code}", advice)
    return ok("service", f"{url} is up")
