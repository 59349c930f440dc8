"""How does the playground look? Three pictures of a bundle, taken with the system's chromium.

    genrec demo && genrec export runs/demo/works
    python -m benchmarks.screenshots runs/demo/works

Starts the server, opens the page, and writes recommendations, a walk and a phone in the dark to
``serving/playground/screenshots``. The history is the demo's where the catalog has it, else the three items that the
model recommends to a new user. Needs the extras ``dev`` and ``serve``, and chromium.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from index.errors import GenrecError, require

OUT = Path(__file__).resolve().parent.parent / "serving" / "playground" / "screenshots"
DEMO = ("novel-0123", "film-0182", "film-0181")
FILTER = 'kind == "film" and year < 1995'
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
LARGEST = 300_000  # bytes of one picture

app = typer.Typer(add_completion=False)


@app.command()
def main(
    bundle: Annotated[Path, typer.Argument(help="An exported bundle.")] = Path("runs/demo/works"),
    out: Annotated[Path, typer.Option(help="Directory of the pictures.")] = OUT,
    where: Annotated[
        str | None, typer.Option(help="Filter of the walk; the demo's own where it fits.")
    ] = None,
) -> None:
    """Take the three pictures."""
    require("playwright", extra="dev", purpose="Taking screenshots")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise GenrecError("expected chromium on the path, got none; run: make chromium")
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with serving(bundle) as origin, sync_playwright() as playwright:
        history = history_of(origin)
        is_demo = history == list(DEMO)
        begin = "&".join(f"h={item}" for item in history)
        filtered = where or (FILTER if is_demo else None)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        sizes = {"width": 1400, "height": 900}
        page = browser.new_page(viewport=sizes, color_scheme="light")
        page.goto(f"{origin}/#{begin}")
        page.locator(".result").first.wait_for()
        save(page, out / "recommendations.png")

        if filtered is not None:
            page.get_by_label("Filter expression").fill(filtered)
            page.wait_for_url(re.compile("where="))
        page.get_by_role("tab", name="Walk").click()
        page.locator(".levels [data-id]").first.wait_for()
        page.locator("#answer[aria-busy=false]").wait_for()
        save(page, out / "walk.png")

        # At twice the density, so that it stays sharp in README.
        phone = browser.new_page(
            viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True, is_mobile=True,
            device_scale_factor=2,
        )  # fmt: skip
        phone.goto(f"{origin}/#{begin}")
        phone.locator(".result").first.wait_for()
        save(phone, out / "phone.png")
        browser.close()
    for picture in sorted(out.glob("*.png")):
        size = picture.stat().st_size
        print(f"{picture.name:<22}{size / 1000:6.0f} kB")
        if size > LARGEST:
            raise GenrecError(f"expected at most {LARGEST} bytes, got {size} of {picture}")


def save(page: Any, path: Path) -> None:
    page.wait_for_timeout(400)  # transitions end
    page.screenshot(path=path)


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """``genrec serve`` on a port of the system's choice; where it can be reached."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from genrec.cli.main import main; main()", "serve", bundle, "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            facts = json.loads(line) if line.startswith("{") else {}
            if facts.get("event", facts.get("message")) == "serving":
                yield f"http://{facts['host']}:{facts['port']}"
                return
        raise GenrecError(f"expected a server of {bundle}, got: {''.join(lines)[-500:]}")
    finally:
        process.terminate()
        process.wait(timeout=60)


def history_of(origin: str) -> list[str]:
    try:
        for item in DEMO:
            ask(f"{origin}/v1/items/{item}")
    except urllib.error.HTTPError:
        best = ask(f"{origin}/v1/recommendations", {"history": [], "num_results": 3})
        return [item["item_id"] for item in best["items"]]
    return list(DEMO)


def ask(address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


if __name__ == "__main__":
    started = time.monotonic()
    app(standalone_mode=False)
    print(f"done in {time.monotonic() - started:.0f} s")
