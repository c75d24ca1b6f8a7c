"""A real Chromium, driven by Playwright, with an eye on what a page must not do: errors, and requests to others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find_chromium() -> str | None:
    """LSI_CHROMIUM, or one on the PATH. Playwright's own is not looked for: fetching it needs more than pip."""
    return os.environ.get("LSI_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here: install Debian's package `chromium`, or name one in LSI_CHROMIUM")
    arguments = ["--disable-background-networking", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """Somebody at a browser of their own. `wrong`: what pages did that they must not; `allowed` are parts of it."""

    def __init__(self, browser: Browser, base: str, **how: Any) -> None:
        self.base = base
        self.wrong: list[str] = []
        self.context: BrowserContext = browser.new_context(accept_downloads=True, **how)
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda said: self._note(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("request", lambda one: None if one.url.startswith(base) else self._note(f"asks {one.url}"))

    def sign_in(self, token: str) -> None:
        self.page.goto(self.base)
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def look(self, name: str) -> None:
        """At what is shown, by day and by night: a picture of each, and nothing that axe finds serious or worse."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for scheme in _SCHEMES:
            self.page.emulate_media(color_scheme=scheme)
            self.page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}.png", full_page=True)
            found = Axe().run(self.page).response["violations"]
            assert [_told(one) for one in found if one["impact"] in ("serious", "critical")] == []

    def overflows(self) -> bool:
        """Whether the whole page has to be moved sideways to be read."""
        wide: bool = self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        return wide

    def _note(self, what: str) -> None:
        # Chromium calls an answer that is no success an error of the page; a refused form is one.
        if not what.startswith("Failed to load resource: the server responded with a status of 4"):
            self.wrong.append(what)


def _told(violation: dict[str, Any]) -> str:
    return f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes']]}"
