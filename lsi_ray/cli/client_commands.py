"""Arguments and help of the client commands; they do their work in client.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

UrlOption = Annotated[
    str | None, typer.Option("--url", help="The service; default: LSI_URL, else http://127.0.0.1:8000.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for programs.")]
BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="The id of a batch.")]
Leave = Callable[[Callable[[], int], bool], NoReturn]


def add_client_commands(app: typer.Typer, leave: Leave) -> None:
    """The token is read from LSI_TOKEN, so that it is in no process list."""

    @app.command()
    def submit(
        source: Annotated[
            str,
            typer.Argument(
                metavar="INPUT",
                help="A folder, an archive or a jsonl (uploaded), s3://bucket/key (pre-signed here), a pre-signed "
                "URL, or env:NAME.",
            ),
        ],
        output: Annotated[
            str | None, typer.Option("--output", "-o", help="s3://bucket/key or a pre-signed PUT URL; default: files.")
        ] = None,
        via: Annotated[
            str | None, typer.Option(help="s3://bucket/prefix: a local input is put there, and the output beside it.")
        ] = None,
        model: Annotated[str | None, typer.Option(help="Default: what the rows name.")] = None,
        window: Annotated[str, typer.Option(help="15m, 24h, 7d, ...")] = "24h",
        priority: Annotated[int, typer.Option(help="Higher runs first among like deadlines.")] = 0,
        wait: Annotated[bool, typer.Option("--wait", help="Show progress until it has ended.")] = False,
        url: UrlOption = None,
        json: JsonOption = False,
    ) -> None:
        """Send a batch to a service, and print its id."""
        from lsi_ray.cli.client import Submit, submit_command
        from lsi_ray.client import Client

        asked = Submit(source, output, via, model, window, priority, wait)
        leave(lambda: submit_command(Client(url), asked, json), json)

    @app.command()
    def status(
        batch_id: BatchArgument,
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Until it has ended.")] = False,
        url: UrlOption = None,
        json: JsonOption = False,
    ) -> None:
        """How far a batch is, when it ends, and why it waits."""
        from lsi_ray.cli.client import status_command
        from lsi_ray.client import Client

        leave(lambda: status_command(Client(url), batch_id, watch, json), json)

    @app.command("list")
    def list_(
        limit: Annotated[int, typer.Option(min=1)] = 20,
        after: Annotated[int, typer.Option(min=0, help="Leave out so many.")] = 0,
        archived: Annotated[bool, typer.Option("--archived", help="Archived ones, too.")] = False,
        url: UrlOption = None,
        json: JsonOption = False,
    ) -> None:
        """Your batches, newest first."""
        from lsi_ray.cli.client import list_command
        from lsi_ray.client import Client

        leave(lambda: list_command(Client(url), limit, after, archived, json), json)

    @app.command()
    def results(
        batch_id: Annotated[
            str, typer.Argument(metavar="BATCH", help="The id of a batch; with --parquet also an output archive.")
        ],
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="A folder for the files of a batch that has ended.")
        ] = None,
        parquet: Annotated[
            Path | None, typer.Option(help="Write a table here: a row per answer, to be joined by custom_id.")
        ] = None,
        after: Annotated[int | None, typer.Option(help="Only rows above this one.")] = None,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for further rows.")] = False,
        url: UrlOption = None,
    ) -> None:
        """Print the finished lines of a running batch in row order, fetch the files of one that has ended, or make a
        table of either.

        ```
        lsi results batch_123 --follow                       lines as rows finish
        lsi results batch_123 -o results                     output.jsonl and error.jsonl
        lsi results out.tar.gz --parquet answers.parquet     custom_id, text, tokens, error, body, ...
        ```
        """
        if parquet is not None:
            from lsi_ray.cli.tables import answers_command

            leave(lambda: answers_command(batch_id, url, parquet), False)
        from lsi_ray.cli.client import results_command
        from lsi_ray.client import Client

        leave(lambda: results_command(Client(url), batch_id, output, after, follow), False)

    @app.command()
    def cancel(batch_id: BatchArgument, url: UrlOption = None, json: JsonOption = False) -> None:
        """End a batch; what is finished is delivered."""
        from lsi_ray.cli.client import cancel_command
        from lsi_ray.client import Client

        leave(lambda: cancel_command(Client(url), batch_id, json), json)

    @app.command()
    def retry(
        batch_id: BatchArgument,
        failed_only: Annotated[bool, typer.Option("--failed-only", help="Only the rows that ended as errors.")] = False,
        source: Annotated[
            str | None, typer.Option("--input", help="The input again; default: the same, if its URL is still good.")
        ] = None,
        output: Annotated[
            str | None, typer.Option("--output", "-o", help="Where the new output goes; default: the same place.")
        ] = None,
        window: Annotated[str | None, typer.Option(help="Default: as it was.")] = None,
        url: UrlOption = None,
        json: JsonOption = False,
    ) -> None:
        """A new batch from one that has ended."""
        from lsi_ray.cli.client import Submit, retry_command
        from lsi_ray.client import Client

        asked = Submit(source or "", output, None, None, window or "24h", 0, False) if source or output else None
        leave(lambda: retry_command(Client(url), batch_id, asked, failed_only, window, json), json)
