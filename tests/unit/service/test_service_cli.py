from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from rich.console import Console

from lsi_ray.cli import serve, token
from lsi_ray.errors import ConfigError, LedgerError, LsiError
from lsi_ray.ledger.lock import WorkLock
from lsi_ray.service import host
from lsi_ray.service.front_door import guard


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_wider_bind_needs_tokens_and_a_ray_that_asks_for_one(folder, address, monkeypatch, capsys):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE"):
        serve._check_host(address, folder)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ConfigError, match="token create"):
        serve._check_host(address, folder)
    token.create_command(folder, "ann", "", "read", None, False)
    assert capsys.readouterr().out.startswith("lsi-")
    serve._check_host(address, folder)


@pytest.mark.parametrize(
    ("address", "bind", "ours", "told"),
    [
        ("10.0.0.1:6379", "0.0.0.0", False, True),
        ("10.0.0.1:6379", "0.0.0.0", True, False),
        ("10.0.0.1:6379", "127.0.0.1", False, False),
        ("local", "0.0.0.0", False, False),
        (None, "0.0.0.0", False, False),
    ],
)
def test_a_wider_bind_on_a_ray_that_is_there_tells_what_guards_it(address, bind, ours, told, monkeypatch):
    name = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    for variable, value in (("RAY_ADDRESS", address), (name, front_door_path() if ours else None)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    warning = host.unguarded(bind)
    assert (warning is not None) == told
    assert warning is None or f"{name}={front_door_path()}" in warning


def front_door_path():
    return f"{guard.__module__}.{guard.__name__}"


def test_the_first_token_is_shown_once_and_on_standard_output(capsys):
    serve._tell(Console(stderr=True, width=80), "127.0.0.1", 8000, "lsi-1-thesecret", ["lsi/tiny-vl"])
    shown = capsys.readouterr()
    assert shown.out == "lsi-1-thesecret\n"
    assert "thesecret" not in shown.err
    assert "Bearer $LSI_TOKEN" in shown.err


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1"])
def test_loopback_is_always_fine(folder, address):
    serve._check_host(address, folder)


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


def test_stop_ends_the_serve_of_this_work_dir_alone(folder, monkeypatch):
    """A stand-in holds the lock, as `lsi serve` does."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    held = f"""
import signal, sys, time
from pathlib import Path
from lsi_ray.cli import serve
with serve._alone(Path({str(folder)!r})):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LedgerError, match=f"in use by process {process.pid}"):
            WorkLock(serve._lock(folder), wait_s=0)
        assert serve.stop_command(folder) == 0
        assert process.wait(10) == 7
    with pytest.raises(LsiError, match="no lsi serve runs on"):
        serve.stop_command(folder)
    with pytest.raises(LsiError, match="no lsi serve runs on"):
        serve.stop_command(folder / "nowhere")


@pytest.mark.parametrize(("answers", "is_open"), [(True, True), (False, False)])
def test_a_ray_that_asks_for_no_token_is_found_out(answers, is_open):
    """A head with and without Ray's authentication, as far as a caller without a token sees it."""
    import grpc

    def answer(request, context):
        if not answers:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return request

    rpc = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", {"CheckAlive": rpc}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert host._is_open(f"127.0.0.1:{port}") is is_open
    server.stop(0).wait()
    assert not host._is_open(f"127.0.0.1:{port}")


def test_a_head_that_keeps_to_the_loopback_is_met_there(monkeypatch):
    setting = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    monkeypatch.setenv(setting, "to be deleted after the test")
    monkeypatch.setattr(host, "_own_address", lambda: "127.0.0.2")  # for the one that others see
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        for wide, expected in ((True, None), (False, "0")):
            monkeypatch.delenv(setting, raising=False)
            with socket.create_server(("127.0.0.2", port)) if wide else nullcontext():
                host.meet_on_loopback(f"127.0.0.1:{port}")
            assert os.environ.get(setting) == expected
    for address in (f"127.0.0.1:{port}", "ray://head", "", "auto"):
        monkeypatch.delenv(setting, raising=False)
        host.meet_on_loopback(address)
        assert setting not in os.environ
