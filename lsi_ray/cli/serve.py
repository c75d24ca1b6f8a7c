"""`lsi serve`: Ray, the service's actor and the API, from one command."""

from __future__ import annotations

import ipaddress
import os
import signal
import threading
from pathlib import Path

from rich.console import Console

from lsi_ray.errors import ConfigError
from lsi_ray.ledger.service_ledger import Accounts
from lsi_ray.ledger.workdir import WorkDir


def serve_command(config: Path | None, host: str, port: int, work_dir: Path | None) -> int:
    """Returns when it is told to stop; on a cluster that was there before, as soon as the service runs."""
    from lsi_ray.service.deploy import load_deployment

    deployment = load_deployment(config)
    work = (work_dir or _default_work_dir()).absolute()
    _check_host(host, work)
    console = Console(stderr=True, highlight=False)
    console.print(f"work dir {work}; starting Ray")
    from lsi_ray.service.host import hosting

    with hosting(deployment, work, host, port) as hosted:
        _tell(console, host, port, hosted.token, list(deployment.models))
        if hosted.own:
            _wait_for_the_end()
            console.print("stopping; the same command goes on with what was accepted")
        else:
            console.print("it runs on this cluster until `lsi serve --stop`")
    return 0


def stop_command() -> int:
    from lsi_ray.service.host import stop

    stop()
    return 0


def _default_work_dir() -> Path:
    from lsi_ray.config import cache_folder

    return cache_folder() / "service"


def _check_host(host: str, work: Path) -> None:
    """Wider than this machine only with tokens that somebody made on purpose, and a Ray that asks for one, too:
    whoever reaches Ray's ports may run anything."""
    if _is_loopback(host):
        return
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise ConfigError(f"--host {host} is open to others: set RAY_AUTH_MODE=token (Ray runs anybody's code without)")
    accounts = Accounts(WorkDir(work).create().ledger)
    try:
        if not accounts.list():
            raise ConfigError(f"--host {host} is open to others: make a token first (lsi token create --caller NAME)")
    finally:
        accounts.close()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tell(console: Console, host: str, port: int, token: str | None, models: list[str]) -> None:
    """The token goes to standard output, alone: `TOKEN=$(lsi serve | head -1)` works."""
    url = f"http://{host}:{port}"
    if token is not None:
        print(token, flush=True)
        console.print("the line above is the first token; it is shown this once (lsi token create makes others)")
        console.print("  export LSI_TOKEN=...that line")
    console.print(f"serving {', '.join(models)} at {url}")
    console.print(f"  curl -s {url}/v1/inference/health")
    body = (
        f'{{"input_file_uri": "$INPUT_URL", "output_file_uri": "$OUTPUT_URL", "model_id": "{models[0]}", '
        '"endpoint": "/v1/chat/completions", "completion_window": "24h", "store": "s3"}'
    )
    escaped = body.replace('"', '\\"')
    console.print(
        f'  curl -s {url}/v1/inference/batches -H "Authorization: Bearer $LSI_TOKEN" '
        f'-H "Content-Type: application/json" -d "{escaped}"',
        markup=False,
        soft_wrap=True,
    )


def _wait_for_the_end() -> None:
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    while not stop.wait(1.0):
        pass
