"""Fixtures of the integration tests."""

from s3_server import s3_environment, s3_server

__all__ = ["s3_environment", "s3_server"]
