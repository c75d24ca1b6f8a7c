from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_blocks import JOBS, archive, entry, pax, read, zipped

from lsi_ray.archive.index import ArchiveIndex, Member, index_tar, load_index, read_member, save_index
from lsi_ray.archive.tar_writer import TarWriter
from lsi_ray.errors import ArchiveError


def refused(data: bytes) -> ArchiveError:
    with pytest.raises(ArchiveError) as caught:
        read(data)
    return caught.value


def test_members_are_byte_ranges_of_the_tar() -> None:
    data = archive(entry(b"files/a", b"abc"), entry(b"files/sub/b", b"x" * 1000))

    index = index_tar(io.BytesIO(data))

    assert index.jobs == Member("jobs.jsonl", 512, 3)
    assert index.members["files/sub/b"] == Member("files/sub/b", 2560, 1000)
    assert all(data[member.offset :][: member.size] for member in index.members.values())
    assert index.size == len(data)
    assert index.ignored == ()


@pytest.mark.parametrize("top", [b"", b"./", b"batch/", b"./batch/", "größe/".encode()])
def test_names_are_relative_to_the_root_in_any_order(top: bytes) -> None:
    data = (
        entry(top + b"files/a", b"1") + entry(top + b"jobs.jsonl", b"{}") + entry(top + b"files/b", b"2") + bytes(1024)
    )

    index, texts = read(data)

    assert texts == {"files/a": b"1", "jobs.jsonl": b"{}", "files/b": b"2"}
    assert index.ignored == ()


def test_what_is_no_part_of_the_format_is_ignored_and_named() -> None:
    parts = [
        b"README.md",
        b"files/._a",
        b"__MACOSX/files/a",
        b".DS_Store",
        b"other/files/x",
        b"files.txt",
        b"output.jsonl",
    ]

    index, texts = read(archive(*(entry(name, b"?") for name in parts), entry(b"files/a", b"1")))

    assert texts == {"jobs.jsonl": b"{}\n", "files/a": b"1"}
    assert index.ignored == tuple(name.decode() for name in parts)


@pytest.mark.parametrize(
    "twin",
    [
        entry(b"files/a"),
        entry(b"./files//a"),
        pax((b"path", b"files/a")) + entry(b"files/b"),
        entry(b"a", prefix=b"files"),
    ],
)
def test_refuses_two_files_of_one_name(twin: bytes) -> None:
    error = refused(archive(entry(b"files/a", b"1"), twin))

    assert (error.code, error.offset) == ("duplicate_name", 2048)
    assert "'files/a'" in error.message
    assert "first at byte 1024" in error.message


def test_names_are_one_after_normalisation_but_not_across_case() -> None:
    composed, decomposed = "files/é".encode(), "files/e\u0301".encode()
    assert refused(archive(entry(composed), entry(decomposed))).code == "duplicate_name"
    assert read(archive(entry(b"files/a.png", b"1"), entry(b"files/A.png", b"2")))[1]["files/A.png"] == b"2"
    assert refused(archive(entry(b"./jobs.jsonl"))).code == "duplicate_name"


def test_says_that_an_offset_is_one_of_the_decompressed_tar() -> None:
    data = archive(entry(b"files/a", kind=b"2"))

    assert str(refused(data)).endswith("(at byte 1024)")
    error = refused(zipped(data))
    assert error.code == "unsupported_member"
    assert error.offset == 1024
    assert str(error).startswith("in the decompressed tar: 'files/a' is a symbolic link")
    assert str(error).count("at byte 1024") == 1


def test_refuses_gzip_of_something_else() -> None:
    assert "once more" in refused(zipped(zipped(archive()))).message
    assert "JSON" in refused(zipped(b'{"custom_id": 1}\n' * 100)).message
    assert "empty" in refused(zipped(b"")).message


def test_an_empty_tar_has_no_jobs() -> None:
    assert refused(bytes(10240)).code == "missing_jobs"


def test_a_file_that_shrank_is_noticed() -> None:
    data = archive(entry(b"files/a", b"x" * 2000))
    member = index_tar(io.BytesIO(data)).members["files/a"]

    with pytest.raises(ArchiveError, match="1000 of 2000") as caught:
        read_member(io.BytesIO(data[: member.offset + 1000]), member)
    assert caught.value.code == "truncated"


class CountingFile(io.BytesIO):
    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.reads += len(data)
        return data


def test_payloads_are_not_read() -> None:
    big = archive(*(entry(b"files/%d" % number, bytes(1_000_000)) for number in range(20)))
    file = CountingFile(big)

    index_tar(file)

    assert file.reads < len(big) / 50


def test_an_index_survives_saving(tmp_path: Path) -> None:
    index, _ = read(archive(entry("files/日本語.png".encode(), b"1"), entry(b"README", b"2")))
    path = tmp_path / "batch.index"

    save_index(index, path)

    assert load_index(path) == index
    assert pickle.loads(pickle.dumps(index)) == index
    assert [entry.name for entry in tmp_path.iterdir()] == ["batch.index"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x92\xabother-index\xc0"])
def test_refuses_a_saved_index_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "batch.index"
    path.write_bytes(content)

    with pytest.raises(ArchiveError, match=r"batch\.index") as caught:
        load_index(path)
    assert caught.value.code == "bad_index"


def test_refuses_a_saved_index_of_another_version_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "batch.index"
    save_index(read(archive())[0], path)
    data = path.read_bytes()
    for content in (data.replace(b"lsi-index-1", b"lsi-index-0"), data[:-1], data + b"\0"):
        path.write_bytes(content)
        with pytest.raises(ArchiveError):
            load_index(path)


def test_a_failed_save_leaves_the_old_index(tmp_path: Path) -> None:
    path = tmp_path / "batch.index"
    index, _ = read(archive())
    save_index(index, path)

    with pytest.raises(TypeError):
        save_index(ArchiveIndex({}, index.jobs, 0, (object(),)), path)  # type: ignore[arg-type]
    assert load_index(path) == index
    assert [entry.name for entry in tmp_path.iterdir()] == ["batch.index"]


segments = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=40)
texts = st.dictionaries(segments.filter(lambda name: name not in (".", "..")), st.binary(max_size=2000), max_size=6)


@settings(deadline=None)  # 200 ms pass on a busy machine
@given(texts)
def test_reads_every_archive_that_we_and_tarfile_write(files: dict[str, bytes]) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = TarWriter(ours)
    with tarfile.open(fileobj=theirs, mode="w") as tar:
        for name, data in {"jobs.jsonl": b"{}", **{f"files/{name}": data for name, data in files.items()}}.items():
            writer.add_bytes(name, data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    writer.close()

    results: list[dict[str, bytes] | str] = []
    for file in (ours, theirs):
        try:
            results.append(read(file.getvalue())[1])
        except ArchiveError as error:
            results.append(error.code)
    assert results[0] == results[1]
    if isinstance(results[0], dict):
        assert sorted(results[0].values()) == sorted(
            [b"{}", *(data for name, data in files.items() if not name.startswith("._") and name != ".DS_Store")]
        )
    else:
        assert results[0] == "duplicate_name"


def test_jobs_need_not_come_first() -> None:
    data = entry(b"files/a", b"1") + JOBS + bytes(1024)
    assert read(data)[0].jobs.offset == 1536
