from __future__ import annotations

import json
import logging

from stream_world import BATCH, World

from lsi_ray.errors import RowError
from lsi_ray.stream.commit import Commit
from lsi_ray.stream.generate import Generate
from lsi_ray.stream.logs import JsonLines, RowLog, fields, log_lines


def test_a_line_is_one_object_that_names_the_batch_and_no_secret():
    url = "https://host/in?X-Amz-Signature=topsecret"
    record = logging.LogRecord(
        "lsi_ray.x", logging.WARNING, "", 1, "%s of batch_20261123_0123456789abcdef", (url,), None
    )
    line = JsonLines().format(record)
    told = json.loads(line)
    assert "\n" not in line
    assert told["batch"] == "batch_20261123_0123456789abcdef"
    assert (told["level"], told["logger"]) == ("warning", "lsi_ray.x")
    assert "topsecret" not in line


def test_what_a_stage_logs_is_in_the_file(tmp_path):
    log_lines(tmp_path / "stream.log")
    logging.getLogger("lsi_ray.a").info("one", extra=fields(batch="b", row=7, reason="https://h/?X-Amz-Signature=top"))
    log_lines(tmp_path / "stream.log")
    logging.getLogger("lsi_ray.b").warning("two")
    one, two = map(json.loads, (tmp_path / "stream.log").read_text().splitlines())
    assert (one["message"], one["batch"], one["row"], one["level"]) == ("one", "b", 7, "info")
    assert "X-Amz-Signature=top" not in one["reason"]
    assert two["logger"] == "lsi_ray.b"


def test_every_failed_row_is_told_by_number_and_code_alone(tmp_path):
    world = World(tmp_path, ["fine", "[[lsi:error]] private words", "[[lsi:dead]]"], shard_rows=4)
    path = tmp_path / "stream.log"
    world.commit = Commit(world.config, world.work.path, world.ledger, path)
    world.run(Generate(world.config, world.ledger, path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (failed,) = [line for line in lines if line["message"] == "row failed"]
    assert (failed["batch"], failed["row"], failed["code"]) == (BATCH, 1, "invalid_request")
    (ended,) = [line for line in lines if line["message"] == "row ended by crashes"]
    assert (ended["batch"], ended["position"], ended["code"]) == (BATCH, 2, "engine_crashed")
    assert sum(line["message"] == "engine restarting" for line in lines) == 3
    assert "private" not in path.read_text()
    assert '"r1"' not in path.read_text()


def test_a_batch_of_nothing_but_failures_does_not_fill_the_disk(tmp_path):
    log_lines(tmp_path / "stream.log")
    rows = RowLog(logging.getLogger("lsi_ray"))
    for row in range(5000):
        rows.failed("b", row, RowError("invalid_request", "no"))
    rows.failed("c", 0, RowError("internal_error", "oh"))
    lines = (tmp_path / "stream.log").read_text().splitlines()
    assert len(lines) == 1000 + 1 + 1
    assert json.loads(lines[-1])["level"] == "warning"
