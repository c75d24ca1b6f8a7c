"""`lsi demo`: sample, pack, run, and a look at what came out; on the embedded model, whose words mean nothing."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsi_ray.archive.pack import pack_folder
from lsi_ray.cli.run import RunOptions, run_command
from lsi_ray.sample import write_sample

_SHOWN = 8


def demo_command(folder: Path) -> int:
    console = Console(highlight=False)
    batch, archive, output = folder / "batch", folder / "in.tar.gz", folder / "out.tar.gz"
    shutil.rmtree(batch, ignore_errors=True)
    write_sample(batch)
    pack_folder(batch, archive)
    console.print(f"[bold]$ lsi run {archive} -o {output}[/bold]")
    code = run_command(RunOptions(str(archive), str(output), None, None, None, None, False, False))
    if code == 0:
        _show(console, output)
        console.print(
            "The embedded model has random weights: its words mean nothing, but they came the whole way through vLLM.\n"
            f"Look at them:  tar xzOf {output} output.jsonl | head -1 | python3 -m json.tool\n"
            f"The requests:  {batch}/jobs.jsonl",
            soft_wrap=True,
        )
    return code


def _show(console: Console, output: Path) -> None:
    table = Table("custom_id", "answer", box=None, padding=(0, 2, 0, 0), title="some answers", title_justify="left")
    with tarfile.open(output) as tar:  # our own output: read by another hand than the one that wrote it
        lines = tar.extractfile("output.jsonl")
        assert lines is not None
        for line in list(lines)[:_SHOWN]:
            record = json.loads(line)
            choice = record["response"]["body"]["choices"][0]
            said = choice["message"]["content"] if "message" in choice else choice["text"]
            table.add_row(escape(record["custom_id"]), escape(repr(said)[:80]))
    console.print(table)
