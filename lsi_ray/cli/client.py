"""The client commands: `lsi submit`, `status`, `list`, `results`, `cancel`, `retry`, over `lsi_ray.Client`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsi_ray.archive.pack import pack_folder
from lsi_ray.cli.run import locate
from lsi_ray.client import Client
from lsi_ray.client_views import Batch
from lsi_ray.errors import ConfigError
from lsi_ray.service.api.window import parse_window
from lsi_ray.storage.location import Location
from lsi_ray.storage.presign import LONGEST_S, presign
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.upload import upload

_MARGIN_S = 3600.0  # a pre-signed URL should outlive its window: the output comes after it


@dataclass(frozen=True, slots=True)
class Submit:
    source: str
    output: str | None
    via: str | None
    model: str | None
    window: str
    priority: int
    wait: bool


def submit_command(client: Client, asked: Submit, as_json: bool) -> int:
    console = Console(stderr=True, highlight=False)
    name = asked.output or "output.tar.gz"
    with _packed(asked.source) as path:
        source, target = _urls(asked, path, console)
        if source is None:
            assert path is not None
            console.print(f"uploading {path.name} ({path.stat().st_size / 1e6:,.1f} MB)")
            source = SecretUrl(client.upload(path).id)
    batch = client.submit(
        input=source.reveal(),
        output=target.reveal() if target else None,
        model=asked.model,
        window=asked.window,
        priority=asked.priority,
    )
    if batch.created is False:
        console.print("this request was sent before: the batch that it made then")
    if not asked.wait:
        print(_as_json(batch) if as_json else batch.id)
        return 0
    console.print(f"{batch.id}; results go to {name if target else 'files of the service'}")
    return _show(_watch(client, batch.id), as_json)


def status_command(client: Client, batch_id: str, watch: bool, as_json: bool) -> int:
    return _show(_watch(client, batch_id) if watch else client.get(batch_id), as_json)


def list_command(client: Client, limit: int, after: int, archived: bool, as_json: bool) -> int:
    batches = client.list(limit=limit, after=after, archived=archived)
    if as_json:
        print(json.dumps([asdict(batch) for batch in batches], default=str))
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("id", "status", "rows", "created", "model", ""):
        table.add_column(name, no_wrap=name in ("id", "status"))
    for batch in batches:
        created = batch.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(batch.id, batch.status, _rows(batch), created, escape(batch.model or "-"), escape(_notes(batch)))
    # In a pipe there is no width to keep to.
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)
    return 0


def results_command(client: Client, batch_id: str, output: Path | None, after: int | None, follow: bool) -> int:
    """Finished lines to standard output while the batch runs; with `output`, the files of one that has ended."""
    if output is not None:
        return _download(client, batch_id, output)
    for result in client.results(batch_id, after=after, follow=follow):
        line = result.line
        sys.stdout.write((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + "\n")
    return 0


def cancel_command(client: Client, batch_id: str, as_json: bool) -> int:
    return _show(client.cancel(batch_id), as_json)


def retry_command(
    client: Client, batch_id: str, asked: Submit | None, failed_only: bool, window: str | None, as_json: bool
) -> int:
    source = target = None
    if asked is not None:
        source, target = _urls(asked, None, Console(stderr=True))
    batch = client.retry(
        batch_id,
        failed_only=failed_only,
        input=source.reveal() if source else None,
        output=target.reveal() if target else None,
        window=window,
    )
    print(_as_json(batch) if as_json else batch.id)
    return 0


def _download(client: Client, batch_id: str, folder: Path) -> int:
    for path in download_files(client, client.get(batch_id), folder):
        print(path)
    return 0


def download_files(client: Client, batch: Batch, folder: Path) -> list[Path]:
    """The files of a batch that has ended. Raises ConfigError where it has none."""
    found = {"output.jsonl": batch.output_file_id, "error.jsonl": batch.error_file_id}
    if not any(found.values()):
        raise ConfigError(f"{batch.id} is {batch.status} and has no files: its output went to its URL, or will")
    folder.mkdir(parents=True, exist_ok=True)
    for name, file_id in found.items():
        if file_id is not None:
            client.download(file_id, folder / name)
    return [folder / name for name, file_id in found.items() if file_id is not None]


# -- where input and output are


@contextmanager
def _packed(source: str) -> Iterator[Path | None]:
    """A local archive or jsonl as it is, a folder packed for as long as this takes; None for a URL."""
    location = locate(source)
    if location.path is None:
        yield None
    elif not location.path.exists():
        raise ConfigError(f"no such file or folder: {location.path}")
    elif location.path.is_dir():
        with tempfile.TemporaryDirectory(prefix="lsi-submit-") as scratch:
            packed = Path(scratch) / f"{location.path.resolve().name}.tar.gz"
            pack_folder(location.path, packed)
            yield packed
    else:
        yield location.path


def _urls(asked: Submit, path: Path | None, console: Console) -> tuple[SecretUrl | None, SecretUrl | None]:
    """Pre-signed URLs; without one for the input it is uploaded to the service."""
    lasts_s = min(parse_window(asked.window) + _MARGIN_S, LONGEST_S)
    source = locate(asked.source) if asked.source else None
    target = locate(asked.output) if asked.output else None
    if asked.via is not None:
        stem = f"{asked.via.rstrip('/')}/{time.strftime('%Y%m%d-%H%M%S')}-{path.name if path else 'batch'}"
        if path is not None:
            source = Location.parse(stem)
            console.print(f"uploading {path.name} to {source}")
            upload(path, source)
        target = target or Location.parse(f"{stem}.out.tar.gz")
        console.print(f"the output will be {target}")
    signed_target = _signed(target, "PUT", lasts_s)
    if source is None or source.path is not None:
        if signed_target is not None:
            raise ConfigError("a local input and an output URL: add --via s3://bucket/prefix, where the input goes")
        return None, None
    return _signed(source, "GET", lasts_s), signed_target


def _signed(location: Location | None, method: Any, lasts_s: float) -> SecretUrl | None:
    if location is None:
        return None
    if location.path is not None:
        raise ConfigError(f"{location}: the service cannot write to your disk; give s3://... or a pre-signed URL")
    assert location.url is not None
    return presign(location.url, method, lasts_s) if location.kind == "s3" else location.url


# -- what is shown


def _watch(client: Client, batch_id: str) -> Batch:
    console = Console(stderr=True, highlight=False)
    said = ""

    def tell(batch: Batch) -> None:
        nonlocal said
        line = f"{batch.status}  {_rows(batch)} rows  {_notes(batch)}"
        if line != said:
            console.print(escape(line))
            said = line

    return client.wait(batch_id, progress=tell)


def _rows(batch: Batch) -> str:
    counts = batch.counts
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{counts.completed:,} of {counts.total:,}{failed}"


def _notes(batch: Batch) -> str:
    """Why it waits, or when it ends."""
    if batch.waiting is not None:
        return f"{batch.waiting.reason}: {batch.waiting.message}"
    if batch.eta is not None and not batch.done:
        early, late = (one.astimezone().strftime("%H:%M:%S") for one in (batch.eta.p50, batch.eta.p90))
        return f"done between {early} and {late}{', at risk' if batch.eta.at_risk else ''}"
    return ""


def _show(batch: Batch, as_json: bool) -> int:
    if as_json:
        print(_as_json(batch))
        return 0
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    shown = {
        "batch": batch.id,
        "model": batch.model or "-",
        "status": batch.status,
        "rows": _rows(batch),
        "tokens": f"{batch.usage.prompt:,} in, {batch.usage.completion:,} out",
        "deadline": batch.deadline_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        "": _notes(batch),
        "output": batch.output or ", ".join(filter(None, (batch.output_file_id, batch.error_file_id))),
    }
    for name, value in shown.items():
        if value:
            table.add_row(name, escape(value))
    for error in batch.errors[:20]:
        table.add_row("error", escape(f"{f'line {error.line}: ' if error.line else ''}{error.message} ({error.code})"))
    for count in batch.error_digest:
        table.add_row("failed", escape(f"{count.count:,} {count.code} {count.message}"))
    for warning in batch.warnings:
        table.add_row("note", escape(warning))
    Console(highlight=False).print(table)
    return 0


def _as_json(batch: Batch) -> str:
    return json.dumps(asdict(batch), default=str)
