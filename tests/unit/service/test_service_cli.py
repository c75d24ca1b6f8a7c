from __future__ import annotations

import pytest
from rich.console import Console

from lsi_ray.cli import serve, token
from lsi_ray.errors import ConfigError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_wider_bind_needs_tokens_and_a_ray_that_asks_for_one(folder, host, monkeypatch, capsys):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE"):
        serve._check_host(host, folder)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ConfigError, match="token create"):
        serve._check_host(host, folder)
    token.create_command(folder, "ann", "", "read", None, False)
    assert capsys.readouterr().out.startswith("lsi-")
    serve._check_host(host, folder)


def test_the_first_token_is_shown_once_and_on_standard_output(capsys):
    serve._tell(Console(stderr=True, width=80), "127.0.0.1", 8000, "lsi-1-thesecret", ["lsi/tiny-vl"])
    shown = capsys.readouterr()
    assert shown.out == "lsi-1-thesecret\n"
    assert "thesecret" not in shown.err
    assert "Bearer $LSI_TOKEN" in shown.err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_is_always_fine(folder, host):
    serve._check_host(host, folder)


def test_tokens_are_listed_without_their_secrets_and_revoked(folder, capsys):
    token.create_command(folder, "ann", "laptop", "read,write", 86_400.0, False)
    text = capsys.readouterr().out.strip()
    token.list_command(folder, False)
    listed = capsys.readouterr().out
    assert "ann" in listed
    assert text.split("-", 2)[2] not in listed
    token.revoke_command(folder, text.split("-")[1])
    token.list_command(folder, True)
    assert '"revoked_at": 1' in capsys.readouterr().out
    with pytest.raises(ConfigError):
        token.revoke_command(folder, "gone")
    with pytest.raises(ConfigError):
        token.create_command(folder, "ann", "", "admin", None, False)
