from __future__ import annotations

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.workdir import WorkDir, atomic_write, replacing


def test_the_layout_and_its_modes(tmp_path):
    work = WorkDir(tmp_path / "work").create()
    batch = work.batch("b1").create()
    assert work.create().batch("b1").create() == batch
    assert (work.ledger, work.lock) == (work.path / "ledger.sqlite", work.path / "lock")
    names = ["input.tar", "index.msgpack", "plan.npy", "segments", "output.tar.gz"]
    assert [batch.input, batch.index, batch.plan, batch.segments, batch.output] == [batch.path / n for n in names]
    assert batch.path == work.path / "batches" / "b1"
    for folder in (work.path, work.batches, batch.path, batch.segments):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_was_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    WorkDir(tmp_path).create()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "batches").stat().st_mode & 0o777 == 0o700


def test_erasing_is_complete_and_repeatable(tmp_path):
    work = WorkDir(tmp_path).create()
    work.batch("b1").create().input.write_bytes(b"x")
    work.batch("b2").create()
    work.erase_batch("b1")
    work.erase_batch("b1")
    assert [path.name for path in work.batches.iterdir()] == ["b2"]


@pytest.mark.parametrize("name", ["..", "../b", "/etc", "", "a/../b", "-\0"])
def test_no_id_leads_out_of_the_work_dir(tmp_path, name):
    with pytest.raises(LedgerError):
        WorkDir(tmp_path).erase_batch(name)


def test_a_write_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, b"one")

    def die_halfway():
        with replacing(path) as file:
            file.write(b"half of two")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        die_halfway()
    assert path.read_bytes() == b"one"
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o600
