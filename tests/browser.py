"""Debian's Chromium, driven by Playwright: pages that fail a test on any error of a script, policy or request."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

BUILD = Path(__file__).parents[1] / "build" / "page"
DESKTOP = (1440, 900)
PHONE = (390, 844)
FLAGS = ["--disable-gpu", "--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; no page of it reaches anything but this machine."""
    path = shutil.which("chromium")
    assert path
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, size: tuple[int, int] = DESKTOP, scheme: Any = "light", *, faults: bool = True
) -> Iterator[Page]:
    """A page of its own profile; `faults`: what its console says of errors fails the test."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    try:
        page.goto(url)
        yield page
        assert all(each.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:")) for each in asked), asked
        assert not (faults and wrong), wrong
    finally:
        context.close()


def texts(page: Page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()
