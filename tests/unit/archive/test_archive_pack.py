from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from tar_blocks import read

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.archive.limits import ArchiveLimits
from lsi_ray.archive.pack import Packed, pack_folder
from lsi_ray.archive.tar_writer import TarWriter, open_gzip
from lsi_ray.errors import ArchiveError, ConfigError, LsiError

JOBS = b'{"custom_id": "1"}\n'
TEXTS = {
    "jobs.jsonl": JOBS,
    "files/a.png": b"a" * 1000,
    "files/sub/größe 1.png": b"b",
    "files/sub/" + "n" * 150 + ".txt": b"",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "batch"
    for name, data in TEXTS.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def refused(folder: Path, output: str = "x.tar.gz", limits: ArchiveLimits | None = None) -> LsiError:
    target = folder.parent / output
    before = target.read_bytes() if target.exists() else None
    with pytest.raises(LsiError) as caught:
        pack_folder(folder, target, limits=limits or ArchiveLimits())
    assert (target.read_bytes() if target.exists() else None) == before
    assert not list(target.parent.glob(".*.tmp"))
    return caught.value


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_packs_a_folder_jobs_first(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"x{suffix}"

    packed = pack_folder(folder, output)

    assert packed == Packed(4, sum(map(len, TEXTS.values())), output.stat().st_size, ())
    index, texts = read(output.read_bytes())
    assert texts == TEXTS
    assert list(index.members) == ["jobs.jsonl", *sorted(TEXTS.keys() - {"jobs.jsonl"})]
    assert output.read_bytes()[:2] == (b"jo" if suffix == ".tar" else b"\x1f\x8b")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_equal_folders_give_equal_bytes(folder: Path, tmp_path: Path, suffix: str) -> None:
    pack_folder(folder, tmp_path / f"first{suffix}")
    again = tmp_path / "again"
    for name in reversed(TEXTS):
        (again / name).parent.mkdir(parents=True, exist_ok=True)
        (again / name).write_bytes(TEXTS[name])
        (again / name).chmod(0o600)
        os.utime(again / name, (1, 1))
    pack_folder(again, tmp_path / f"second{suffix}")

    assert (tmp_path / f"first{suffix}").read_bytes() == (tmp_path / f"second{suffix}").read_bytes()


def test_gnu_tar_and_tarfile_read_it_too(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.tar.gz"
    pack_folder(folder, output)

    with tarfile.open(output) as tar:
        assert {member.name: member.size for member in tar} == {name: len(data) for name, data in TEXTS.items()}
    # Also GNU tar's listing, which warns on anything odd.
    listing = subprocess.run(["tar", "--quoting-style=literal", "-tf", output], capture_output=True, check=True)
    assert listing.stderr == b""
    assert set(listing.stdout.decode().splitlines()) == set(TEXTS)


def test_leaves_out_noise_and_strangers_and_says_which(folder: Path, tmp_path: Path) -> None:
    for name in ("files/._a.png", "files/.DS_Store", ".DS_Store", "notes.txt"):
        (folder / name).write_bytes(b"?")

    packed = pack_folder(folder, tmp_path / "x.tar")

    assert packed.skipped == (".DS_Store", "notes.txt")
    assert read((tmp_path / "x.tar").read_bytes())[1] == TEXTS


def test_files_may_be_missing_and_jobs_may_not(tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    assert (refused(only).code, str(only) in str(refused(only))) == ("missing_jobs", True)
    (only / "jobs.jsonl").write_bytes(JOBS)
    assert pack_folder(only, tmp_path / "x.tar").files == 1


def test_a_link_inside_the_folder_is_packed_as_its_file(folder: Path, tmp_path: Path) -> None:
    (folder / "files/link.png").symlink_to("a.png")
    pack_folder(folder, tmp_path / "x.tar")
    assert read((tmp_path / "x.tar").read_bytes())[1]["files/link.png"] == TEXTS["files/a.png"]


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("files/out.png", "../../secret", "leads out of the folder"),
        ("files/out.png", "/etc/passwd", "leads out of the folder"),
        ("files/gone.png", "nothing.png", "link to nothing"),
        ("files/loop.png", "loop.png", "link to nothing"),
        ("files/more", "sub", "link to a folder"),
        ("files/out", "/etc", "link to a folder"),
    ],
)
def test_refuses_links_that_lead_elsewhere(folder: Path, name: str, target: str, says: str) -> None:
    (folder.parent / "secret").write_bytes(b"secret")
    (folder / name).symlink_to(target)

    error = refused(folder)

    assert error.code == "unsupported_member"
    assert says in error.message
    assert name in error.message


def test_refuses_jobs_or_files_that_are_links_out(folder: Path) -> None:
    (folder / "jobs.jsonl").rename(folder.parent / "jobs.jsonl")
    (folder / "jobs.jsonl").symlink_to("../jobs.jsonl")
    assert refused(folder).code == "unsupported_member"
    (folder / "jobs.jsonl").unlink()
    (folder.parent / "jobs.jsonl").rename(folder / "jobs.jsonl")
    (folder / "files").rename(folder.parent / "media")
    for inside in ("../media", "media"):
        (folder / "files").unlink(missing_ok=True)
        (folder / "files").symlink_to(inside)
        (folder / "media").mkdir(exist_ok=True)
        assert refused(folder).code == "unsupported_member"


def test_refuses_what_the_reader_would_refuse(folder: Path) -> None:
    assert refused(folder, limits=ArchiveLimits(members=3)).code == "too_large"
    assert refused(folder, limits=ArchiveLimits(jobs_bytes=3)).code == "too_large"
    assert "a.png" in refused(folder, limits=ArchiveLimits(member_bytes=999)).message
    assert refused(folder, limits=ArchiveLimits(tar_bytes=1000)).code == "too_large"
    assert refused(folder, limits=ArchiveLimits(input_bytes=100)).code == "too_large"
    (folder / "files/back\\slash").write_bytes(b"")
    assert refused(folder).code == "unsafe_path"


def test_refuses_a_fifo_without_waiting_for_it(folder: Path) -> None:
    os.mkfifo(folder / "files/pipe")
    assert "pipe is no regular file" in refused(folder).message


def test_refuses_names_that_are_one_after_normalisation(folder: Path) -> None:
    (folder / "files/é").write_bytes(b"1")
    (folder / "files/e\u0301").write_bytes(b"2")
    assert refused(folder).code == "duplicate_name"


def test_a_wrong_command_is_a_config_error(folder: Path) -> None:
    for output in ("x.zip", "x", "batch/files/x.tar"):
        assert isinstance(refused(folder, output), ConfigError)
    with pytest.raises(ConfigError, match="no folder"):
        pack_folder(folder / "jobs.jsonl", folder.parent / "x.tar")


def test_a_refusal_leaves_the_old_archive(folder: Path) -> None:
    old = folder.parent / "x.tar.gz"
    old.write_bytes(b"old")
    (folder / "files/z.png").symlink_to("/etc/passwd")
    refused(folder)
    assert old.read_bytes() == b"old"


@pytest.mark.parametrize("size", [2, 4])
def test_the_writer_notices_a_file_that_changed(size: int) -> None:
    with pytest.raises(ArchiveError, match=r"files/a") as caught:
        TarWriter(io.BytesIO()).add("files/a", size, io.BytesIO(b"abc"))
    assert caught.value.code == "changed_file"


def test_an_archive_that_was_not_closed_is_refused() -> None:
    file = io.BytesIO()
    writer = TarWriter(file)
    writer.add_bytes("jobs.jsonl", JOBS)
    with pytest.raises(ArchiveError, match="end-of-archive"):
        read(file.getvalue())
    writer.close()
    writer.close()
    assert read(file.getvalue())[0].size == 2048


def test_the_writer_says_sizes_over_8_gib_in_a_pax_header() -> None:
    file = io.BytesIO()
    with pytest.raises(ArchiveError, match="ended 8589934592 bytes before"):
        TarWriter(file).add("jobs.jsonl", 8**11, io.BytesIO())
    with tarfile.open(fileobj=io.BytesIO(file.getvalue() + bytes(1024))) as tar:
        assert tar.next().size == 8**11  # type: ignore[union-attr]


def test_gzip_leaves_its_target_open_and_has_no_time() -> None:
    target = io.BytesIO()
    with open_gzip(target) as zipped:
        zipped.write(b"x" * 5000)
    assert target.getvalue()[4:8] == bytes(4)
    assert not target.closed


def test_an_atomic_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with atomic_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_file(path) as file:
        file.write(b"%d" % (1 // 0))
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
