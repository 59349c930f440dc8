"""What can be checked of the deploy files without a Docker engine."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import yaml

from serving.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "serving" / "deploy"
DOCKERFILE = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_the_image_runs_as_a_user_without_rights():
    (user,) = instructions("USER")
    assert user != "root"
    assert any(f"--no-create-home {user}" in line for line in instructions("RUN"))
    after = DOCKERFILE[DOCKERFILE.index("\nUSER ") :]
    assert not re.search(r"^(RUN|COPY|ADD) ", after, re.MULTILINE)  # nothing it could change is written later


def test_the_image_has_no_torch():
    (extras,) = re.findall(r"pip install .*\.\[([a-z,]+)\]", DOCKERFILE)
    packages = [*PROJECT["dependencies"]]
    for extra in extras.split(","):
        packages += PROJECT["optional-dependencies"][extra]
    assert not [one for one in packages if re.match("torch|transformers|onnx[>=]", one)]
    assert any(one.startswith("onnxruntime") for one in packages)


def test_what_is_copied_and_started_exists():
    for sources in instructions("COPY"):
        if not sources.startswith("--from"):
            assert all((ROOT / one).exists() for one in sources.split()[:-1])
    (entry,) = instructions("ENTRYPOINT")
    command, verb = json.loads(entry)
    assert command in PROJECT["scripts"]
    assert verb in PROJECT["entry-points"]["genrec.commands"]


def test_its_settings_are_settings_and_its_health_check_asks_a_route():
    (values,) = instructions("ENV")
    environment = dict(one.split("=", 1) for one in values.split())
    settings = Settings.read(environment)
    assert not settings.is_loopback  # a container's loopback is reached by nobody
    assert instructions("EXPOSE") == [str(settings.port)]
    (check,) = re.findall(r"http://127.0.0.1:(\d+)(/[\w/]+)", DOCKERFILE)
    assert check == (str(settings.port), "/v2/health/ready")


def test_compose_parses_and_is_careful():
    (service,) = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert Settings.read(service["environment"]).workers == 2
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
