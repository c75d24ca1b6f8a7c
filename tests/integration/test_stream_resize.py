"""Ray Data has no way to say how large a running pool should be; what resize.py does instead must go on working."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "resized_stream.py"


def test_a_busy_stream_grows_and_shrinks_and_no_row_is_lost(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, tmp_path], capture_output=True, text=True, timeout=200, check=False
    )
    assert (tmp_path / "seen.json").exists(), done.stderr[-3000:]
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert sorted(row for row, _, _ in seen) == list(range(400))
    assert len({actor for _, actor, _ in seen}) == 4
    assert [actor for _, actor, _ in seen[-12:]] == [seen[-1][1]] * 12
    assert seen[-1][1] in {actor for _, actor, wanted in seen if wanted == 2}, "those that came last go first"
