"""Every cut of an archive at every byte, and every flipped bit of a tar.gz: none is accepted in silence."""

from __future__ import annotations

import gzip
import io

import pytest
from tar_blocks import archive, entry, gnu_name, outcome, pax, read, zipped

from lsi_ray.archive.gzip import GzipStager
from lsi_ray.errors import ArchiveError

TAR = archive(
    entry(b"files/", kind=b"5"),
    pax((b"path", "files/größe.png".encode()), (b"mtime", b"1.5")) + entry(b"short", b"x" * 700),
    gnu_name(b"files/" + b"n" * 200) + entry(b"short", b"y" * 3),
    entry(b"files/empty"),
) + bytes(9 * 512)
END_AT = len(TAR) - 9 * 512


def test_every_cut_of_a_tar_is_refused() -> None:
    whole = read(TAR)
    for size in range(len(TAR)):
        result = outcome(TAR[:size])
        if size < END_AT:
            assert isinstance(result, ArchiveError), size
            assert (result.code, result.offset) == ("truncated", size) or size < 512
            assert result.code in ("truncated", "not_an_archive")
        else:
            # Whole: the two end-of-archive blocks are there, and only filler after them was lost.
            assert not isinstance(result, ArchiveError), size
            assert (result[0].members, result[1]) == (whole[0].members, whole[1])


@pytest.mark.parametrize("data", [zipped(TAR), zipped(TAR[:2000]) + zipped(TAR[2000:]), gzip.compress(TAR, 0, mtime=0)])
def test_every_cut_of_a_tar_gz_is_refused(data: bytes) -> None:
    read(data)
    for size in range(len(data)):
        with pytest.raises(ArchiveError) as caught:
            read(data[:size])
        assert caught.value.code in ("truncated", "not_an_archive"), size


@pytest.mark.parametrize("chunk_bytes", [1, 64])
def test_every_cut_of_a_download_is_refused_when_it_closes(chunk_bytes: int) -> None:
    data = zipped(TAR)
    stager = GzipStager(io.BytesIO())
    for start in range(0, len(data), chunk_bytes):
        with pytest.raises(ArchiveError) as caught:
            stager.close()
        assert (caught.value.code, caught.value.offset) == ("truncated", start)
        stager.feed(data[start : start + chunk_bytes])
    assert stager.close().size_out == len(TAR)


def test_every_flipped_bit_of_a_tar_gz_is_refused_or_harmless() -> None:
    data = zipped(TAR)
    whole = read(data)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            result = outcome(bytes(changed))
            if isinstance(result, ArchiveError):
                assert result.code in ("bad_gzip", "truncated", "not_an_archive", "trailing_data"), (place, bit)
            else:
                # The time in the gzip header says nothing about the content, and the deflate of zeros can say them in
                # several ways; but the trailer and the rest of the header have one right value only.
                assert result == whole
                assert 3 <= place < len(data) - 8, (place, bit)
                assert place != 3 or bit == 0, "only the text flag"
