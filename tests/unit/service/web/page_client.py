"""A browser for tests of the page, and what is read out of pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx
from fastapi.testclient import TestClient

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: tuple[str, ...] = ()


class Page(HTMLParser):
    """Every element with its attributes and its own text; complains of tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert not self._open, [one.tag for one in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), inside=tuple(one.tag for one in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs), inside=tuple(one.tag for one in self._open)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        return [one for one in self.elements if one.tag == tag]

    def text(self) -> str:
        return " ".join(self.all("main")[0].text.split())


@dataclass
class Browser:
    http: TestClient
    seen: list[httpx.Response] = field(default_factory=list)

    def get(self, path: str, **how: Any) -> httpx.Response:
        response: httpx.Response = self.http.get(path, **how)
        self.seen.append(response)
        return response

    def page(self, path: str) -> Page:
        response = self.get(path)
        assert response.status_code == 200, (response.status_code, response.text)
        return Page(response.text)

    def csrf(self) -> str:
        [first, *_] = [one for one in self.page("/").all("input") if one.attributes.get("name") == "csrf"]
        assert first.attributes["value"]
        return first.attributes["value"]

    def post(self, path: str, fields: dict[str, str] | None = None, **how: Any) -> httpx.Response:
        """A form with its token."""
        response: httpx.Response = self.http.post(path, data={"csrf": self.csrf(), **(fields or {})}, **how)
        self.seen.append(response)
        return response
