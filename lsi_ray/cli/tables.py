"""`lsi pack --from` and `lsi results --parquet`: tables into archives, and answers into tables."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsi_ray.archive.fields import CHAT, COMPLETIONS, EMBEDDINGS
from lsi_ray.archive.messages import Kind
from lsi_ray.cli.client import download_files
from lsi_ray.cli.exit_codes import OK
from lsi_ray.cli.pack import pack_command
from lsi_ray.client import Client
from lsi_ray.errors import ConfigError
from lsi_ray.tables.answers import lines_of, write_answers
from lsi_ray.tables.folders import tables_of
from lsi_ray.tables.records import read_records
from lsi_ray.tables.requests import Shape, write_batch
from lsi_ray.tables.template import Template

_URLS = {"chat": CHAT, "completions": COMPLETIONS, "embeddings": EMBEDDINGS}


@dataclass(frozen=True, slots=True)
class TableOptions:
    source: Path
    prompt: str | None
    system: str | None
    images: list[str]
    videos: list[str]
    id_column: str | None
    split: str | None
    model: str
    endpoint: str
    max_tokens: int | None
    body: str | None


def pack_table_command(options: TableOptions, output: Path, keep_bad_rows: bool, as_json: bool) -> int:
    shape = _shape(options)
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    # Beside the archive: there is room, and often the same file system as the images, which then are linked.
    folder = Path(tempfile.mkdtemp(prefix=".lsi-pack-", dir=output.absolute().parent))
    try:
        write_batch(read_records(options.source, options.split), shape, folder)
        return pack_command(folder, output, keep_bad_rows, as_json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _shape(options: TableOptions) -> Shape:
    if options.prompt is None:
        raise ConfigError("--prompt-template is missing: the question, with columns in it, such as 'Describe {title}.'")
    if options.endpoint not in _URLS:
        raise ConfigError(f"--endpoint {options.endpoint!r} is none of {', '.join(_URLS)}")
    body = _body(options.body)
    if options.max_tokens is not None:
        body["max_tokens"] = options.max_tokens
    return Shape(
        model=options.model,
        prompt=Template.parse(_text(options.prompt)),
        url=_URLS[options.endpoint],
        system=Template.parse(_text(options.system)) if options.system is not None else None,
        media=_media(options),
        id_column=options.id_column,
        body=body,
    )


def _media(options: TableOptions) -> tuple[tuple[Kind, str], ...]:
    """The columns that are named; of a folder of images their own."""
    images: list[tuple[Kind, str]] = [("image", name) for name in options.images]
    videos: list[tuple[Kind, str]] = [("video", name) for name in options.videos]
    if not images and not videos and options.source.is_dir() and not tables_of(options.source, options.split):
        images = [("image", "image")]
    return (*images, *videos)


def _body(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        body = json.loads(_text(text))
    except ValueError as error:
        raise ConfigError(f"--body is not JSON: {error}") from None
    if not isinstance(body, dict) or {"messages", "prompt", "input", "model"} & body.keys():
        raise ConfigError("--body is a JSON object of further fields, without messages, prompt, input and model")
    return body


def _text(text: str) -> str:
    """`@FILE` is the content of the file."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{text}: {error}") from None


def answers_command(batch: str, url: str | None, parquet: Path) -> int:
    """`batch`: an output archive, a folder or file of results, or the id of a batch of a service."""
    parquet.absolute().parent.mkdir(parents=True, exist_ok=True)
    if Path(batch).exists():
        rows = write_answers(lines_of(Path(batch)), parquet)
    else:
        rows = _served(Client(url), batch, parquet)
    print(f"{parquet}: {rows:,} rows", file=sys.stderr)
    return OK


def _served(client: Client, batch_id: str, parquet: Path) -> int:
    batch = client.get(batch_id)
    if batch.output_file_id is None and batch.error_file_id is None:  # it runs
        return write_answers((result.line for result in client.results(batch_id)), parquet)
    with tempfile.TemporaryDirectory(prefix=".lsi-results-", dir=parquet.absolute().parent) as folder:
        download_files(client, batch, Path(folder))
        return write_answers(lines_of(Path(folder)), parquet)
