"""The command line: arguments and help. What the commands do is in the modules beside this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lsi_ray import __version__
from lsi_ray.cli.client_commands import add_client_commands
from lsi_ray.cli.exit_codes import FAILED, OK, exit_code
from lsi_ray.cli.pack_command import add_pack_command
from lsi_ray.cli.tool_commands import add_tool_commands
from lsi_ray.errors import LsiError

app = typer.Typer(
    name="lsi",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Large Scale Inference: batch archives of multimodal requests through Ray Data and vLLM.

    Pack OpenAI-style requests (jobs.jsonl) with their images and videos (files/) into a tar, and get back a tar in
    which every request is answered exactly once.

    ```
    lsi sample my-batch                 a small example batch to look at
    lsi pack my-batch -o in.tar.gz      make an archive of a folder, or of a table with --from
    lsi validate in.tar.gz              check every row before any GPU is touched
    lsi run in.tar.gz -o out.tar.gz     answer it
    ```

    Exit codes:

    - 0: the output was delivered, even if single rows failed
    - 1: something failed; the same command goes on from there
    - 2: the archive or the command is wrong""",
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML of a model and its deployment; default: the embedded lsi/tiny-vl."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for programs.")]

WorkDirOption = Annotated[
    Path | None,
    typer.Option(help="Where the service keeps its ledger and what is at hand; default: one in the cache folder."),
]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"lsi-ray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


def _exit(command: object, as_json: bool) -> NoReturn:
    """Run a command; turn our errors into a message and an exit code. Other exceptions are bugs and show as such."""
    assert callable(command)
    try:
        raise SystemExit(command() or OK)
    except LsiError as error:
        from lsi_ray.cli.report import report_error

        report_error(error, as_json)
        raise SystemExit(exit_code(error)) from None
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise SystemExit(FAILED) from None


@app.command()
def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="The archive: a path, s3://bucket/key, an http(s) pre-signed GET URL, or env:NAME, a variable "
            "that holds one (keeps a signed URL out of the process list).",
        ),
    ],
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="Where the output goes: a path, s3://..., a pre-signed PUT URL, env:NAME."),
    ],
    config: ConfigOption = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            help="Holds the ledger and finished results while the batch runs; the same folder resumes it. "
            "Default: one in the cache folder, by input and output."
        ),
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(metavar="MIN:MAX", help="Engine replicas, overriding the config; or one number.")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="Run only the first N rows: a test of a big batch.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse the batch when any row is bad.")] = False,
    json: JsonOption = False,
) -> None:
    """Answer every request of an archive, and write the output archive.

    Interrupted (Ctrl-C, kill -9, a lost machine), the same command goes on: rows already answered are not run again.

    ```
    lsi run in.tar.gz -o out.tar.gz
    lsi run s3://b/in.tar -o s3://b/out.tar.gz -c configs/qwen2.5-vl-7b.yaml --replicas 1:8
    LSI_IN="https://..." LSI_OUT="https://..." lsi run env:LSI_IN -o env:LSI_OUT
    ```
    """
    from lsi_ray.cli.run import RunOptions, run_command

    options = RunOptions(source, output, config, work_dir, replicas, max_rows, strict, json)
    _exit(lambda: run_command(options), json)


@app.command()
def validate(
    archive: Annotated[Path, typer.Argument(help="A .tar or .tar.gz, or a folder with jobs.jsonl and files/.")],
    config: ConfigOption = None,
    model: Annotated[
        str | None, typer.Option(help="The model that must be named; default: the config's, or any without --config.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 2 also when single rows are bad.")] = False,
    json: JsonOption = False,
) -> None:
    """Check an archive as the service would: every row, every file, nothing run.

    Exit code 0: it would be accepted (bad rows become error lines); 2: it would be refused.
    """
    from lsi_ray.cli.validate import validate_command

    _exit(lambda: validate_command(archive, config, model, strict, json), json)


add_pack_command(app, _exit)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="The folder to write; must not exist or be empty.")],
    model: Annotated[str, typer.Option(help="The model that the requests name.")] = "lsi/tiny-vl",
) -> None:
    """Write a small example batch: text, images, a video, tools, a JSON schema, and three broken rows."""
    from lsi_ray.cli.pack import sample_command

    _exit(lambda: sample_command(folder, model), False)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the sample batch and its answers go.")] = Path("demo"),
) -> None:
    """The whole way on the embedded model: sample, pack, validate, run, and a look at the answers."""
    from lsi_ray.cli.demo import demo_command

    _exit(lambda: demo_command(folder), False)


@app.command()
def serve(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="YAML of a deployment: its models and limits; default: lsi/tiny-vl alone."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    work_dir: WorkDirOption = None,
    stop: Annotated[bool, typer.Option("--stop", help="End the service of the work dir or of RAY_ADDRESS.")] = False,
) -> None:
    """Serve batches over HTTP: LSI's API and OpenAI's, on a Ray of its own or the one of RAY_ADDRESS.

    Everything accepted is in the work dir: the same command goes on with it after any end.
    """
    from lsi_ray.cli.serve import serve_command, stop_command

    _exit(lambda: stop_command(work_dir) if stop else serve_command(config, host, port, work_dir), False)


token = typer.Typer(no_args_is_help=True, help="The tokens of a service: create, list, revoke.")
app.add_typer(token, name="token")


@token.command("create")
def token_create(
    caller: Annotated[str, typer.Option(help="Whom it stands for; batches and files belong to the caller.")],
    name: Annotated[str, typer.Option(help="A note for you.")] = "",
    scopes: Annotated[str, typer.Option(help="read, write, or both.")] = "read,write",
    days: Annotated[float | None, typer.Option(min=0, help="Valid for so many days; default: until revoked.")] = None,
    work_dir: WorkDirOption = None,
    json: JsonOption = False,
) -> None:
    """Make a token and print it, this once."""
    from lsi_ray.cli.token import create_command

    seconds = days * 86_400 if days is not None else None
    _exit(lambda: create_command(work_dir, caller, name, scopes, seconds, json), json)


@token.command("list")
def token_list(work_dir: WorkDirOption = None, json: JsonOption = False) -> None:
    """Show the tokens there are, without their secrets."""
    from lsi_ray.cli.token import list_command

    _exit(lambda: list_command(work_dir, json), json)


@token.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(help="The id that `lsi token list` shows.")],
    work_dir: WorkDirOption = None,
) -> None:
    """End a token."""
    from lsi_ray.cli.token import revoke_command

    _exit(lambda: revoke_command(work_dir, token_id), False)


add_client_commands(app, _exit)
add_tool_commands(app, _exit)


def main() -> None:
    sys.exit(app())
