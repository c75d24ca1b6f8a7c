"""URLs that lead where a service must not go, at every place that connects: not one connection reaches the canary.

The canary counts connections to 127.0.0.1. Names resolve by a table (to it, and to other private addresses), never by a
real resolver. The policy of these tests allows any port and http, so that what refuses is the address and nothing else;
the default of a service, `STRICT`, must refuse them all too.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lsi_ray.errors import LsiError
from lsi_ray.service.webhooks import poster
from lsi_ray.storage import guard
from lsi_ray.storage.download import fetch, stat
from lsi_ray.storage.guard import CLOSED_NETWORK, STRICT, UrlPolicy, is_elsewhere
from lsi_ray.storage.location import Location
from lsi_ray.storage.retry import RetryPolicy
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import TransferOptions
from lsi_ray.storage.upload import upload

ANY_PORT = UrlPolicy(allow_http=True, allow_private=False)
# By name, what it resolves to. `rebinds.example` answers once in public, and then privately.
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "localhost.localdomain": ["127.0.0.1"],
    "ip6-localhost": ["::1"],
    "canary.example": ["127.0.0.1"],
    "canary.example.": ["127.0.0.1"],
    "several.example": ["8.8.8.8", "127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "instance-data": ["169.254.169.254"],
    "intranet.example": ["10.0.0.7"],
    "docker.example": ["172.17.0.1"],
    "router.example": ["192.168.1.1"],
    "carrier.example": ["100.64.0.1"],
    "unique-local.example": ["fd00::7"],
    "scoped.example": ["fe80::1%lo"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "xn--lcalhost-54a.example": ["127.0.0.1"],
    "nothing.example": [],
}
HOSTS = [
    *NAMES,
    "LOCALHOST", "LocalHost.", "CANARY.example",
    # IPv4: decimal, octal, hexadecimal, short, mixed, padded, overflowing.
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1",
    "0X7F.1", "0177.0.0.1", "0177.1", "127.0x0.0.1", "127.000.000.001", "0000127.0.0.1", "00000000177.1", "4294967297",
    "127.0.0.1.", "2130706433.", "0", "0.0.0.0", "0.", "00", "0x0", "127.0.0.01", "383.0.0.1", "127.65537", "127.0.257",
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.254.169.254.",
    "10.0.0.1", "10.1", "172.16.0.1", "192.168.0.1", "192.168.1", "100.64.0.1", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    # IPv6: loopback, mapped, compatible, NAT64, 6to4, Teredo, scoped, local.
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]", "[::FFFF:127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "[::ffff:0.0.0.0]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]",
    "[2001:0:7f00:1::]", "[2001::7f00:1]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]",
    "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]", "[100::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]",
    "[::ffff:169.254.169.254]",
    "[v1.127.0.0.1]", "[127.0.0.1]",
    # Two readings of one authority.
    "good.example@127.0.0.1", "good.example:80@127.0.0.1", "@127.0.0.1", ":@127.0.0.1", "127.0.0.1@", "a:b@localhost",
    "good.example\\@127.0.0.1", "127.0.0.1\\@good.example", "good.example%40127.0.0.1", "good.example#@127.0.0.1",
    "127.0.0.1%23.good.example", "127.0.0.1%2f", "127.0.0.1%00.good.example", "127.0.0.1,good.example", "127.0.0.1;",
    "127.0.0.1&good.example", "127.0.0.1 good.example", "127.0.0.1\t", "127.0.0.1\n", "127.0.0.1\r\nHost: good.example",
    "\t127.0.0.1", " 127.0.0.1", "127\n.0.0.1", "127.0.0.1\x00", "127.0.0.1\x7f", "%31%32%37.0.0.1", "loc%61lhost",
    # Letters that become others: full stops, digits in circles, full width, soft hyphen, sharp s, right to left.
    "127\u30020\u30020\u30021", "127\uff0e0\uff0e0\uff0e1", "127\uff610\uff610\uff611", "\u2460\u2461\u2466.0.0.1",
    "\uff11\uff12\uff17.0.0.1", "loc\u00adalhost", "l\u00f6calhost", "127.0.0.\u00b9",
    "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
    "\u202e127.0.0.1", "local\u200bhost", "\u017fomewhere.localhost",
    "\U0001d7cf27.0.0.1",
]  # fmt: skip
WHOLE = [
    "http:127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "http:\\\\127.0.0.1:{port}/",
    "http:/\\127.0.0.1:{port}/", "//127.0.0.1:{port}/", "\\\\127.0.0.1:{port}/", " http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}", "http://127.0.0.1:{port}?x", "http://127.0.0.1:{port}#x", "hTTp://127.0.0.1:{port}/x",
    "http://127.0.0.1:0{port}/x", "http://127.0.0.1: {port}/x", "http://127.0.0.1:{port}@good.example/x",
    "http://good.example:80:{port}/", "http://127.0.0.1:{port}:80/", "http://127.0.0.1:+{port}/", "http://[::1]{port}/",
    "http+unix://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_GET", "dict://127.0.0.1:{port}/", "ws://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/x", "sftp://127.0.0.1:{port}/x", "ldap://127.0.0.1:{port}/x", "tftp://127.0.0.1:{port}/x",
    "jar:http://127.0.0.1:{port}/x!/", "url:http://127.0.0.1:{port}/", "view-source:http://127.0.0.1:{port}/",
    "http\n://127.0.0.1:{port}/", "ht\ttp://127.0.0.1:{port}/", "\x01http://127.0.0.1:{port}/", "https:",
    "http://", "http://:{port}/", "http://" + "a" * 64 + ":{port}/", "http://" + "a." * 200 + ":{port}/",
     "http://.:{port}/", "http://..:{port}/", "http://[]:{port}/", "http://-:{port}/",
    "http://127.0.0.1:99999/", "http://127.0.0.1:-1/", "http://127.0.0.1:{port}\\@good.example/",
]  # fmt: skip


@contextmanager
def listening(answer: bytes = b"") -> Iterator[tuple[int, list[object]]]:
    """A port of 127.0.0.1 that gives every request the same answer, and a list that grows with every connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    touched: list[object] = []

    def serve() -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            touched.append(address)
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                if answer:
                    connection.recv(1 << 16)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], touched
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@pytest.fixture
def canary() -> Iterator[tuple[int, list[object]]]:
    with listening() as found:
        yield found


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def look_up(host, port, family=0, type=0, proto=0, flags=0):
        name = host.decode() if isinstance(host, bytes) else host
        if name.lower() in NAMES:
            if not NAMES[name.lower()]:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in NAMES[name.lower()]]
        # The rest are numbers in some notation, or no names at all: the system says which, without asking anyone.
        return real(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


Entry = Callable[[str, TransferOptions], object]


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Entry]:
    """Every way in which a URL of a user's leads to a connection."""
    out = tmp_path / "out"
    out.write_bytes(b"result")
    return {
        "fetch": lambda url, options: fetch(Location.parse(url), lambda _: None, options=options),
        "stat": lambda url, options: stat(Location.parse(url), options=options),
        "upload": lambda url, options: upload(out, Location.parse(url), options=options),
        "webhook": lambda url, options: poster(options)(SecretUrl(url), {}, b"{}"),
    }


