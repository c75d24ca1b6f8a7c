"""`lsi doctor`: the checks of a machine, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsi_ray.cli.exit_codes import FAILED, OK
from lsi_ray.cli.run import locate
from lsi_ray.config import load_config
from lsi_ray.doctor.check import Check
from lsi_ray.doctor.examine import examine

_MARKS = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "failed": "[red]failed[/red]"}


def doctor_command(config: Path | None, work_dir: Path | None, storage: str | None, as_json: bool) -> int:
    location = locate(storage) if storage is not None else None
    loaded = load_config(config)
    if not as_json:
        Console(stderr=True).print("[dim]looking; importing vLLM takes some seconds[/dim]")
    checks = examine(loaded, work_dir, location)
    bad = sum(check.state == "failed" for check in checks)
    if as_json:
        print(json.dumps({"healthy": not bad, "model": loaded.model, "checks": [asdict(check) for check in checks]}))
    else:
        _show(checks, bad, loaded.model)
    return FAILED if bad else OK


def _show(checks: list[Check], bad: int, model: str) -> None:
    # In a pipe there is no width to keep to.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row(_MARKS[check.state], check.name, escape(check.found))
        if check.advice:
            table.add_row("", "", f"-> {escape(check.advice)}")
    console.print(table)
    verdict = f"[red]{bad} failed[/red]: {escape(model)} will not run here" if bad else f"{escape(model)} can run here"
    console.print(verdict)
