"""Fixtures of the integration tests."""

from ray_head import ray_head
from runs import lsi
from s3_server import s3_environment, s3_server

__all__ = ["lsi", "ray_head", "s3_environment", "s3_server"]
