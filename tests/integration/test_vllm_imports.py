"""What the adapter takes from vLLM is where it looks for it: a release that moved something fails here, by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lsi_ray
from lsi_ray.engine.vllm.health import look
from lsi_ray.engine.vllm.imports import LOCATIONS, find
from lsi_ray.errors import ConfigError


@pytest.mark.parametrize("name", sorted(LOCATIONS))
def test_every_name_is_found_in_the_installed_vllm(name: str) -> None:
    assert find(name) is not None


def test_a_name_that_moved_is_named_with_the_places_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOCATIONS, "Gone", ("vllm.sampling_params", "vllm.nowhere"))
    with pytest.raises(ConfigError, match=r"vLLM \S+ has no Gone \(looked in vllm.sampling_params, vllm.nowhere\)"):
        find("Gone")


def test_the_table_is_complete() -> None:
    """No other module imports from vLLM by path, so the table says all there is."""
    folder = Path(lsi_ray.__file__).parent / "engine" / "vllm"
    for path in folder.glob("*.py"):
        found = re.findall(r"^\s*from (vllm\S*) import|^\s*import (vllm\.\S+)", path.read_text(), flags=re.MULTILINE)
        assert not found, path


def test_the_doctor_finds_this_vllm_healthy() -> None:
    found = look()
    assert found["missing"] == []
    assert found["vllm"]
    assert found["cuda"] or found["gpus"] == 0
