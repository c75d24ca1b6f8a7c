"""A signature shows up in nothing that is shown, logged or raised."""

from __future__ import annotations

import json
import logging
import pickle
import traceback

import pytest
from fault_server import CANARY, QUERY, crawls, cut, drops, says, serving

from lsi_ray.errors import ConfigError, StorageError
from lsi_ray.storage.download import fetch, stat
from lsi_ray.storage.guard import STRICT, UrlPolicy
from lsi_ray.storage.location import Location
from lsi_ray.storage.redact import redact
from lsi_ray.storage.retry import RetryPolicy
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import TransferOptions
from lsi_ray.storage.upload import upload

URL = f"https://user:{CANARY}@store.example:8443/bucket/in%20put.tar.gz?{QUERY}#{CANARY}"


def test_shows_host_and_path_only():
    url = SecretUrl(URL)
    shown = "https://<redacted>@store.example:8443/bucket/in%20put.tar.gz?<redacted>"
    assert str(url) == shown
    assert f"{url}" == f"{url!s}" == format(url) == shown
    for text in (repr(url), repr(Location("http", url=url)), str([url]), f"{url:>200}", repr({"a": url})):
        assert CANARY not in text
    assert url.reveal() == URL


def test_is_not_text_by_accident():
    url = SecretUrl(URL)
    with pytest.raises(TypeError):
        json.dumps(url)
    with pytest.raises(TypeError):
        "".join([url])


def test_equality_hash_and_pickling_keep_the_secret():
    url = SecretUrl(URL)
    assert pickle.loads(pickle.dumps(url)) == url
    assert url != SecretUrl(URL + "0")
    assert {url: 1}[SecretUrl(URL)] == 1
    assert url != URL


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (URL, "in put.tar.gz"),
        ("s3://bucket/a/b.tar", "b.tar"),
        ("https://h/", ""),
        ("https://h?x=/y/z", ""),
        ("https://h/a/b/", "b"),
    ],
)
def test_name(url, name):
    assert SecretUrl(url).name == name


@pytest.mark.parametrize(
    ("query", "expires_at"),
    [
        ("X-Amz-Date=20261123T100000Z&X-Amz-Expires=3600&X-Amz-Signature=x", 1795431600),
        ("x-amz-expires=3600&x-amz-date=20261123T100000Z", 1795431600),
        ("X-Goog-Date=20261123T100000Z&X-Goog-Expires=3600", 1795431600),
        ("sv=2024&se=2026-11-23T11%3A00%3A00Z&sig=x", 1795431600),
        ("se=2026-11-23T11:00Z&sig=x", 1795431600),
        ("se=2026-11-23&sig=x", 1795392000),
        ("Expires=1795431600&Signature=x&Key-Pair-Id=y", 1795431600),
        ("X-Amz-Date=yesterday&X-Amz-Expires=3600", None),
        ("X-Amz-Date=20261123T100000Z&X-Amz-Expires=soon", None),
        ("se=2026-11-23T11:00Z", None),
        ("", None),
    ],
)
def test_expiry(query, expires_at):
    assert SecretUrl(f"https://host/path?{query}").expires_at == expires_at


@pytest.mark.parametrize(
    "text",
    [
        f"GET {URL} failed",
        f"HTTP Request: GET https://host/path?{QUERY} 200",
        f"X-Amz-Signature={CANARY}&x=1",
        f"Authorization: AWS4-HMAC-SHA256 Credential={CANARY}",
        f"{{'Authorization': '{CANARY}'}}",
        f"bearer {CANARY}",
        f"AccountKey: a sig={CANARY}",
        f"X-Amz-Security-Token: {CANARY}",
    ],
)
def test_redact_takes_secrets_out_of_foreign_text(text):
    assert CANARY not in redact(text)


@pytest.mark.parametrize("text", ["ftp://x", f"gs://{CANARY}:{CANARY}@b/k", f"data://x?{CANARY}", "s3://bucket", ""])
def test_unknown_locations_are_refused_without_their_secret(text):
    with pytest.raises(ConfigError) as caught:
        Location.parse(text)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "name", "shown"),
    [
        ("in.tar", "local", "in.tar", "in.tar"),
        ("/a/b c.tar", "local", "b c.tar", "/a/b c.tar"),
        ("file:///a/b%20c.tar", "local", "b c.tar", "/a/b c.tar"),
        ("C:odd?name", "local", "C:odd?name", "C:odd?name"),
        ("s3://bucket/a/in.tar", "s3", "in.tar", "s3://bucket/a/in.tar"),
        ("HTTPS://h/p/in.tar?x=1", "http", "in.tar", "HTTPS://h/p/in.tar?<redacted>"),
    ],
)
def test_locations(text, kind, name, shown):
    location = Location.parse(text)
    assert (location.kind, location.name, str(location)) == (kind, name, shown)
    assert pickle.loads(pickle.dumps(location)) == location


FAULTS = {
    "forbidden": [says(403, body=f"<Code>AccessDenied</Code><Query>{QUERY}</Query>".encode())],
    "code": [says(400, body=f"<Code>{QUERY}</Code>".encode())],
    "redirect": [says(302, {"Location": f"http://127.0.0.1:1/?{QUERY}"})],
    "gives up": [cut(10), drops, says(503)],
    "crawl": [crawls, says(404)],
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("policy", [UrlPolicy(), STRICT, UrlPolicy(hosts=("*.example",))])
def test_no_signature_in_errors_and_logs(name, policy, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    told = []
    options = TransferOptions(
        urls=policy,
        retry=RetryPolicy(attempts=3, sleep=lambda _: None),
        on_retry=lambda error, _: told.append(error),
        slow_window_s=0.02,
        slow_bytes_per_s=1e6,
    )
    (tmp_path / "out").write_bytes(b"output")
    with serving(b"content" * 10) as server:
        location = Location.parse(server.url())
        for call in (
            lambda: fetch(location, lambda _: None, options=options),
            lambda: stat(location, options=options),
            lambda: upload(tmp_path / "out", location, options=options),
        ):
            server.faults = list(FAULTS[name]) if call.__code__.co_names[0] != "upload" else [says(403)]
            try:
                call()
            except StorageError as error:
                told.append(error)
    shown = "".join(f"{error}{error!r}{error.args}{error.__dict__}" for error in told)
    shown += "".join("".join(traceback.format_exception(error)) for error in told)
    assert told
    assert CANARY not in shown
    assert CANARY not in caplog.text
    assert all(pickle.loads(pickle.dumps(error)).code == error.code for error in told)
