"""Arguments and help of `lsi pack`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lsi_ray.errors import ConfigError

Leave = Callable[[Callable[[], int], bool], NoReturn]
_TABLE = "From a table"


def add_pack_command(app: typer.Typer, leave: Leave) -> None:
    @app.command()
    def pack(
        output: Annotated[Path, typer.Option("--output", "-o", help="The archive to write: .tar.gz, .tgz or .tar.")],
        folder: Annotated[
            Path | None, typer.Argument(help="A folder with jobs.jsonl and, for media, files/; or see --from.")
        ] = None,
        keep_bad_rows: Annotated[
            bool, typer.Option("--keep-bad-rows", help="Pack rows that validate refuses, too: they become error lines.")
        ] = False,
        source: Annotated[
            Path | None,
            typer.Option(
                "--from",
                metavar="PATH",
                rich_help_panel=_TABLE,
                help="A .parquet, .arrow, .csv, .tsv or .jsonl, a folder of such, a dataset that `datasets` saved or a "
                "clone of one, or a folder of images. A request is made of each row.",
            ),
        ] = None,
        prompt_template: Annotated[
            str | None,
            typer.Option(
                metavar="TEXT",
                rich_help_panel=_TABLE,
                help="The question, with columns in it: 'Describe {title}.'; {{ and }} are braces; @FILE reads a file. "
                "Images of a folder have the columns {file}, {name} and {label}, the folder they lie in.",
            ),
        ] = None,
        system_template: Annotated[
            str | None, typer.Option(metavar="TEXT", rich_help_panel=_TABLE, help="The system prompt, made alike.")
        ] = None,
        image_column: Annotated[
            list[str] | None,
            typer.Option(
                metavar="NAME",
                rich_help_panel=_TABLE,
                help="A column with images: bytes, paths relative to the table, data: URLs, or lists of these. May be "
                "given several times; a folder of images needs none.",
            ),
        ] = None,
        video_column: Annotated[
            list[str] | None, typer.Option(metavar="NAME", rich_help_panel=_TABLE, help="The same with videos.")
        ] = None,
        id_column: Annotated[
            str | None,
            typer.Option(
                metavar="NAME",
                rich_help_panel=_TABLE,
                help="The column that becomes custom_id, by which answers are joined; default: row-1, row-2, ..., or "
                "the path of the image.",
            ),
        ] = None,
        split: Annotated[
            str | None, typer.Option(rich_help_panel=_TABLE, help="Of a dataset with several: train, test, ...")
        ] = None,
        model: Annotated[
            str, typer.Option(rich_help_panel=_TABLE, help="The model that the requests name.")
        ] = "lsi/tiny-vl",
        endpoint: Annotated[
            str, typer.Option(rich_help_panel=_TABLE, help="chat, completions or embeddings.")
        ] = "chat",
        max_tokens: Annotated[
            int | None, typer.Option(min=1, rich_help_panel=_TABLE, help="The most tokens of an answer.")
        ] = None,
        body: Annotated[
            str | None,
            typer.Option(
                metavar="JSON",
                rich_help_panel=_TABLE,
                help="Further fields of each request, or @FILE: '{\"temperature\": 0}', a response_format, ...",
            ),
        ] = None,
        json: Annotated[
            bool, typer.Option("--json", help="Print one JSON object on standard output, for programs.")
        ] = False,
    ) -> None:
        """Make a valid archive, of a folder or of the rows of a table; refuses what validate would refuse.

        ```
        lsi pack my-batch -o in.tar.gz
        lsi pack --from photos/ --prompt-template 'What is on {file}?' -o in.tar.gz
        lsi pack --from people.csv --id-column id --prompt-template 'Where was {name} born?' -o in.tar.gz
        lsi pack --from pages/ --split train --image-column image --prompt-template @ocr.txt -o in.tar.gz
        ```
        """
        if (folder is None) == (source is None):

            def neither() -> int:
                raise ConfigError("give a folder, or a table with --from: one of the two")

            leave(neither, json)
        if folder is not None:
            from lsi_ray.cli.pack import pack_command

            leave(lambda: pack_command(folder, output, keep_bad_rows, json), json)
        assert source is not None
        from lsi_ray.cli.tables import TableOptions, pack_table_command

        options = TableOptions(
            source,
            prompt_template,
            system_template,
            image_column or [],
            video_column or [],
            id_column,
            split,
            model,
            endpoint,
            max_tokens,
            body,
        )
        leave(lambda: pack_table_command(options, output, keep_bad_rows, json), json)
