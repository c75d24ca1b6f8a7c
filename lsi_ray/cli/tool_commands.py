"""Arguments and help of the commands that look after a machine: `lsi tune` and `lsi doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for programs.")]
Leave = Callable[[Callable[[], int], bool], NoReturn]


def add_tool_commands(app: typer.Typer, leave: Leave) -> None:
    @app.command()
    def tune(
        config: Annotated[Path, typer.Argument(help="The YAML to begin with: a file of configs/, or your own.")],
        sample: Annotated[
            Path,
            typer.Option("--sample", help="An archive or a folder of your rows; --rows of them are drawn from it."),
        ],
        output: Annotated[Path, typer.Option("--output", "-o", help="Where a better config goes.")] = Path(
            "tuned.yaml"
        ),
        minutes: Annotated[float, typer.Option(min=0.1, help="The most it may take, engine starts included.")] = 20.0,
        rows: Annotated[
            int,
            typer.Option(min=1, help="Rows to measure with, spread over the archive; they are run again and again."),
        ] = 512,
        seed: Annotated[int, typer.Option(help="Of the draw: the same seed draws the same rows.")] = 0,
        json: JsonOption = False,
    ) -> None:
        """Find the engine arguments that run your rows fastest on this machine, and write the config.

        Every candidate is the real engine in a fresh process, fed from rendered rows of your archive until its rate is
        steady: `max_num_seqs`, `max_num_batched_tokens` and, on several GPUs, `tensor_parallel_size` go up and down by
        steps of two as long as that brings more rows per second and GPU, within the time; `gpu_memory_utilization`
        moves where an engine does not start otherwise. The best is measured again beside the given one. Needs no Ray.

        ```
        lsi tune configs/qwen2.5-vl-7b.yaml --sample in.tar.gz -o tuned.yaml
        lsi run in.tar.gz -o out.tar.gz -c tuned.yaml
        ```
        """
        from lsi_ray.cli.tune import TuneOptions, tune_command

        options = TuneOptions(config, sample, output, minutes, rows, seed, json)
        leave(lambda: tune_command(options), json)

    @app.command()
    def doctor(
        config: Annotated[
            Path | None, typer.Option("--config", "-c", help="What should run here; default: lsi/tiny-vl, on the CPU.")
        ] = None,
        work_dir: Annotated[
            Path | None, typer.Option(help="Where batches will lie; default: the cache folder.")
        ] = None,
        storage: Annotated[
            str | None,
            typer.Option(
                metavar="LOCATION",
                help="Something to be read as an input would be: s3://bucket/key, a pre-signed URL, env:NAME. Clocks "
                "are compared, too.",
            ),
        ] = None,
        json: JsonOption = False,
    ) -> None:
        """Look for what would keep batches from running on this machine, and say what to do about it.

        GPUs and their driver, vLLM and torch, the model's weights, Ray, memory, disks, ports, the clock; the cluster of
        RAY_ADDRESS and the service of LSI_URL, where they are set. Changes nothing, and takes no GPU memory.

        Exit code 0: nothing failed (warnings may be there); 1: something did.

        ```
        lsi doctor -c configs/qwen2.5-vl-7b.yaml --storage s3://bucket/in.tar
        ray job submit -- lsi doctor -c configs/qwen2.5-vl-7b.yaml       on a cluster
        ```
        """
        from lsi_ray.cli.doctor import doctor_command

        leave(lambda: doctor_command(config, work_dir, storage, json), json)
