from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lsi_ray.archive.index import index_tar
from lsi_ray.archive.pack import pack_folder
from lsi_ray.archive.validate import Validation, validate
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.image import decode_image
from lsi_ray.media.probe import probe
from lsi_ray.media.sampling import uniform
from lsi_ray.media.video import decode_video
from lsi_ray.sample import write_sample


def validated(folder: Path, tmp_path: Path) -> Validation:
    pack_folder(folder, tmp_path / "in.tar")
    with open(tmp_path / "in.tar", "rb") as file, MediaGuard() as guard:
        return validate(file, index_tar(file), served_model="lsi/tiny-vl", probe=partial(probe, guard))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "batch"
    write_sample(folder)
    return folder


def test_exactly_the_three_broken_rows_are_refused(sample: Path, tmp_path: Path) -> None:
    checked = validated(sample, tmp_path)
    assert checked.rows >= 24
    assert sorted(failure.code for failure in checked.failures) == [
        "file_not_found",
        "invalid_json_line",
        "media_invalid",
    ]


def test_every_kind_of_row_is_there(sample: Path) -> None:
    rows = [json.loads(line) for line in (sample / "jobs.jsonl").read_text().splitlines() if "broken-json" not in line]
    bodies = {row["custom_id"]: row["body"] for row in rows}
    assert len(bodies) == len(rows)
    media = {name: re.findall(r'"type": "(image|video)_url"', json.dumps(body)) for name, body in bodies.items()}
    assert {tuple(kinds) for kinds in media.values()} >= {(), ("image",), ("image", "image"), ("video",)}
    for field in ("tools", "response_format", "logprobs", "n", "seed", "stop", "prompt"):
        assert any(field in body for body in bodies.values()), field
    text = json.dumps(bodies)
    assert "data:image/png;base64," in text
    assert "%C3%A9t%C3%A9%20" in text


def test_all_good_media_decode(sample: Path) -> None:
    files = [path for path in (sample / "files").rglob("*.*") if path.name != "corrupt.png"]
    assert len(files) >= 9
    for path in files:
        data = path.read_bytes()
        if path.suffix in (".mp4", ".webm"):
            assert decode_video(data, uniform(8)).frames.shape == (8, 168, 224, 3)
        else:
            assert decode_image(data).pixels.shape == (168, 224, 3)


def test_the_same_bytes_every_time(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path / "again")

    def digests(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    assert digests(tmp_path / "again") == digests(sample)


def test_more_rows_have_pictures_of_their_own(tmp_path: Path) -> None:
    assert write_sample(tmp_path / "batch", model="other/model", rows=100) == 100
    lines = (tmp_path / "batch" / "jobs.jsonl").read_text().splitlines()
    assert len(lines) == 100
    assert all('"model": "other/model"' in line for line in lines if "broken-json" not in line)
    pictures = [decode_image(p.read_bytes()).pixels for p in sorted((tmp_path / "batch/files/more").iterdir())]
    assert len({np.asarray(p).tobytes() for p in pictures}) == len(pictures) >= 60


def test_the_picture_on_its_side_stands_upright(sample: Path) -> None:
    pixels = decode_image((sample / "files/photo-on-its-side.jpg").read_bytes()).pixels
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 90)
    assert red[110].sum() > 2 * red[50].sum() > 0  # a triangle standing on its base


def test_the_inline_picture_is_a_png(sample: Path) -> None:
    encoded = re.findall(r"data:image/png;base64,([^\"]+)", (sample / "jobs.jsonl").read_text())
    assert [decode_image(base64.b64decode(data)).pixels.shape for data in encoded] == [(168, 224, 3)]
