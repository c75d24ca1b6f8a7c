from __future__ import annotations

import json
import logging

from lsi_ray.service.logs import JsonLines


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
