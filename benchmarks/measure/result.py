"""What a script found out, as lines of a table: measured against a bar. `results.py` joins those of all scripts."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from measure import host

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True, slots=True)
class Line:
    what: str
    measured: str
    bar: str = ""
    met: bool | None = None
    """None: there is no bar, or it cannot be judged here."""


def conclude(name: str, lines: list[Line], detail: dict[str, Any], described: dict[str, Any], folder: Path) -> bool:
    """Print the table and write `name`-TIME.json; whether no bar was missed. `described`: host.describe(), before."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = folder / f"{name}-{stamp}.json"
    content = {"benchmark": name, "host": described, "lines": [asdict(line) for line in lines], **detail}
    path.write_text(json.dumps(content, indent=1) + "\n")
    table = Table(title=f"{name}; {host.hardware(described)}", title_justify="left")
    for column in ("what", "measured", "bar", ""):
        table.add_column(column)
    for line in lines:
        table.add_row(line.what, line.measured, line.bar, {True: "met", False: "missed", None: ""}[line.met])
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print(str(path), soft_wrap=True)
    return not any(line.met is False for line in lines)
