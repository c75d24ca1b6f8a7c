"""Where a connection may go: the text of a URL, every address it resolves to, and the address that is connected to."""

from __future__ import annotations

import datetime
import re
import socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fault_server import serving

from lsi_ray.errors import StorageError
from lsi_ray.storage import guard, http_exchange
from lsi_ray.storage.download import fetch
from lsi_ray.storage.guard import PERSONAL, STRICT, UrlPolicy, admit, check_text, is_public
from lsi_ray.storage.location import Location
from lsi_ray.storage.retry import RetryPolicy
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import TransferOptions

MALFORMED = [
    "https://user@host/",
    "https://user:pass@host/",
    "https://good.example\\@127.0.0.1/",
    "https://good.example#@127.0.0.1/",
    "https://good.example/#fragment",
    "https://good.example/a b",
    "https://good.example/\n",
    "https://good.example/\x00",
    "https://good.example /",
    "https://①②⑦.0.0.1/",
    "https://127.0.0.1%2f@good.example/",
    "https://%31%32%37.0.0.1/",
    "https://[fe80::1%25eth0]/",
    "https://good.example:port/",
    "https://good.example:999999/",
    "https:///path",
    "https://",
    "https:good.example",
    "https:/good.example",
    "//good.example",
    "file:///etc/passwd",
    "gopher://good.example/",
    "ftp://good.example/",
    "https://good.example\t/",
    "https://exämple.com/",
    "https://good.example,127.0.0.1/",
    "https://[::1/",
    "https://a:b:c/",
]
NOT_PUBLIC = re.findall(
    r"\S+",
    """
    0.0.0.0 10.1.2.3 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.1 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1
    255.255.255.255 168.63.129.16 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:10.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1:: 2001:db8::1 2002:7f00:1::
    2002:808:808:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1 nonsense
    """,
)
PUBLIC = ["8.8.8.8", "52.216.0.1", "2600:1f18::1", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
NUMBERS = ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]


def refusal(call, *args) -> StorageError:
    with pytest.raises(StorageError) as caught:
        call(*args)
    return caught.value


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("policy", [PERSONAL, STRICT])
def test_malformed_urls_are_refused_under_every_policy(text, policy):
    assert refusal(check_text, SecretUrl(text), policy).code == "invalid_url"


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public_unicast(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("host", NUMBERS)
def test_every_way_to_write_loopback_is_refused(host):
    error = refusal(admit, SecretUrl(f"https://{host}/x"), STRICT)
    assert error.code in ("destination_not_allowed", "invalid_url")


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_one_private_answer_among_public_ones_is_refused_and_not_told(address):
    error = refusal(admit, SecretUrl("https://store.example/x?y"), STRICT, lambda *_: ["8.8.8.8", address])
    assert error.code == "destination_not_allowed"
    assert address not in error.message.replace("https://", "")


def test_no_answer_is_refused():
    assert refusal(admit, SecretUrl("https://store.example/"), STRICT, lambda *_: []).code == "destination_not_allowed"


def test_strict_policy_pins_what_it_checked():
    found = admit(SecretUrl("https://store.example/x?y"), STRICT, lambda *_: ["8.8.8.8", "2600::1", "8.8.8.8"])
    assert found.addresses == ("8.8.8.8", "2600::1")
    assert found.url.host == "store.example"


def test_personal_policy_allows_http_and_private_and_does_not_resolve():
    def never(*_):
        raise AssertionError("resolved")

    assert admit(SecretUrl("http://10.0.0.1:9000/x"), PERSONAL, never).addresses == ()


@pytest.mark.parametrize(
    ("url", "policy"),
    [
        ("http://store.example/", STRICT),
        ("https://store.example:8443/", STRICT),
        ("https://store.example/", UrlPolicy(hosts=("*.other.example",))),
        ("https://evil-other.example/", UrlPolicy(hosts=("*.other.example",))),
    ],
)
def test_scheme_port_and_host_lists(url, policy):
    assert refusal(check_text, SecretUrl(url), policy).code == "destination_not_allowed"


def test_host_list_admits_what_it_names():
    policy = UrlPolicy(hosts=("*.s3.example",))
    assert check_text(SecretUrl("https://bucket.S3.example/key"), policy).host == "bucket.s3.example"


def test_connects_to_the_checked_address_with_the_original_host(monkeypatch):
    """A resolver whose second answer is another address has no second chance: nothing resolves again."""
    monkeypatch.setattr(guard, "is_public", lambda address: address == "127.0.0.1")
    answers = iter([["127.0.0.1"]])
    real = socket.getaddrinfo

    def rebinding(host, port, *args, **more):
        if host == "store.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers)[0], port))]
        return real(host, port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with serving(b"content") as server:
        url = server.url().replace("127.0.0.1", "store.example")
        options = TransferOptions(urls=UrlPolicy(allow_private=False), retry=RetryPolicy(attempts=1))
        received = bytearray()
        fetch(Location.parse(url), received.extend, options=options)
        assert received == b"content"
        assert server.seen[0][1]["Host"] == f"store.example:{server.port}"


def test_a_name_that_changes_its_address_is_refused_at_the_next_attempt(monkeypatch):
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    monkeypatch.setattr(guard, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(guard.admit, "__defaults__", (lambda *_: next(answers),))
    with serving(b"content") as server:
        server.faults = [lambda request: request.hang_up(reset=True) is None]
        url = server.url().replace("127.0.0.1", "store.example")
        options = TransferOptions(urls=UrlPolicy(allow_private=False), retry=RetryPolicy(sleep=lambda _: None))
        error = refusal(lambda: fetch(Location.parse(url), lambda _: None, options=options))
        assert error.code == "destination_not_allowed"
        assert len(server.seen) == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Signed by itself, for store.example."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store.example")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("store.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "store.pem"
    unencrypted = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted)
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.mark.parametrize(
    ("host", "trusted", "code"),
    [
        ("store.example", True, None),
        ("store.example", False, "input_untrusted"),
        ("other.example", True, "input_untrusted"),
    ],
)
def test_a_pinned_connection_checks_the_certificate_of_the_name(monkeypatch, certificate, host, trusted, code):
    monkeypatch.setattr(guard, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(guard.admit, "__defaults__", (lambda *_: ["127.0.0.1"],))
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    http_exchange._trusted.cache_clear()
    try:
        with serving(b"content", certificate) as server:
            options = TransferOptions(
                urls=UrlPolicy(allow_http=False, allow_private=False), retry=RetryPolicy(attempts=1)
            )
            location = Location.parse(server.url().replace("http://127.0.0.1", f"https://{host}"))
            if code is None:
                assert fetch(location, lambda _: None, options=options).size == len(b"content")
            else:
                assert refusal(lambda: fetch(location, lambda _: None, options=options)).code == code
    finally:
        http_exchange._trusted.cache_clear()
