from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lsi_ray.cli.identity import Identity, identify, new_identity
from lsi_ray.config import load_config
from lsi_ray.errors import ConfigError
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.storage.location import Location


def identity(folder: Path, source: str = "in.tar") -> Identity:
    return new_identity(
        Location.parse(str(folder / source)), Location.parse(str(folder / "out.tar.gz")), load_config(None), None, False
    )


def test_first_starts_at_the_same_instant_are_one_run(tmp_path: Path) -> None:
    work = WorkDir(tmp_path / "work").create()
    together = threading.Barrier(8)
    found: list[str] = []

    def start() -> None:
        fresh = identity(tmp_path)
        together.wait()
        found.append(identify(work, fresh).batch_id)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_work_dir_of_another_input_is_refused_by_name(tmp_path: Path) -> None:
    work = WorkDir(tmp_path / "work").create()
    identify(work, identity(tmp_path))

    with pytest.raises(ConfigError, match=r"another source: .*in\.tar.*other\.tar"):
        identify(work, identity(tmp_path, "other.tar"))
