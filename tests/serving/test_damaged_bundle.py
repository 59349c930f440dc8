"""A bundle with one bit flipped, in whichever file, is refused where hashes are checked; nothing in it is run."""

from __future__ import annotations

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


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


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


def test_a_damaged_manifest_is_refused_or_changes_no_item(bundle, tmp_path, audit):
    """The manifest has the hashes and is not hashed itself: a flip in a date is harmless, others are refused."""
    size = (bundle / "manifest.json").stat().st_size
    refused = 0
    audit.clear()
    for place in range(0, size, max(1, size // 150)):
        broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
        flip(broken / "manifest.json", place)
        try:
            live = LiveBundle.load(broken, verify=True)
        except GenrecError:
            refused += 1
        else:
            assert live.recommender.recommend(["i1"], k=3).items
        shutil.rmtree(broken)
    assert refused > 75
    assert audit == []


def test_a_reload_refuses_it_and_goes_on(bundle, tmp_path):
    broken = Path(shutil.copytree(bundle, tmp_path / "toy"))
    server = Server(LiveBundle.load(broken), lambda verify: LiveBundle.load(broken, verify=verify))
    flip(next(broken.rglob("body.onnx")), 1000)
    with server as client:
        refused = client.post("/v1/admin/reload", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "bundle_refused")
        assert client.post("/v1/recommendations", json={"history": ["i1"]}).status_code == 200
