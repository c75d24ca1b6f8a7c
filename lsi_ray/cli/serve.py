"""`lsi serve`: Ray, the service's actor and the API, from one command."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from lsi_ray.errors import ConfigError, LedgerError, LsiError
from lsi_ray.ledger.lock import WorkLock
from lsi_ray.ledger.service_ledger import Accounts
from lsi_ray.ledger.workdir import WorkDir

_STOP_S = 90.0


def serve_command(config: Path | None, host: str, port: int, work_dir: Path | None) -> int:
    """Returns when it is told to stop; on a cluster that was there before, as soon as the service runs."""
    from lsi_ray.service.deploy import load_deployment

    deployment = load_deployment(config)
    work = (work_dir or _default_work_dir()).absolute()
    _check_host(host, work)
    console = Console(stderr=True, highlight=False)
    console.print(f"work dir {work}; starting Ray")
    from lsi_ray.service.host import hosting, unguarded

    if (warning := unguarded(host)) is not None:
        console.print(warning)
    with _alone(work), hosting(deployment, work, host, port) as hosted:
        _tell(console, host, port, hosted.token, list(deployment.models))
        if hosted.own:
            _wait_for_the_end()
            console.print("stopping; the same command goes on with what was accepted")
        else:
            console.print("it runs on this cluster until `lsi serve --stop`")
    return 0


def stop_command(work_dir: Path | None) -> int:
    """The service on the cluster of RAY_ADDRESS; without one, the `lsi serve` that runs on this work dir."""
    if (address := _address()) is None:
        _stop_own((work_dir or _default_work_dir()).absolute())
        return 0
    from lsi_ray.service.host import stop

    # Ray waits for ever for a node of its own address where the two see that differently.
    given_up = threading.Timer(_STOP_S, _give_up, [address])
    given_up.daemon = True
    given_up.start()
    stop(address)
    given_up.cancel()
    return 0


def _address() -> str | None:
    address = os.environ.get("RAY_ADDRESS")
    return address if address not in (None, "", "local") else None


def _give_up(address: str) -> None:
    setting = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    Console(stderr=True, highlight=False).print(
        f"error: no answer from the Ray at {address} in {_STOP_S:.0f} s. If it was started with {setting}=0, to keep "
        "to the loopback, set that here, too."
    )
    os._exit(1)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One `lsi serve` with a Ray of its own per work dir; the lock's file tells `--stop` who it is."""
    if _address() is not None:
        yield
        return
    lock = WorkLock(_lock(WorkDir(work).create().path))
    try:
        yield
    finally:
        lock.release()


def _stop_own(work: Path) -> None:
    path, signalled = _lock(work), False
    deadline = time.monotonic() + _STOP_S
    while _is_held(path):
        if not signalled:
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGTERM)
                signalled = True
        if time.monotonic() > deadline:
            raise LsiError("still_running", f"the process {path.read_text()} serves {work} and does not end")
        time.sleep(0.1)
    if not signalled:
        where = "if it runs on a cluster, set RAY_ADDRESS; if it has another work dir, --work-dir"
        raise LsiError("no_service", f"no lsi serve runs on {work}: {where}")


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        WorkLock(path, wait_s=0).release()
    except LedgerError:
        return True
    return False


def _lock(work: Path) -> Path:
    return work / "serve.lock"


def _default_work_dir() -> Path:
    from lsi_ray.config import cache_folder

    return cache_folder() / "service"


def _check_host(host: str, work: Path) -> None:
    """Wider than this machine only with tokens that somebody made on purpose, and a Ray that asks for one, too:
    whoever reaches Ray's ports may run anything."""
    from lsi_ray.service.host import is_loopback

    if is_loopback(host):
        return
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise ConfigError(f"--host {host} is open to others: set RAY_AUTH_MODE=token (Ray runs anybody's code without)")
    accounts = Accounts(WorkDir(work).create().ledger)
    try:
        if not accounts.list():
            raise ConfigError(f"--host {host} is open to others: make a token first (lsi token create --caller NAME)")
    finally:
        accounts.close()


def _tell(console: Console, host: str, port: int, token: str | None, models: list[str]) -> None:
    """The token goes to standard output, alone: `TOKEN=$(lsi serve | head -1)` works."""
    url = f"http://{host}:{port}"
    if token is not None:
        print(token, flush=True)
        console.print("the line above is the first token; it is shown this once (lsi token create makes others)")
        console.print("  export LSI_TOKEN=...that line")
    console.print(f"serving {', '.join(models)} at {url}")
    console.print(f"  the page, for a browser: {url}/")
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
