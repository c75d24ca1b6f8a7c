"""A sample batch: one row of every kind that the format knows, with drawn pictures and videos, and three broken rows.

The same bytes every time, for the same versions of Pillow and FFmpeg. Nothing in it comes from anywhere else.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import av
import numpy as np
from PIL import Image, ImageDraw

Shape = Literal["circle", "square", "triangle", "bars"]
_SHAPES: tuple[Shape, ...] = ("circle", "square", "triangle", "bars")
_COLOURS = ("red", "green", "blue", "orange", "purple", "teal", "gold", "black")
_SIZE = (224, 168)  # 48 tokens for models of the Qwen-VL family

_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": ["Paris", "Berlin", "Tokyo"]},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
_SHAPE_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "shape",
        "schema": {
            "type": "object",
            "properties": {
                "shape": {"type": "string", "enum": list(_SHAPES)},
                "filled": {"type": "boolean"},
            },
            "required": ["shape", "filled"],
            "additionalProperties": False,
        },
    },
}


def write_sample(folder: Path, *, model: str = "lsi/tiny-vl", rows: int = 32) -> int:
    """Write jobs.jsonl and files/ into `folder` and return the number of lines in jobs.jsonl.

    There are at least `rows` of them: beyond the first 32, each asks about a picture of its own.
    """
    files = _files()
    lines = [json.dumps(row, ensure_ascii=False) for row in _rows(model)]
    lines.insert(11, '{"custom_id": "broken-json", "method": "POST", "url": "/v1/chat/completions", "body": {"mod')
    for number in range(len(lines), rows):
        name = f"files/more/{number:05}.png"
        files[name] = _png(*_look(number))
        row = _chat(f"more-{number:05}", [_text("What is in this picture?"), _image(name)])
        lines.append(json.dumps(_with_model(row, model)))
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "jobs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def _files() -> dict[str, bytes]:
    return {
        "files/circle.png": _png("circle", "red", "white"),
        "files/square.jpg": _encoded(_picture("square", "blue", "gold"), "JPEG", quality=90),
        "files/triangle.webp": _encoded(_picture("triangle", "green", "white"), "WEBP", quality=90),
        "files/logo.png": _encoded(_transparent("circle", "purple"), "PNG"),
        "files/photo-on-its-side.jpg": _on_its_side(),
        "files/été à Zürich 1.png": _png("bars", "teal", "white"),
        "files/folder/two words.png": _png("bars", "black", "orange"),
        "files/ball.mp4": _video("mp4", "libx264", "circle", "red"),
        "files/box.webm": _video("webm", "libvpx", "square", "blue"),
        "files/corrupt.png": _png("circle", "green", "white")[:300],
    }


def _rows(model: str) -> Iterator[dict[str, Any]]:
    for row in (*_text_rows(), *_steered_rows(), *_picture_rows(), *_video_rows(), *_broken_rows()):
        yield _with_model(row, model)


def _text_rows() -> Iterator[dict[str, Any]]:
    yield _chat("text-capital", "What is the capital of France?")
    yield _chat("text-sum", "What is 17 plus 25? Answer with a number.")
    yield _chat("text-unicode", "Wie heißt „schön“ auf 日本語? 🌸")
    yield _chat("text-system", "Who are you?", before=[_says("system", "You are a pirate. Answer in one sentence.")])
    yield _chat(
        "text-conversation",
        "And what is its population?",
        before=[_says("user", "What is the capital of Japan?"), _says("assistant", "Tokyo.")],
    )
    yield {
        "custom_id": "text-completion",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0},
    }


def _steered_rows() -> Iterator[dict[str, Any]]:
    """Rows that use more of the API than a question."""
    yield _chat("sampled-with-seed", "Tell me a word.", temperature=0.8, top_p=0.9, seed=7)
    yield _chat("stop-word", "Count to ten.", stop=["e"])
    yield _chat("logprobs", "Yes or no?", logprobs=True, top_logprobs=3, max_tokens=4)
    yield _chat("two-answers", "Name a colour.", n=2, temperature=1, seed=11)
    yield _chat("json-schema", "Describe a shape.", response_format=_SHAPE_SCHEMA, max_tokens=48)
    choice = {"type": "function", "function": {"name": "get_weather"}}
    yield _chat("tool-call", "How is the weather in Paris?", tools=[_WEATHER], tool_choice=choice, max_tokens=96)
    call = {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'}
    asked = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": call}]}
    answer = {"role": "tool", "tool_call_id": "c1", "content": "18 degrees, light rain"}
    before = [_says("user", "How is the weather in Paris?"), asked, answer]
    yield _chat("tool-result", "Do I need an umbrella?", before=before, tools=[_WEATHER])


def _picture_rows() -> Iterator[dict[str, Any]]:
    yield _chat("image", [_text("Describe this image."), _image("files/circle.png")])
    yield _chat("image-jpeg", [_image("files/square.jpg"), _text("Which shape is this?")])
    yield _chat("image-webp", [_text("Which colour is the triangle?"), _image("files/triangle.webp")])
    yield _chat("image-transparent", [_text("What is the background?"), _image("files/logo.png")])
    yield _chat("image-turned-by-exif", [_text("Which side is up?"), _image("files/photo-on-its-side.jpg")])
    for number, question in enumerate(("Which colour?", "Which shape?", "How many corners?")):
        yield _chat(f"same-image-{number}", [_image("files/square.jpg"), _text(question)])
    pair = [_image("files/circle.png"), _image("files/square.jpg")]
    yield _chat("two-images", [_text("What is different between these two?"), *pair])
    yield _chat("name-percent-encoded", [_text("What is this?"), _image("files/été à Zürich 1.png", quoted=True)])
    yield _chat("name-as-it-is", [_text("What is this?"), _image("files/folder/two words.png")])
    inline = "data:image/png;base64," + base64.b64encode(_png("triangle", "gold", "black")).decode()
    yield _chat("image-inline", [_text("What is this?"), {"type": "image_url", "image_url": {"url": inline}}])
    system = _says("system", "You are an art critic.")
    yield _chat("image-system", [_image("files/circle.png"), _text("Your verdict?")], before=[system])


def _video_rows() -> Iterator[dict[str, Any]]:
    yield _chat("video", [_text("What moves in this video?"), _video_part("files/ball.mp4")])
    yield _chat("video-webm", [_video_part("files/box.webm"), _text("Which way does it go?")])
    both = [_image("files/circle.png"), _video_part("files/ball.mp4")]
    yield _chat("image-and-video", [*both, _text("Is it the same shape?")])


def _broken_rows() -> Iterator[dict[str, Any]]:
    yield _chat("broken-image", [_text("What is this?"), _image("files/corrupt.png")])
    yield _chat("broken-missing-file", [_text("What is this?"), _image("files/nowhere.png")])


def _chat(
    custom_id: str, content: str | list[dict[str, Any]], *, before: list[dict[str, Any]] | None = None, **options: Any
) -> dict[str, Any]:
    messages = [*(before or ()), {"role": "user", "content": content}]
    body = {"messages": messages, "max_tokens": 12, "temperature": 0} | options
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def _with_model(row: dict[str, Any], model: str) -> dict[str, Any]:
    return row | {"body": {"model": model} | row["body"]}


def _says(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(name: str, *, quoted: bool = False) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "file:" + (quote(name) if quoted else name)}}


def _video_part(name: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": f"file:{name}"}}


def _look(number: int) -> tuple[Shape, str, str]:
    """A shape, its colour and a background; different for any two of the first million numbers."""
    background = f"#{(number * 7919 + 0x404040) % 0x1000000:06x}"
    return _SHAPES[number % 4], _COLOURS[number // 4 % 8], background


def _picture(shape: Shape, colour: str, background: str, at: int = 0) -> Image.Image:
    """`at`: how far the shape has moved, in pixels to the right."""
    image = Image.new("RGB", _SIZE, background)
    _draw(ImageDraw.Draw(image), shape, colour, at)
    return image


def _draw(draw: ImageDraw.ImageDraw, shape: Shape, colour: str, at: int) -> None:
    left, top, right, bottom = 30 + at, 30, 120 + at, 120
    if shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=colour)
    elif shape == "square":
        draw.rectangle((left, top, right, bottom), fill=colour)
    elif shape == "triangle":
        draw.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=colour)
    else:
        for bar in range(left, right, 24):
            draw.rectangle((bar, top, bar + 10, bottom), fill=colour)


def _transparent(shape: Shape, colour: str) -> Image.Image:
    image = Image.new("RGBA", _SIZE, (0, 0, 0, 0))
    _draw(ImageDraw.Draw(image), shape, colour, 0)
    return image


def _on_its_side() -> bytes:
    """As a camera held upright writes it: the sensor's pixels, and a note to turn them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = _picture("triangle", "red", "white").transpose(Image.Transpose.ROTATE_90)
    return _encoded(picture, "JPEG", quality=90, exif=exif)


def _png(shape: Shape, colour: str, background: str) -> bytes:
    return _encoded(_picture(shape, colour, background), "PNG")


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _video(container: str, codec: str, shape: Shape, colour: str) -> bytes:
    """Three seconds, 24 frames: the shape goes from left to right."""
    buffer = io.BytesIO()
    # Without bitexact Matroska files get a random number each.
    with av.open(buffer, "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(codec, rate=8)
        stream.width, stream.height = _SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for at in range(0, 96, 4):
            pixels = np.asarray(_picture(shape, colour, "white", at))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return buffer.getvalue()
