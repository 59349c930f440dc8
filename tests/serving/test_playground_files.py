"""The page's files as a browser gets them: types, caching, policy, and that they are in the wheel."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from serving.playground.assets import CONTENT_TYPES, HEADERS, PAGE, read_assets
from tests.serving.toy_server import Server

ROOT = Path(__file__).parents[2]
FILES = sorted(PAGE.iterdir())
PLAIN = {"accept-encoding": "identity"}


@pytest.fixture(scope="module")
def client():
    with Server(api_keys=("the-key-of-a-client",)) as client:
        yield client


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_served_as_what_it_is_and_asks_for_no_key(client, file):
    answer = client.get(f"/playground/{file.name}", headers=PLAIN)
    assert (answer.status_code, answer.content) == (200, file.read_bytes())
    assert answer.headers["content-type"] == CONTENT_TYPES[file.suffix]
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert len(file.read_text("utf-8").splitlines()) < 400


def test_the_start_is_the_page(client):
    answer = client.get("/", headers=PLAIN)
    assert answer.content == (PAGE / "index.html").read_bytes()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert client.head("/", headers=PLAIN).content == b""
    assert client.head("/").headers["etag"]


def test_a_file_that_is_known_is_not_sent_again(client):
    for encoding in ("identity", "gzip, br"):
        first = client.get("/playground/app.js", headers={"accept-encoding": encoding})
        for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
            again = client.get(
                "/playground/app.js", headers={"accept-encoding": encoding, "if-none-match": known}
            )
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
            assert again.headers["cache-control"] == "no-cache"
        other = client.get(
            "/playground/app.js", headers={"accept-encoding": encoding, "if-none-match": '"x"'}
        )
        assert other.status_code == 200
    tags = {
        client.get("/playground/app.js", headers={"accept-encoding": one}).headers["etag"]
        for one in ("identity", "gzip")
    }
    assert len(tags) == 2  # two encodings are two representations


def test_files_come_packed_where_that_is_understood(client):
    answer = client.get("/playground/app.js", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < (PAGE / "app.js").stat().st_size
    assert answer.content == (PAGE / "app.js").read_bytes()  # the client unpacks it
    asset = read_assets()["app.js"]
    assert gzip.decompress(asset.packed) == asset.body


@pytest.mark.parametrize("name", ["nothing.js", "../assets.py", "%2e%2e/assets.py", "__init__.py", ""])
def test_nothing_else_can_be_read(client, name):
    assert client.get(f"/playground/{name}").status_code == 404


def test_other_methods_are_refused(client):
    for path in ("/", "/playground/app.js"):
        answer = client.post(path)
        assert answer.status_code == 405
        assert answer.json()["error"]["code"] == "method_not_allowed"


def test_a_server_may_have_no_page():
    with Server(playground=False) as client:
        for path in ("/", "/playground/app.js"):
            assert client.get(path).json()["error"]["code"] == "route_not_found"


def test_the_page_is_not_part_of_the_described_api(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v1/walk" in paths
    assert not any(path == "/" or "playground" in path for path in paths)


def test_nothing_on_the_page_breaks_its_own_policy():
    """No script or style in the HTML, nothing of another origin, no HTML made of strings."""
    page = (PAGE / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son\w+=", page)
    named = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert named
    for name in named:
        assert name == "/openapi.json" or (PAGE / name.removeprefix("/playground/")).is_file(), name
    for file in FILES:
        text = file.read_text("utf-8")
        for address in re.findall(r"https?://[^\s\"'`)]+", text):
            assert address == "http://www.w3.org/2000/svg", file
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|new Function|\beval\(", text
        )
        assert not re.search(r"@import|url\((?!#)", text)
        for name in re.findall(r'from "\./([^"]+)"', text):
            assert (PAGE / name).is_file(), name
    # All modules are fetched at once, not one after the other as they name each other.
    modules = {file.name for file in FILES if file.suffix == ".js"} - {"theme.js", "app.js"}
    assert set(re.findall(r'rel="modulepreload" href="/playground/([^"]+)"', page)) == modules


def test_the_wheel_holds_the_page_and_no_pictures(tmp_path):
    pytest.importorskip("hatchling")
    build = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = wheel.namelist()
    assert {f"serving/playground/page/{file.name}" for file in FILES} <= set(names)
    assert not [name for name in names if name.endswith(".png")]
