"""Where an input lies or an output goes: a local path, an object in S3, or an http(s) URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from lsi_ray.errors import ConfigError
from lsi_ray.storage.secret_url import SecretUrl, redact_url


@dataclass(frozen=True, slots=True)
class Location:
    """`path` is set for a local file, `url` for the others; `str` is safe to show and to log."""

    kind: Literal["local", "s3", "http"]
    path: Path | None = None
    url: SecretUrl | None = None

    @classmethod
    def parse(cls, text: str) -> Location:
        """Raises ConfigError for a scheme that is none of ours or an s3:// URL without a key."""
        scheme, mark, rest = text.partition("://")
        if not mark:
            return cls.local(text)
        match scheme.lower():
            case "http" | "https":
                return cls("http", url=SecretUrl(text))
            case "s3":
                return cls._s3(text, rest)
            case "file":
                return cls.local(unquote(urlsplit(text).path))
        raise ConfigError(f"{redact_url(text)}: give a path, s3://bucket/key, or an http(s) URL")

    @classmethod
    def local(cls, path: str | Path) -> Location:
        if not str(path):
            raise ConfigError("an empty path")
        return cls("local", path=Path(path))

    @classmethod
    def _s3(cls, text: str, rest: str) -> Location:
        bucket, _, key = rest.partition("/")
        if not bucket or not key or key.endswith("/"):
            raise ConfigError(f"{redact_url(text)}: write s3://bucket/key")
        return cls("s3", url=SecretUrl(text))

    @property
    def name(self) -> str:
        """The last part of its path: "in.tar.gz"."""
        if self.path is not None:
            return self.path.name
        assert self.url is not None
        return self.url.name

    @property
    def expires_at(self) -> float | None:
        """When its signature ends, in seconds since the epoch; None without a signature that says."""
        return self.url.expires_at if self.url else None

    def __str__(self) -> str:
        return str(self.path or self.url)
