"""Fixtures of the integration tests."""

from guarded_service import gossip, guarded
from ray_head import ray_head
from runs import lsi
from s3_server import s3_environment, s3_server

__all__ = ["gossip", "guarded", "lsi", "ray_head", "s3_environment", "s3_server"]
