"""Strict is not fussy: what real tools write by default is read, name by name and byte by byte."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from tar_blocks import read

ARCHIVES = Path(__file__).parents[2] / "fixtures" / "archives"
EXPECTED = json.loads((ARCHIVES / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED["archives"])
def test_reads_what_a_real_producer_wrote(name: str) -> None:
    expected = EXPECTED["archives"][name]
    tree = {unicodedata.normalize("NFC", path): text for path, text in EXPECTED["trees"][expected["tree"]].items()}

    index, texts = read((ARCHIVES / name).read_bytes())

    assert {path: data.decode() for path, data in texts.items()} == tree
    assert sorted(index.ignored) == expected["ignored"]
    assert index.jobs == index.members["jobs.jsonl"]


def test_every_fixture_is_listed() -> None:
    assert {path.name for path in ARCHIVES.glob("*.tar*")} == set(EXPECTED["archives"])
