"""Builders of archives for integration tests, and the reading of what came out; by tarfile, another hand than ours."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "lsi/simulated"
Json = dict[str, Any]


def chat(custom_id: str, text: str, *files: str, max_tokens: int = 16, model: str = MODEL) -> Json:
    """A request with the named members of `files/` as images."""
    content: Any = text
    if files:
        parts = [{"type": "image_url", "image_url": {"url": f"file:files/{name}"}} for name in files]
        content = [{"type": "text", "text": text}, *parts]
    body = {"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": content}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def numbered(count: int, max_tokens: int = 16) -> list[Json]:
    return [chat(f"r{number}", f"question {number}", max_tokens=max_tokens) for number in range(count)]


def jobs(rows: Iterable[Json | str]) -> bytes:
    """Rows as jobs.jsonl; a str is a line as it is."""
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()


def write_archive(path: Path, rows: Iterable[Json | str], files: Mapping[str, bytes] | None = None) -> Path:
    """A .tar, or a .tar.gz by the name of `path`."""
    members = {"jobs.jsonl": jobs(rows)} | {f"files/{name}": data for name, data in (files or {}).items()}
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def expected_text(row: Json, files: Mapping[str, bytes] | None = None) -> str:
    """What the simulated engine answers: a function of the row and of the bytes of its media alone."""
    body, media = copy.deepcopy(row["body"]), []
    for part in _image_parts(body):
        name = part["image_url"]["url"].removeprefix("file:files/")
        part["image_url"]["url"] = f"lsi:{len(media)}"
        media.append((files or {})[name])
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    for data in media:
        digest.update(hashlib.sha256(data).digest())
    return f"{row['custom_id']} {digest.hexdigest()[:16]}"


def _image_parts(body: Json) -> list[Json]:
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return [part for content in contents for part in content if part["type"] == "image_url"]


@dataclass(frozen=True)
class Output:
    lines: list[Json]
    errors: list[Json]
    manifest: Json

    @property
    def texts(self) -> list[str]:
        return [line["response"]["body"]["choices"][0]["message"]["content"] for line in self.lines]

    @property
    def codes(self) -> dict[str | None, str]:
        """custom_id to code of the error lines."""
        return {line["custom_id"]: _code(line) for line in self.errors}

    @property
    def run_again(self) -> int:
        return int(self.manifest["rows"]["run_again"])


def read_output(path: Path) -> Output:
    with tarfile.open(path) as tar:
        parts = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    lines, errors = ([json.loads(line) for line in parts.get(name, b"").splitlines()] for name in _LINES)
    return Output(lines, errors, json.loads(parts["manifest.json"]))


_LINES = ("output.jsonl", "error.jsonl")


def _code(line: Json) -> str:
    error = line["error"] or line["response"]["body"]["error"]
    return str(error["code"])


def check_complete(path: Path, rows: list[Json], failing: Iterable[str] = ()) -> Output:
    """Every row once, in order, answered by a pure function of itself; those in `failing` as error lines."""
    output, failing = read_output(path), set(failing)
    good = [row for row in rows if row["custom_id"] not in failing]
    assert [line["custom_id"] for line in output.lines] == [row["custom_id"] for row in good]
    assert output.texts == [expected_text(row) for row in good]
    assert [line["custom_id"] for line in output.errors] == [r["custom_id"] for r in rows if r["custom_id"] in failing]
    return output
