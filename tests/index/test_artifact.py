from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from index.artifact import MANIFEST, load_array, open_artifact, replace_file, save_array, writing_artifact
from index.errors import IndexFormatError


def write(path: Path, value: int = 1, kind: str = "index") -> None:
    with writing_artifact(path, kind, {"value": value}) as files:
        (files / "part").mkdir()
        save_array(files / "part", "numbers", np.full(100, value))


def test_what_is_saved_is_loaded(tmp_path):
    write(tmp_path / "a", 7)
    artifact = open_artifact(tmp_path / "a", kind="index", verify=True)
    assert artifact.manifest["value"] == 7
    numbers = load_array(artifact.files / "part", "numbers")
    assert isinstance(numbers.base, np.memmap)  # read from the file when it is read
    assert numbers.tolist() == [7] * 100


def test_a_second_save_replaces_the_first_and_leaves_nothing_behind(tmp_path):
    write(tmp_path / "a", 1)
    write(tmp_path / "a", 2)
    assert open_artifact(tmp_path / "a").manifest["value"] == 2
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_a_failing_save_leaves_the_old_artifact(tmp_path):
    write(tmp_path / "a", 1)
    with (
        pytest.raises(RuntimeError, match="half way"),
        writing_artifact(tmp_path / "a", "index", {}) as files,
    ):
        save_array(files, "numbers", np.zeros(3))
        raise RuntimeError("half way")
    assert open_artifact(tmp_path / "a", verify=True).manifest["value"] == 1
    with pytest.raises(RuntimeError), writing_artifact(tmp_path / "new", "index", {}):
        raise RuntimeError
    assert not (tmp_path / "new").exists()


def test_killing_a_save_at_any_moment_leaves_the_old_artifact_or_the_new_one(tmp_path):
    script = (
        "import sys, pathlib\n"
        "from tests.index.test_artifact import write\n"
        "value = 1\n"
        "while True:\n"
        "    value += 1\n"
        "    write(pathlib.Path(sys.argv[1]), value)\n"
    )
    write(tmp_path / "a", 1)
    seen = set()
    for delay in (0.0, 0.003, 0.007, 0.013):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "a")])
        while open_artifact(tmp_path / "a").manifest["value"] in seen | {1} and process.poll() is None:
            time.sleep(0.01)  # the first save of this process has not landed yet
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        artifact = open_artifact(tmp_path / "a", verify=True)
        value = artifact.manifest["value"]
        assert load_array(artifact.files / "part", "numbers").tolist() == [value] * 100
        seen.add(value)
        write(tmp_path / "a", 1)
        assert len(list((tmp_path / "a").iterdir())) == 2  # the debris of the killed save is gone


def test_a_flipped_bit_in_any_file_is_refused(tmp_path):
    write(tmp_path / "a")
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        intact = path.read_bytes()
        for position in range(0, len(intact), max(1, len(intact) // 40)):
            damaged = bytearray(intact)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(IndexFormatError):
                open_artifact(tmp_path / "a", verify=True)
        path.write_bytes(intact)
    open_artifact(tmp_path / "a", verify=True)


def test_each_kind_of_damage_has_its_message(tmp_path):
    with pytest.raises(IndexFormatError, match=f"has no {MANIFEST}; make one with"):
        open_artifact(tmp_path)
    write(tmp_path / "a")
    with pytest.raises(
        IndexFormatError, match="kind 'bundle', got kind 'index'; make one with: genrec train"
    ):
        open_artifact(tmp_path / "a", kind="bundle")
    artifact = open_artifact(tmp_path / "a")
    numbers = artifact.files / "part" / "numbers.npy"
    content = numbers.read_bytes()
    numbers.write_bytes(content[:-1])
    with pytest.raises(IndexFormatError, match=f"to have {len(content)} bytes, got {len(content) - 1}"):
        open_artifact(tmp_path / "a")
    numbers.unlink()
    with pytest.raises(IndexFormatError, match=r"numbers.npy, got none"):
        open_artifact(tmp_path / "a")


def test_a_newer_schema_is_refused_with_advice(tmp_path):
    write(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / MANIFEST).read_text())
    (tmp_path / "a" / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(IndexFormatError, match="got 99; update genrec"):
        open_artifact(tmp_path / "a")


def test_a_directory_that_is_not_ours_is_never_touched(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(IndexFormatError, match="choose another --out"):
        write(tmp_path / "letters")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]


def test_a_pickled_array_is_refused(tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(IndexFormatError, match="expected a numpy array"):
        load_array(tmp_path, "evil")


def test_replace_file_leaves_no_debris_when_it_fails(tmp_path):
    with pytest.raises(IsADirectoryError):
        (tmp_path / "taken").mkdir()
        replace_file(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
