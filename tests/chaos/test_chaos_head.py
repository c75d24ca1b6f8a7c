"""The head dies: all of Ray at once, or its GCS alone. A new one and `lsi serve` again go on with what was accepted."""

from __future__ import annotations

import time

import pytest
from archives import check_complete, numbered, write_archive
from kills import LedgerView
from ray_nodes import RayNodes
from records import record
from runs import Lsi
from s3_server import S3Server
from served import Served

ROWS = 1000
pytestmark = pytest.mark.timeout(1200)


@pytest.mark.parametrize("victim", ["everything", "gcs"])
def test_a_new_head_goes_on(lsi: Lsi, s3_server: S3Server, nodes: RayNodes, victim: str) -> None:
    served, rows = Served(lsi, s3_server, nodes), numbered(ROWS, max_tokens=64)
    ledger = LedgerView(served.work)
    ids = {}
    for key in (f"{victim}-runs", f"{victim}-waits"):
        write_archive(s3_server.path(f"{key}-in.tar.gz"), rows)
        ids[key] = served.submit(key)
    while ledger.counts().answered < ROWS // 4:
        time.sleep(0.2)
    before = ledger.counts()
    if victim == "gcs":
        (gcs,) = nodes.members("gcs/gcs_server")
        gcs.kill()
        # Raylets wait for a GCS to come back, then they end, and everything with them.
        nodes.until_gone("raylet/raylet", seconds=120)
    nodes.kill_all()
    nodes.start_again()
    begun = time.monotonic()
    assert served.serve() == "", "the tokens that were made are good still"
    back_s = time.monotonic() - begun
    for batch_id in ids.values():
        view = served.view(batch_id)
        assert view is not None
        assert view["id"] == batch_id
    for key, batch_id in ids.items():
        served.wait(batch_id, "completed")
        output = check_complete(s3_server.path(f"{key}-out.tar.gz"), rows)
        assert not output.errors
        assert s3_server.uploads(f"{key}-out.tar.gz") == 1
    again = ledger.counts().again
    what = "power cut of head and nodes, two batches accepted" if victim == "everything" else "kill -9 of the GCS"
    note = "from Ray's return to the API's; nothing accepted is unknown"
    record(what, 2 * ROWS, run_again=again, in_flight=before.in_flight, seconds=back_s, puts=2, note=note)
    assert again <= before.in_flight + 64  # more may have begun before the last raylet ended
    served.stop()
