"""A headless Chromium over the toy server: one browser for a session, a fresh page for every test.

Debian's chromium is used (``make chromium`` installs it); Playwright only drives it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.serving.toy_server import Server, listening

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 30_000  # a busy machine may take its time; a page that works needs a tenth of a second


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page, and what it did: every request that left it, and everything it complained of."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: self.requests.append(request))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        # Chromium itself reports every answer of 400 or more; that is what some tests are about.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def open(self, fragment: str = "") -> Page:
        """The page at its start, with what stands behind the ``#``."""
        self.page.goto(f"{self.origin}/{'#' + fragment if fragment else ''}")
        return self.page

    def asked(self, path: str = "/v1/recommendations") -> list[dict[str, Any]]:
        """The bodies that were sent to a route."""
        return [one.post_data_json for one in self.requests if one.url == f"{self.origin}{path}"]

    def asks(self, wanted: Callable[[dict[str, Any]], bool], path: str = "/v1/recommendations") -> bool:
        """Whether the last body sent to a route is as wanted, soon: the page asks a moment after a change."""
        for _ in range(PATIENCE_MS // 50):
            sent = self.asked(path)
            if sent and wanted(sent[-1]):
                return True
            self.page.wait_for_timeout(50)
        return False


@contextmanager
def visit(browser: Browser, server: Server | int, **context: Any) -> Iterator[Visit]:
    """A visitor of its own to a server (or to the port where one listens); nothing may be left to complain of."""
    if isinstance(server, Server):
        with listening(server) as port, visit(browser, port, **context) as visitor:
            yield visitor
        return
    made = browser.new_context(
        **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context}
    )
    try:
        visitor = Visit(made.new_page(), f"http://127.0.0.1:{server}")
        yield visitor
        strangers = [one.url for one in visitor.requests if not one.url.startswith(visitor.origin + "/")]
        assert strangers == [], "the page asked somebody else"
        assert visitor.complaints == []
    finally:
        made.close()
