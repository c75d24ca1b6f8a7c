"""Which http(s) URLs may be connected to, and the addresses to connect to.

A person's own `lsi run` may reach what that person can reach anyway: the default policy. A service that connects on
behalf of others must not be led to its own network: `STRICT`, https on port 443 of public addresses; and where an
operator allows private ones all the same, then still not to the metadata service of its cloud: `CLOSED_NETWORK`. Under
either
    - a host is resolved once per attempt, every address in the answer must be allowed, and the connection goes to an
      address of that same answer (no second look-up, so no DNS rebinding);
    - the refusal never tells what the host resolved to.
The text is checked character by character before it is parsed, and what httpx parsed is what httpx connects to.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import httpx

from lsi_ray.errors import StorageError
from lsi_ray.storage.secret_url import SecretUrl

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Iterable[str]]

_NAME = r"(?:[A-Za-z0-9_-]{1,63}\.){0,126}[A-Za-z0-9_-]{1,63}\.?"  # Python raises UnicodeError for other labels
_TEXT = re.compile(rf"https?://(?P<host>{_NAME}|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?(?P<rest>[/?].*)?", re.I)

# IANA's special-purpose registries, read 2026-11; `ipaddress.is_global` of Python 3.11 lets several of these through.
_REFUSED_V4 = [
    ipaddress.IPv4Network(net)
    for net in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
        "168.63.129.16/32",  # Azure's host agent: a public number that answers only inside a virtual machine
    )
]
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# Protocol assignments with Teredo, documentation, 6to4, documentation again.
_REFUSED_V6 = [ipaddress.IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
# What answers to this machine alone: link-local, and metadata services of clouds (Azure, Alibaba, Oracle, AWS's IPv6).
_OF_THIS_MACHINE = [
    ipaddress.ip_network(net)
    for net in ("169.254.0.0/16", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fe80::/10", "fd00:ec2::/32")
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """`hosts`: patterns such as "*.s3.eu-central-1.amazonaws.com", one of which the host must match; empty: any."""

    allow_http: bool = True
    allow_private: bool = True
    allow_metadata: bool = False
    """With `allow_private`: also link-local addresses and the metadata services of clouds."""
    ports: frozenset[int] | None = None
    hosts: tuple[str, ...] = ()


PERSONAL = UrlPolicy(allow_metadata=True)
CLOSED_NETWORK = UrlPolicy()
STRICT = UrlPolicy(allow_http=False, allow_private=False, ports=frozenset({443}))


@dataclass(frozen=True, slots=True)
class Destination:
    """`addresses`: where to connect instead of resolving the host again; empty when the policy does not mind."""

    url: httpx.URL
    addresses: tuple[str, ...]


def system_resolver(host: str, port: int) -> Iterable[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def admit(url: SecretUrl, policy: UrlPolicy, resolve: Resolve = system_resolver) -> Destination:
    """Raises StorageError `invalid_url` or `destination_not_allowed`; OSError when the host does not resolve."""
    parsed = check_text(url, policy)
    if policy.allow_private and policy.allow_metadata:
        return Destination(parsed, ())
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    addresses = tuple(dict.fromkeys(resolve(parsed.host, port)))
    allowed = is_elsewhere if policy.allow_private else is_public
    if not addresses or not all(allowed(address) for address in addresses):
        raise _not_allowed(url, "its host")
    return Destination(parsed, addresses)


def check_text(url: SecretUrl, policy: UrlPolicy) -> httpx.URL:
    """What can be said without the network. Raises StorageError `invalid_url` or `destination_not_allowed`."""
    text = url.reveal()
    if not text.isascii() or not text.isprintable() or re.search(r"[\s\\#]", text):
        raise StorageError("invalid_url", f"{url}: a URL holds no spaces, control characters, backslashes or fragment")
    if (match := _TEXT.fullmatch(text)) is None:
        raise StorageError("invalid_url", f"{url}: not an http(s) URL with a plain host and no user in it")
    try:
        parsed = httpx.URL(text)
    except httpx.InvalidURL:
        raise StorageError("invalid_url", f"{url}: not a URL") from None
    host = match["host"].strip("[]").lower()
    if parsed.host.lower() != host or parsed.userinfo:
        raise StorageError("invalid_url", f"{url}: its host can be read in two ways")
    if parsed.scheme != "https" and not policy.allow_http:
        raise _not_allowed(url, "http without TLS")
    if policy.ports is not None and (parsed.port or {"https": 443, "http": 80}[parsed.scheme]) not in policy.ports:
        raise _not_allowed(url, f"port {parsed.port}")
    if policy.hosts and not any(fnmatchcase(host, pattern.lower()) for pattern in policy.hosts):
        raise _not_allowed(url, "its host")
    return parsed


def is_public(text: str) -> bool:
    """Whether an address is public unicast, also behind the notations that carry an IPv4 address inside IPv6."""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:  # with a scope: fe80::1%eth0
        return False
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded_v4(address)
        if embedded is None:
            return address in _GLOBAL_V6 and not any(address in net for net in _REFUSED_V6)
        address = embedded
    return not any(address in net for net in _REFUSED_V4)


def is_elsewhere(text: str) -> bool:
    """Whether an address, public or private, is one that other machines have too."""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:  # with a scope: fe80::1%eth0
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = _embedded_v4(address) or address
    return not address.is_multicast and not any(address in net for net in _OF_THIS_MACHINE)


def _embedded_v4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Mapped, and NAT64, which machines with IPv6 only use for all of IPv4. Teredo and 6to4 are refused as such."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped


def _not_allowed(url: SecretUrl, what: str) -> StorageError:
    return StorageError("destination_not_allowed", f"{url}: destination not allowed ({what})")