def options(policy: UrlPolicy) -> TransferOptions:
    return TransferOptions(urls=policy, retry=RetryPolicy(attempts=1, sleep=lambda _: None), connect_s=1, silence_s=1)


def urls(port: int) -> list[str]:
    found = [f"http://{host}:{port}/x?sig=1" for host in HOSTS]
    found += [f"https://{host}:{port}/x" for host in HOSTS] + [f"https://{host}/x" for host in HOSTS]
    found += [text.replace("{port}", str(port)) for text in WHOLE]
    return found


def is_path(url: str) -> bool:
    """A local path is for the person at the machine; the API takes none (tests/unit/service/api/test_api_urls.py)."""
    return "://" not in url or url.lower().startswith("file:")


@pytest.mark.parametrize("policy", [ANY_PORT, STRICT], ids=["any-port", "strict"])
def test_no_form_of_url_reaches_the_canary_from_any_entry_point(canary, entries, policy) -> None:
    port, touched = canary
    assert len(HOSTS) + len(WHOLE) >= 180
    through = []
    for url in urls(port):
        for name, entry in entries.items():
            if is_path(url) and name != "webhook":
                continue
            try:
                entry(url, options(policy))
            except LsiError as error:
                is_refusal = error.code in ("invalid_url", "destination_not_allowed", "invalid_config")
                if not is_refusal and "gaierror" not in error.message:  # what is no name at all resolves to nothing
                    through.append((name, url, str(error)))
            else:
                through.append((name, url, "accepted"))
    assert through == []
    assert touched == []


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("127.")])
def test_a_refusal_does_not_tell_what_a_name_resolves_to(entries, name) -> None:
    for entry in entries.values():
        with pytest.raises(LsiError) as caught:
            entry(f"https://{name}/x?sig=1", options(STRICT))
        shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
        assert not [address for address in NAMES[name] if address in shown]


