"""`lsi pack` and `lsi sample`: folders and archives."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from lsi_ray.archive.pack import pack_folder
from lsi_ray.archive.validate import Validation
from lsi_ray.cli.validate import check, refuse_bad_rows
from lsi_ray.config import load_config
from lsi_ray.errors import ConfigError
from lsi_ray.sample import write_sample


def pack_command(folder: Path, output: Path, keep_bad_rows: bool, as_json: bool) -> int:
    if not folder.is_dir():
        raise ConfigError(f"no such folder: {folder}")
    checked = check(folder, load_config(None), None, strict=False)
    if not keep_bad_rows:
        refuse_bad_rows(checked)
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    packed = pack_folder(folder, output)
    if as_json:
        print(
            json.dumps({"archive": str(output), "bytes": packed.size_out, "rows": checked.rows, "files": packed.files})
        )
        return 0
    _show(output, packed.size_out, checked)
    return 0


def _show(output: Path, size: int, checked: Validation) -> None:
    counts = checked.counts
    Console(highlight=False).print(
        f"{escape(str(output))}: {checked.rows:,} rows, {counts.images:,} images, {counts.videos:,} videos, "
        f"{size / 1e6:,.1f} MB"
    )


def sample_command(folder: Path, model: str) -> int:
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty")
    write_sample(folder, model=model)
    Console(highlight=False).print(
        f"{escape(str(folder))}: jobs.jsonl and files/. Three rows are broken on purpose; see what\n"
        f"  lsi validate {escape(str(folder))}\nsays about them."
    )
    return 0
