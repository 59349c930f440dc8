"""A bundle with one bit flipped, in whichever file, is refused where hashes are checked; nothing in it is run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from genrec.decoders.onnx_export import export_bundle
from index.errors import GenrecError, IndexFormatError
from serving.live_bundle import LiveBundle
from tests.genrec.onnx_models import native_bundle
from tests.serving.toy_server import Server, index_of_toys

EXECUTES = frozenset(("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = native_bundle(tmp_path_factory.mktemp("bundles") / "toy", index_of_toys())
    export_bundle(path)
    LiveBundle.load(path)  # what is imported and compiled once is not what is looked for below
    return path


@pytest.fixture(scope="module")
def audit():
    """What the interpreter has been made to unpickle or start since the list was cleared."""
    seen: list[str] = []
    sys.addaudithook(lambda event, _: seen.append(event) if event in EXECUTES else None)
    return seen


def flip(file: Path, place: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1 << bit
    file.write_bytes(content)


def says_the_same(one: bytes, other: bytes) -> bool:
    """Whether a flipped bit changes no value: the seventeenth digit of a number may not."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_every_file_is_guarded(bundle, tmp_path, audit):
    files = [one for one in sorted(bundle.rglob("*")) if one.is_file() and one.name != "manifest.json"]
    parts = {one.relative_to(bundle).parts[1] for one in files}
    assert {"index", "model", "onnx"} <= parts
    audit.clear()
    for file in files:
        size = file.stat().st_size
        for place in sorted({0, size // 2, size - 1}) if size else ():
            broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
            flip(broken / file.relative_to(bundle), place)
            with pytest.raises(IndexFormatError, match=f"{file.name} as it was saved, got other"):
                LiveBundle.load(broken, verify=True)
            shutil.rmtree(broken)
    assert audit == []


def test_any_bit_of_the_manifest_is_guarded(bundle, tmp_path, audit):
    """Whether hashes are asked for or not: the manifest holds a hash of what it says."""
    broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
    manifest = broken / "manifest.json"
    content = manifest.read_bytes()
    audit.clear()
    for place in range(0, len(content), 7):
        manifest.write_bytes(content)
        flip(manifest, place, bit=place % 8)
        if says_the_same(manifest.read_bytes(), content):
            continue
        with pytest.raises(GenrecError):
            LiveBundle.load(broken)
    manifest.write_bytes(content)
    assert LiveBundle.load(broken).recommender.recommend(["i1"], k=3).items
    assert audit == []


def test_a_reload_refuses_it_and_goes_on(bundle, tmp_path):
    broken = Path(shutil.copytree(bundle, tmp_path / "toy"))
    server = Server(LiveBundle.load(broken), lambda verify: LiveBundle.load(broken, verify=verify))
    flip(next(broken.rglob("body.onnx")), 1000)
    with server as client:
        refused = client.post("/v1/admin/reload", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bundle_refused")
        assert client.post("/v1/recommendations", json={"history": ["i1"]}).status_code == 200
