from __future__ import annotations

from lsi_ray.config import VllmEngine
from lsi_ray.engine.vllm.config import engine_args


def test_rows_wait_in_the_engine_by_rank_unless_the_user_says_otherwise() -> None:
    assert engine_args(VllmEngine(args={"model": "some/model"}))["scheduling_policy"] == "priority"
    fcfs = VllmEngine(args={"model": "some/model", "scheduling_policy": "fcfs"})
    assert engine_args(fcfs)["scheduling_policy"] == "fcfs"
