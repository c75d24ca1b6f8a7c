"""The table of metrics, what the code reports, and what the dashboard asks for are the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "deploy/grafana/lsi.json"
_ROW = re.compile(r"^\| `(lsi_\w+)` \| (counter|gauge|histogram): ([\w, ]+)", re.MULTILINE)
_MADE = re.compile(r'(Counter|Gauge|Histogram)\(\s*"(lsi_\w+)"')
_ASKED = re.compile(r"ray_(lsi_\w+)")


def documented() -> dict[str, str]:
    return {name: kind for name, kind, _ in _ROW.findall((ROOT / "docs/service.md").read_text())}


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    source = "".join(path.read_text() for path in (ROOT / "lsi_ray").rglob("*.py"))

    assert documented() == {name: kind.lower() for kind, name in _MADE.findall(source)}


@pytest.mark.parametrize("query", queries())
def test_the_dashboard_asks_as_the_kind_of_metric_wants(query: str) -> None:
    for name in _ASKED.findall(query):
        kind = documented()[name.removesuffix("_bucket")]
        assert (kind == "histogram") == name.endswith("_bucket")
        assert (kind == "gauge") == ("rate(" not in query and "increase(" not in query)


def test_every_metric_is_on_the_dashboard() -> None:
    asked = " ".join(queries())

    assert {name for name in documented() if f"ray_{name}" not in asked} == set()
