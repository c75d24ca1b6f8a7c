"""`lsi run`: one batch, from its input to its delivered output, resumable at every point."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lsi_ray.batch_files import Staged
from lsi_ray.cli.exit_codes import FAILED, OK, REFUSED, exit_code
from lsi_ray.cli.identity import Identity, default_work_dir, forget, identify, is_identified, new_identity
from lsi_ray.cli.interrupts import catch_interrupts, check_interrupts
from lsi_ray.cli.last_words import last_words
from lsi_ray.cli.report import Reporter, Watch, library_output
from lsi_ray.config import Config, Replicas, load_config
from lsi_ray.delivery import Delivered, deliver, reopen_damaged
from lsi_ray.errors import BatchRefused, ConfigError, LsiError
from lsi_ray.intake import findings_of, stage, take_in
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import WorkDir, atomic_write
from lsi_ray.storage.location import Location

_T = TypeVar("_T")

# A refused archive should say so without waiting for Ray; a large one should not keep Ray waiting.
_HEAD_START_S = 2.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    source: str
    output: str
    config: Path | None
    work_dir: Path | None
    replicas: str | None
    max_rows: int | None
    strict: bool
    json: bool


@dataclass(frozen=True, slots=True)
class Run:
    config: Config
    source: Location
    target: Location
    work: WorkDir
    identity: Identity
    own_work_dir: bool
    reporter: Reporter

    @property
    def batch_id(self) -> str:
        return self.identity.batch_id


def run_command(options: RunOptions) -> int:
    catch_interrupts()
    hide_signatures(options)
    run = open_run(options)
    run.reporter.say(f"work dir {run.work.path}")
    try:
        with last_words(f"lsi run was ended from outside, or lost its Ray. {how_to_go_on(run.work.path)}"):
            delivered, engine = _run(run)
    except (KeyboardInterrupt, SystemExit):  # the latter is Ray's answer to SIGTERM
        run.reporter.say(f"stopped. {how_to_go_on(run.work.path)}")
        return FAILED
    except Exception as error:
        if not (isinstance(error, LsiError) and exit_code(error) == REFUSED):
            run.reporter.say(f"failed. {how_to_go_on(run.work.path)}")
        raise
    finally:
        if run.own_work_dir and not is_identified(run.work):
            shutil.rmtree(run.work.path, ignore_errors=True)
    run.reporter.delivered(run.batch_id, str(run.target), delivered, engine)
    return OK


def how_to_go_on(work: Path) -> str:
    return f"What is finished is safe in {work}: run the same command again to go on."


def open_run(options: RunOptions) -> Run:
    """Check the command, and find or make the work dir. Raises ConfigError."""
    config = with_replicas(load_config(options.config), options.replicas)
    source, target = locate(options.source), locate(options.output)
    check_target(source, target)
    fresh = new_identity(source, target, config, options.max_rows, options.strict)
    work = WorkDir((options.work_dir or default_work_dir(fresh)).absolute()).create()
    identity = identify(work, fresh)
    return Run(config, source, target, work, identity, options.work_dir is None, Reporter(options.json))


def _run(run: Run) -> tuple[Delivered, dict[str, str]]:
    intake = _in_background(partial(_take_in, run))
    try:
        status = intake.result(timeout=_HEAD_START_S)
    except FutureTimeout:
        return _with_ray(run, intake)
    if status == BatchStatus.IN_PROGRESS:
        return _with_ray(run, intake)
    ledger = _DirectLedger(run)
    if reopen_damaged(run.batch_id, run.work.batch(run.batch_id), ledger):
        ledger.close()
        return _with_ray(run, intake)
    return _finish(run, ledger)


def _in_background(work: Callable[[], _T]) -> Future[_T]:
    """In a daemon thread, unlike an executor's: Ctrl-C does not wait for the end of a download."""
    future: Future[_T] = Future()

    def fulfil() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised again by `Future.result`
            future.set_exception(error)

    threading.Thread(target=fulfil, name="intake", daemon=True).start()
    return future


def _with_ray(run: Run, intake: Future[BatchStatus]) -> tuple[Delivered, dict[str, str]]:
    from lsi_ray.stream.cluster import check_gpus, check_shared, cluster

    run.reporter.say("starting Ray")
    with library_output(run.work.path / "driver.log"), cluster() as own:
        # Again: Ray sets a handler that aborts the process 3 s later, and a clean stop may take longer.
        catch_interrupts()
        check_gpus(run.config.engine.gpus, run.config.replicas.min, own)
        # Not before: they import Ray, and `cluster` sets the environment that Ray reads then.
        from lsi_ray.stream.ledger_actor import start_ledger
        from lsi_ray.stream.run import run_until_answered

        intake.result()
        check_shared(_shared_paths(run))
        ledger = start_ledger(run.work.path)
        while True:
            with run.reporter.watching() as watch:
                run_until_answered(run.config, run.work.path, ledger, run.batch_id, partial(_watch, watch))
            _note_engine(run, next((replica.engine for replica in ledger.replicas() if replica.engine), None))
            if not reopen_damaged(run.batch_id, run.work.batch(run.batch_id), ledger):
                return _finish(run, ledger)
            run.reporter.say("some finished results were damaged on disk: running their rows again")


