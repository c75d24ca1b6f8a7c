"""`lsi validate` opens strangers' files in the guard's child, as a run does."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lsi_ray.cli import validate as command
from lsi_ray.config import load_config
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.limits import DecoderLimits


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def slow_png(side: int) -> bytes:
    """16 bits a channel, each from its neighbours: 50 ns a pixel to decode."""
    pixels = zlib.compress((b"\4" + bytes(8 * side)) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One row for each file."""
    files = {"good.png": slow_png(2), "slow.png": slow_png(3000), "cut.png": slow_png(2)[:-30], "next.png": slow_png(3)}
    (tmp_path / "files").mkdir()
    lines = []
    for name, data in files.items():
        (tmp_path / "files" / name).write_bytes(data)
        content = [{"type": "image_url", "image_url": {"url": f"file:files/{name}"}}]
        body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": content}]}
        lines.append({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})
    (tmp_path / "jobs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_a_file_that_takes_too_long_is_its_rows_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = DecoderLimits(image_seconds=-0.45)  # 0.05 s for nine megapixels
    monkeypatch.setattr(command, "MediaGuard", partial(MediaGuard, bounds=bounds))
    checked = command.check(folder, load_config(None), None, strict=False)
    assert {one.custom_id: one.code for one in checked.failures} == {
        "slow.png": "media_timeout",
        "cut.png": "media_invalid",
    }


def test_no_decoder_runs_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded in this process")

    monkeypatch.setattr(sys.modules["PIL.Image"], "open", refuse)
    monkeypatch.setattr("av.open", refuse)
    checked = command.check(folder, load_config(None), None, strict=False)
    assert [one.code for one in checked.failures] == ["media_invalid"]


def test_intake_opens_no_media_at_all() -> None:
    """It has nothing to open them with."""
    code = (
        "import sys, lsi_ray.intake, lsi_ray.service.intake_job; print(sorted({'PIL', 'av', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
