"""`lsi validate`: the validator of intake, over an archive or a folder, with every referenced file opened."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsi_ray.archive.detect import HEAD_BYTES, detect
from lsi_ray.archive.gzip import stage_gzip
from lsi_ray.archive.index import index_tar
from lsi_ray.archive.pack import pack_folder
from lsi_ray.archive.validate import Validation, validate
from lsi_ray.batch_files import row_limits
from lsi_ray.config import Config, load_config
from lsi_ray.errors import BatchRefused, ConfigError, Finding
from lsi_ray.intake import archive_limits
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.probe import probe

_SHOWN = 20


def validate_command(archive: Path, config: Path | None, model: str | None, strict: bool, as_json: bool) -> int:
    loaded = load_config(config)
    served = model or (loaded.model if config is not None else None)
    checked = check(archive, loaded, served, strict)
    if as_json:
        print(json.dumps(_describe(archive, checked), ensure_ascii=False))
    else:
        _show(archive, checked)
    return 0


def check(archive: Path, config: Config, served_model: str | None, strict: bool) -> Validation:
    """Index and validate a .tar, a .tar.gz or a folder. Raises ArchiveError, BatchRefused, ConfigError."""
    if not archive.exists():
        raise ConfigError(f"no such file or folder: {archive}")
    limits = archive_limits(config)
    with tempfile.TemporaryDirectory(prefix="lsi-validate-") as scratch:
        tar, compressed = plain_tar(archive, Path(scratch), config)
        with open(tar, "rb") as file, MediaGuard() as guard:
            index = index_tar(file, limits, decompressed=compressed)
            rows, media = row_limits(config), partial(probe, guard)
            return validate(file, index, served_model=served_model, strict=strict, limits=rows, probe=media)


def plain_tar(archive: Path, scratch: Path, config: Config) -> tuple[Path, bool]:
    """The archive as a plain tar, and whether it came out of a gzip."""
    if archive.is_dir():
        pack_folder(archive, scratch / "folder.tar")
        return scratch / "folder.tar", False
    with open(archive, "rb") as file:
        if detect(file.read(HEAD_BYTES)) == "tar":
            return archive, False
        file.seek(0)
        with open(scratch / "plain.tar", "wb") as target:
            stage_gzip(file, target, archive_limits(config))
    return scratch / "plain.tar", True


def _describe(archive: Path, checked: Validation) -> dict[str, Any]:
    return {
        "archive": str(archive),
        "model": checked.model,
        "rows": checked.rows,
        "runnable": len(checked.plan),
        **asdict(checked.counts),
        "failures": [
            {"line": bad.line, "custom_id": bad.custom_id, "code": bad.code, "message": bad.message, "param": bad.param}
            for bad in checked.failures
        ],
        "warnings": [{"code": note.code, "message": note.message, "line": note.line} for note in checked.warnings],
    }


def _show(archive: Path, checked: Validation) -> None:
    console = Console(highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    counts = checked.counts
    table.add_row("archive", escape(str(archive)))
    table.add_row("model", escape(checked.model or "(none named)"))
    table.add_row("rows", f"{checked.rows:,}: {len(checked.plan):,} will run, {len(checked.failures):,} are refused")
    for url, number in counts.requests.items():
        table.add_row("", f"{number:,} to {url}")
    table.add_row("media", f"{counts.images:,} images, {counts.videos:,} videos, in {counts.media_files:,} files")
    if counts.unused_files:
        table.add_row("", f"{counts.unused_files:,} files are not used by any row")
    console.print(table)
    for note in checked.warnings:
        console.print(f"[yellow]note[/yellow] {escape(note.message)}")
    if checked.failures:
        console.print(_failures(checked))
        if len(checked.failures) > _SHOWN:
            console.print(f"... and {len(checked.failures) - _SHOWN} more; --json lists them all")
    console.print(
        "[green]valid[/green]: it would be accepted"
        + (", refused rows becoming error lines" if checked.failures else "")
    )


def _failures(checked: Validation) -> Table:
    table = Table("line", "custom_id", "code", "message", box=None, padding=(0, 2, 0, 0))
    for bad in checked.failures[:_SHOWN]:
        table.add_row(str(bad.line), escape(bad.custom_id or "-"), bad.code, escape(bad.message))
    return table


def refuse_bad_rows(checked: Validation) -> None:
    """Raise BatchRefused if any row is bad: for commands that make archives."""
    if checked.failures:
        hint = Finding("bad_rows", "--keep-bad-rows packs them as they are: they become error lines")
        raise BatchRefused([Finding(bad.code, bad.message, bad.line, bad.param) for bad in checked.failures] + [hint])