def _watch(show: Watch, snapshot: Any) -> None:
    check_interrupts()
    show(snapshot)


def _shared_paths(run: Run) -> list[Path]:
    """What workers open, on whatever node they are."""
    staged = Staged.load(run.work.batch(run.batch_id))
    return [run.work.batch(run.batch_id).path, *([Path(staged.tar)] if staged else [])]


def _note_engine(run: Run, engine: dict[str, str] | None) -> None:
    """For the manifest, which may be written by a later run that starts no engine."""
    if engine:
        atomic_write(run.work.batch(run.batch_id).path / "engine.json", msgspec.json.encode(engine))


def _noted_engine(run: Run) -> dict[str, str]:
    path = run.work.batch(run.batch_id).path / "engine.json"
    return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}


def _finish(run: Run, ledger: Any) -> tuple[Delivered, dict[str, str]]:
    folder = run.work.batch(run.batch_id)
    engine = _noted_engine(run)
    delivered = deliver(run.batch_id, run.target, folder, ledger, run.config, engine, run.reporter.say)
    # Delivered: nothing of the user's stays. The identity goes last (see identity.py).
    ledger.erase(run.batch_id)
    run.work.erase_batch(run.batch_id)
    forget(run.work)
    return delivered, engine


def _take_in(run: Run) -> BatchStatus:
    """Intake with the ledger in this process; it is closed before the actor opens it."""
    folder = run.work.batch(run.batch_id)
    ledger = Ledger(run.work.ledger)
    try:
        batch = ledger.create_batch(
            NewBatch(
                batch_id=run.batch_id,
                model=run.config.model,
                input=run.identity.source,
                output=run.identity.output,
            )
        )
        if batch.status == BatchStatus.FAILED:  # refused, and killed before it could say so
            raise BatchRefused(list(batch.findings))
        if batch.status == BatchStatus.VALIDATING:
            checked = take_in(
                run.batch_id,
                run.source,
                folder,
                ledger,
                run.config,
                strict=run.identity.strict,
                max_rows=run.identity.max_rows,
                say=run.reporter.say,
            )
            run.reporter.checked(checked)
        else:
            stage(run.source, folder, run.config, run.reporter.say)
            run.reporter.resuming(ledger.progress(run.batch_id))
        return ledger.batch(run.batch_id).status
    except LsiError as error:
        _forget(run, ledger, error)
        raise
    finally:
        ledger.close()


def _forget(run: Run, ledger: Ledger, error: LsiError) -> None:
    """A batch refused in validation is over: the next run of this command starts afresh."""
    status = ledger.batch(run.batch_id).status
    if status not in (BatchStatus.VALIDATING, BatchStatus.FAILED) or getattr(error, "transient", False):
        return
    ledger.fail_batch(run.batch_id, findings_of(error))
    ledger.erase(run.batch_id)
    run.work.erase_batch(run.batch_id)
    forget(run.work)


class _DirectLedger:
    """The ledger in this process, for a batch that needs no stream (every row was bad, or only delivery was left)."""

    def __init__(self, run: Run) -> None:
        self._ledger = Ledger(run.work.ledger)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


def hide_signatures(options: RunOptions) -> None:
    """Start this command again with its signed URLs in the environment: Ray shows a driver's words in its job table,
    and `ps` shows them to everybody."""
    names = {"LSI_INPUT": options.source, "LSI_OUTPUT": options.output}
    signed = {name: text for name, text in names.items() if text.startswith(("http://", "https://")) and "?" in text}
    words = sys.argv[1:]
    for name, text in signed.items():
        words = [word.replace(text, f"env:{name}") for word in words]
    if signed and words != sys.argv[1:]:
        os.execve(sys.executable, [sys.executable, "-m", "lsi_ray", *words], {**os.environ, **signed})


def check_target(source: Location, target: Location) -> None:
    """Raises ConfigError for an output that would cost the input, or that cannot be written, before anything runs."""
    if target.path is None:
        return
    if source.path is not None and source.path.resolve() == target.path.resolve():
        raise ConfigError(f"{target}: the output would replace the input; give it another name")
    if target.path.is_dir():
        raise ConfigError(f"{target} is a folder; name the archive to write, such as {target.path / 'out.tar.gz'}")
    parent = next(folder for folder in target.path.absolute().parents if folder.exists())
    if not os.access(parent, os.W_OK):
        raise ConfigError(f"{target} cannot be written: no right to write in {parent}")


def locate(text: str) -> Location:
    """A location given on the command line; `env:NAME` reads it from the environment."""
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        if not os.environ.get(name):
            raise ConfigError(f"{text}: the environment variable {name} is not set")
        text = os.environ[name]
    return Location.parse(text)


def with_replicas(config: Config, text: str | None) -> Config:
    """The config with `--replicas MIN:MAX` or `--replicas N`."""
    if text is None:
        return config
    low, _, high = text.partition(":")
    try:
        replicas = Replicas(min=int(low), max=int(high or low))
    except ValueError:
        raise ConfigError(f"--replicas {text!r}: write MIN:MAX or one number, from 1 up") from None
    return config.model_copy(update={"replicas": replicas})
