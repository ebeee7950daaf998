"""docker-compose.yml, as far as it can be held to the code without a Docker engine."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.common import env

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# Made by make-secrets.sh and mounted as files, not as compose secrets.
MOUNTED_SECRETS = {"rabbitmq.conf", "s3.json"}


def service_modules() -> list[tuple[str, str]]:
    return [
        (name, part["command"][0].removeprefix("services."))
        for name, part in COMPOSE["services"].items()
        if isinstance(part.get("command"), list)
    ]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What make-secrets.sh makes, in a copy of the tree."""
    root = tmp_path_factory.mktemp("compose")
    script = root / "deploy" / "compose" / "make-secrets.sh"
    script.parent.mkdir(parents=True)
    script.write_bytes((ROOT / "deploy" / "compose" / "make-secrets.sh").read_bytes())
    for _ in range(2):  # the second run changes nothing
        subprocess.run(["bash", script], check=True, capture_output=True)
    return root / "secrets"


def test_every_secret_is_declared_used_and_made(secrets: Path) -> None:
    declared = set(COMPOSE["secrets"])
    used = {name for part in COMPOSE["services"].values() for name in part.get("secrets", [])}
    assert declared == used
    assert {path.name for path in secrets.iterdir()} >= declared | MOUNTED_SECRETS | {
        "rabbitmq_password"
    }


@pytest.mark.parametrize(("part", "service"), service_modules())
def test_every_variable_is_a_setting_and_the_settings_load(
    part: str, service: str, secrets: Path
) -> None:
    settings = importlib.import_module(f"services.{service}.settings").Settings
    known = {field.metadata["env"] for field in dataclasses.fields(settings)}
    # Anchors give every service the common variables; each reads those it has.
    common = {"ENQUEUE_TARGET", "ASSETS_TARGET", "BROKER_URL"}
    environ = {}
    for name, value in COMPOSE["services"][part]["environment"].items():
        assert name.removesuffix("_FILE") in known | common, name
        if name.endswith("_FILE"):
            environ[name] = value.replace("/run/secrets", str(secrets))
        else:
            environ[name] = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    env.load(settings, environ)


def test_dependencies_exist_and_have_health_checks() -> None:
    services = COMPOSE["services"]
    for part in services.values():
        for needed, how in part.get("depends_on", {}).items():
            assert needed in services
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed]


def test_no_secret_is_written_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert "password:" not in text.lower()
    assert "://contentshop:" not in text
