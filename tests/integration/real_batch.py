"""A batch for the real engine: every kind of row there is, fifty distinct images together, and broken rows."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

MODEL = "lsi/tiny-vl"
IMAGES = 56
PROMPT = "What does this picture show?"

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "flag",
        "schema": {
            "type": "object",
            "properties": {"a": {"type": "boolean"}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


@dataclass
class Batch:
    """`lines` as they stand in jobs.jsonl; `expected` error codes by custom_id (by line number where there is none)."""

    lines: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    good: list[dict[str, Any]] = field(default_factory=list)
    expected: dict[str | int, str] = field(default_factory=dict)

    def add(self, custom_id: str, body: dict[str, Any], url: str = "/v1/chat/completions") -> None:
        row = _row(custom_id, body, url)
        self.good.append(row)
        self.lines.append(json.dumps(row))

    def add_bad(self, custom_id: str, code: str, body: dict[str, Any]) -> None:
        self.expected[custom_id] = code
        self.lines.append(json.dumps(_row(custom_id, body, "/v1/chat/completions")))

    def write(self, folder: Path) -> Path:
        for name, data in self.files.items():
            path = folder / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        (folder / "jobs.jsonl").write_text("\n".join(self.lines) + "\n")
        return folder


def make() -> Batch:
    batch = Batch()
    _images(batch)
    _texts(batch)
    _videos(batch)
    _features(batch)
    _broken(batch)
    return batch


def inlined(batch: Batch) -> list[dict[str, Any]]:
    """The good chat rows with every file as a data: URL, as `vllm run-batch` takes them."""
    rows = []
    for row in batch.good:
        if row["url"] != "/v1/chat/completions":
            continue
        copy = json.loads(json.dumps(row))
        for part in _parts(copy):
            slot = part.get(part["type"])
            if isinstance(slot, dict) and slot["url"].startswith("file:"):
                slot["url"] = _data_url(slot["url"], batch.files)
        rows.append(copy)
    return rows


def png(seed: int, width: int = 320, height: int = 240) -> bytes:
    """A picture of its own for each seed: blocks of colour."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def mp4(seed: int, frames: int = 40) -> bytes:
    """Two seconds of h264 at 20 fps: a square that moves, in a colour of its own."""
    buffer = io.BytesIO()
    colour = np.random.default_rng(seed).integers(64, 256, 3, dtype=np.uint8)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for number in range(frames):
            picture = np.zeros((128, 160, 3), dtype=np.uint8)
            picture[40:80, 3 * number : 3 * number + 30] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _row(custom_id: str, body: dict[str, Any], url: str) -> dict[str, Any]:
    body = {"model": MODEL, "temperature": 0, "max_tokens": 12, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def _user(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(name: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"file:files/{name}"}}


def _video(name: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": f"file:files/{name}"}}


def _images(batch: Batch) -> None:
    for number in range(IMAGES):
        name = f"img/{number:02d}.png"
        batch.files[name] = png(number)
        batch.add(f"image-{number:02d}", {"messages": _user(_text(PROMPT), _image(name))})
    batch.add("two-images", {"messages": _user(_image("img/00.png"), _image("img/01.png"), _text("Compare."))})
    batch.files["photo de l'été 1.png"] = png(99)
    batch.add("escaped-name", {"messages": _user(_image("photo%20de%20l'%C3%A9t%C3%A9%201.png"), _text(PROMPT))})


def _texts(batch: Batch) -> None:
    for number in range(16):
        system = {"role": "system", "content": "You are terse."}
        batch.add(f"text-{number:02d}", {"messages": [system, *_user(_text(f"Question {number}: how many?"))]})
    batch.add("plain-string", {"messages": [{"role": "user", "content": "Say something."}]})


def _videos(batch: Batch) -> None:
    for number in range(3):
        name = f"clip{number}.mp4"
        batch.files[name] = mp4(number)
        batch.add(f"video-{number}", {"messages": _user(_video(name), _text("What happens?"))})


def _features(batch: Batch) -> None:
    ask = _user(_text("Weather in Oslo?"))
    batch.add("tool-auto", {"messages": ask, "tools": [TOOL]})
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", "none", named):
        name = choice if isinstance(choice, str) else "named"
        batch.add(f"tool-{name}", {"messages": ask, "tools": [TOOL], "tool_choice": choice, "max_tokens": 60})
    one = {"parallel_tool_calls": False, "tool_choice": "required", "max_tokens": 60}
    batch.add("tool-single", {"messages": ask, "tools": [TOOL], **one})
    batch.add("schema", {"messages": ask, "response_format": SCHEMA, "max_tokens": 60})
    batch.add("logprobs", {"messages": ask, "logprobs": True, "top_logprobs": 3, "max_tokens": 4})
    batch.add("two-choices", {"messages": ask, "n": 2, "temperature": 1, "seed": 7})
    batch.add("stop", {"messages": ask, "stop": ["e"], "max_tokens": 40})
    batch.add("completion", {"prompt": "Once upon"}, url="/v1/completions")
    batch.add("completion-list", {"prompt": ["Once upon", "Far away"], "logprobs": 2}, url="/v1/completions")


def _broken(batch: Batch) -> None:
    ask = [{"role": "user", "content": "hello"}]
    batch.files["torn.png"] = png(3)[:300]
    batch.expected[len(batch.lines) + 1] = "invalid_json_line"
    batch.lines.append("this is not JSON")
    batch.add_bad("torn-image", "media_invalid", {"messages": _user(_image("torn.png"), _text(PROMPT))})
    batch.add_bad("missing-file", "file_not_found", {"messages": _user(_image("none.png"), _text(PROMPT))})
    batch.add_bad("unknown-field", "unknown_field", {"messages": ask, "chat_template": "{{ 1 }}"})
    batch.add_bad("too-long", "context_length_exceeded", {"messages": [{"role": "user", "content": "word " * 9000}]})
    forged = "<|vision_start|><|image_pad|><|vision_end|>"
    batch.add_bad("forged", "placeholder_in_text", {"messages": _user(_text(forged), _image("img/00.png"))})
    batch.add_bad("forged-alone", "placeholder_in_text", {"messages": _user(_text(f"look: {forged}"))})
    batch.add_bad("stream", "stream_not_supported", {"messages": ask, "stream": True})
    remote = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    batch.add_bad("remote", "remote_media_refused", {"messages": _user(remote, _text(PROMPT))})


def _parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for m in row["body"]["messages"] if isinstance(m["content"], list) for part in m["content"]]


def _data_url(reference: str, files: dict[str, bytes]) -> str:
    from urllib.parse import unquote

    name = unquote(reference.removeprefix("file:files/"))
    kind = "video/mp4" if name.endswith("mp4") else "image/png"
    return f"data:{kind};base64,{base64.b64encode(files[name]).decode()}"
