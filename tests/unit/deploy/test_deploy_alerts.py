"""The alert rules: each names a metric that is exported and a section of the runbook that is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILE = ROOT / "deploy/prometheus/alerts.yaml"
SOURCES = [ROOT / "lsi_ray/service/metrics.py", ROOT / "lsi_ray/stream/stage_metrics.py"]
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_about_a_metric_and_leads_somewhere(rule: dict[str, Any]) -> None:
    exported = "".join(source.read_text() for source in SOURCES)
    names = {name.removesuffix("_bucket") for name in re.findall(r"ray_(lsi_[a-z_]+)", rule["expr"])}
    assert names
    for name in names:
        assert f'"{name}"' in exported
    page, _, section = rule["annotations"]["runbook"].partition("#")
    titles = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert section in {title.lower().replace(" ", "-") for title in titles}
    assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian's prometheus)")
def test_promtool_takes_them_and_they_fire() -> None:
    for words in (["check", "rules", FILE], ["test", "rules", Path(__file__).parent / "alerts_test.yaml"]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
