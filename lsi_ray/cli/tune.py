"""`lsi tune`: a bounded search for the engine arguments that run the user's own rows fastest."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.cli.exit_codes import FAILED, OK
from lsi_ray.cli.interrupts import catch_interrupts, check_interrupts
from lsi_ray.cli.tune_report import Said, rated
from lsi_ray.cli.validate import plain_tar
from lsi_ray.config import Config, default_config_path, load_config
from lsi_ray.doctor.gpus import Gpu, visible_gpus
from lsi_ray.errors import ConfigError, EngineError
from lsi_ray.tune.candidate import Candidate, described
from lsi_ray.tune.edit import edited
from lsi_ray.tune.measurement import Measurement
from lsi_ray.tune.runner import Runner
from lsi_ray.tune.sample import Sample, prepare
from lsi_ray.tune.search import Found, Search

_SHARE = 20  # of the time, one candidate's measuring
_LEAST_S, _MOST_S = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class TuneOptions:
    config: Path | None
    sample: Path
    output: Path
    minutes: float
    rows: int
    seed: int
    json: bool


def tune_command(options: TuneOptions) -> int:
    catch_interrupts()
    config = load_config(options.config)
    source = options.config or default_config_path()
    _check(options, config, source)
    gpus = visible_gpus()
    said = Said(options.json)
    scratch = Path(tempfile.mkdtemp(prefix="lsi-tune-"))
    try:
        sample = _prepare(options, config, scratch)
        bound = f"{options.minutes:g} minutes at most; Ctrl-C keeps the best so far"
        said.say(f"a sample of {sample.rows:,} of {sample.of:,} rows; {bound}")
        search = _search(options, config, scratch, len(gpus), said)
        found = _run(search)
    except EngineError as error:
        raise EngineError(f"{error}; its log is {_keep_log(scratch, options.output)}", code=error.code) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _conclude(options, config, source, sample, found, gpus, said)


def _check(options: TuneOptions, config: Config, source: Path) -> None:
    if not options.sample.exists():
        raise ConfigError(f"no such archive or folder: {options.sample}")
    if options.output.exists() and options.output.resolve() == source.resolve():
        raise ConfigError(f"{options.output} is the config that is tuned: give the result another name with -o")
    if not options.output.absolute().parent.is_dir():
        raise ConfigError(f"{options.output}: there is no such folder")
    if config.engine.gpus and not visible_gpus():
        raise ConfigError(
            f"{source} wants {config.engine.gpus} GPU(s), and there is none here: run `lsi tune` on a machine like "
            "those that will run the batch; `lsi doctor` tells what is wrong with a GPU that is not seen"
        )


def _prepare(options: TuneOptions, config: Config, scratch: Path) -> Sample:
    tar, compressed = plain_tar(options.sample, scratch, config)
    return prepare(tar, compressed, config, options.rows, options.seed, scratch)


def _search(options: TuneOptions, config: Config, scratch: Path, gpus: int, said: Said) -> Search:
    budget = options.minutes * 60
    runner = Runner(
        config,
        scratch,
        seconds=min(max(budget / _SHARE, _LEAST_S), _MOST_S),
        render_s=budget / 5,
        limit_s=max(budget, 600.0),
        alive=check_interrupts,
        say=lambda words: said.say(f"  {words}"),
    )

    def measure(candidate: Candidate, beat: float) -> Measurement:
        said.say(f"{candidate}:")
        return runner.measure(candidate, beat)

    return Search(config, measure, budget, gpus=gpus, tell=said.tell)


def _run(search: Search) -> Found:
    try:
        return search.run()
    except KeyboardInterrupt:
        if search.found.best is None:
            raise
        search.found.ended = "stopped by you"
        return search.found


def _keep_log(scratch: Path, output: Path) -> Path:
    logs = sorted(scratch.glob("log-*.txt"), key=lambda path: path.stat().st_mtime)
    return shutil.copyfile(logs[-1], output.with_suffix(".log"))


def _conclude(
    options: TuneOptions, config: Config, source: Path, sample: Sample, found: Found, gpus: list[Gpu], said: Said
) -> int:
    assert found.best is not None
    kept = True
    if found.best != Candidate():
        text, kept = edited(source.read_text(), config, dict(found.best.changes))
        with atomic_file(options.output) as file:
            file.write((_header(options, sample, found, gpus) + text).encode())
    else:
        options = _with_output(options, source)
    if options.json:
        print(json.dumps(_object(options, config, sample, found), ensure_ascii=False))
    else:
        said.table(found)
        said.conclusion(options.output, found, kept)
    return OK if found.trials[found.best].score else FAILED


def _with_output(options: TuneOptions, source: Path) -> TuneOptions:
    values = {name: getattr(options, name) for name in options.__dataclass_fields__}
    return TuneOptions(**{**values, "output": source})


def _header(options: TuneOptions, sample: Sample, found: Found, gpus: list[Gpu]) -> str:
    """Comments above the config: a number means nothing without its machine, its rows and its day."""
    assert found.best is not None
    trial = found.trials[found.best]
    engine = trial.first.engine
    machine = f"{len(gpus)} x {gpus[0].name}" if gpus and trial.first.gpus else "the CPU"
    lines = [
        f"Tuned by `lsi tune` on {time.strftime('%Y-%m-%d')}, {machine}, {engine.get('name')} {engine.get('version')},",
        f"with {sample.rows} rows of {options.sample.name}: {found.best}.",
        f"{rated(trial)}; as given {rated(found.given)}.",
    ]
    return "".join(f"# {line}\n" for line in lines)


def _object(options: TuneOptions, config: Config, sample: Sample, found: Found) -> dict[str, Any]:
    assert found.best is not None
    return {
        "config": str(options.output),
        "given": described(config),
        "best": dict(found.best.changes),
        "gain": found.gain,
        "confirmed": found.confirmed,
        "ended": found.ended,
        "sample": {"rows": sample.rows, "of": sample.of, "seed": options.seed},
        "candidates": [
            {
                "changes": dict(trial.candidate.changes),
                "score": trial.score,
                "measurements": [asdict(one) for one in trial.measurements],
            }
            for trial in found.trials.values()
        ],
    }