def test_a_redirect_is_not_followed_wherever_it_leads(canary, entries, monkeypatch) -> None:
    port, touched = canary
    monkeypatch.setattr(guard, "is_public", lambda address: address == "127.0.0.1")  # else no server could redirect us
    targets = [
        f"http://127.0.0.1:{port}/",
        f"http://localhost:{port}/",
        f"//127.0.0.1:{port}/",
        "http://169.254.169.254/",
    ]
    for status in (301, 302, 303, 307, 308):
        for target in targets:
            moved = f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            with listening(moved.encode()) as (redirecting, asked):
                for entry in entries.values():
                    with pytest.raises(LsiError, match="redirects are not followed"):
                        entry(f"http://canary.example:{redirecting}/x", options(ANY_PORT))
                assert len(asked) == len(entries)
    assert touched == []


def test_a_name_that_changes_its_mind_is_asked_once_and_connected_to_as_it_answered(
    canary, entries, monkeypatch
) -> None:
    """Public at the check, the canary at the connection: the connection goes to what was checked."""
    port, touched = canary
    asked: list[str] = []
    connected: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8"] if len(asked) % 2 else ["127.0.0.1"]

    def connect(address, *_, **__):
        connected.append(address[0])
        raise OSError("no network in tests")

    monkeypatch.setattr(guard.admit, "__defaults__", (rebinding,))
    monkeypatch.setattr(socket, "create_connection", connect)
    for count, entry in enumerate(entries.values(), start=1):
        with pytest.raises(LsiError, match="no network"):
            entry(f"http://rebinds.example:{port}/x", options(ANY_PORT))
        assert len(asked) == 2 * count - 1
        with pytest.raises(LsiError, match="not allowed"):
            entry(f"http://rebinds.example:{port}/x", options(ANY_PORT))
    assert set(connected) == {"8.8.8.8"}
    assert touched == []


@pytest.mark.parametrize(
    "variable", ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
)
def test_a_proxy_of_the_environment_is_not_used(canary, entries, monkeypatch, variable) -> None:
    port, touched = canary
    monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "*.example")
    monkeypatch.setattr(guard, "is_public", lambda address: address == "127.0.0.1")
    done = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    with listening(done) as (serving, asked):
        for entry in entries.values():
            entry(f"http://canary.example:{serving}/x", options(ANY_PORT))
        assert len(asked) == len(entries)
    assert touched == []


@pytest.mark.parametrize(("address", "elsewhere"), [
    ("10.0.0.1", True), ("127.0.0.1", True), ("192.168.1.1", True), ("fd00::1", True), ("8.8.8.8", True), ("::1", True),
    ("169.254.169.254", False), ("169.254.1.1", False), ("100.100.100.200", False), ("168.63.129.16", False),
    ("192.0.0.192", False), ("fd00:ec2::254", False), ("fe80::1", False), ("fe80::1%eth0", False), ("nonsense", False),
    ("::ffff:169.254.169.254", False), ("64:ff9b::a9fe:a9fe", False), ("224.0.0.1", False), ("ff02::1", False),
])  # fmt: skip
def test_where_private_addresses_are_allowed_the_clouds_metadata_still_is_not(address: str, elsewhere: bool) -> None:
    assert is_elsewhere(address) is elsewhere
    if elsewhere:
        assert guard.admit(SecretUrl("http://x.example/"), CLOSED_NETWORK, lambda *_: [address]).addresses == (address,)
    else:
        with pytest.raises(LsiError, match="not allowed"):
            guard.admit(SecretUrl("http://x.example/"), CLOSED_NETWORK, lambda *_: ["10.0.0.1", address])
