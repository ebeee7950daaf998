"""docker-compose.yml, as far as it can be held to the code without a Docker engine."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.common import env
from tests.support.compose import make_secrets

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
    return make_secrets(tmp_path_factory.mktemp("compose"))


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
        if value.startswith("/run/secrets/"):
            assert value.removeprefix("/run/secrets/") in COMPOSE["services"][part]["secrets"]
        filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        environ[name] = filled.replace("/run/secrets", str(secrets))
    env.load(settings, environ)


@pytest.mark.parametrize("service", ["enqueue", "assets", "packager", "worker"])
def test_services_show_each_other_certificates(service: str) -> None:
    part = COMPOSE["services"][service]
    shown = {
        name: part["environment"][f"TLS_{name}"] for name in ("CA", "CLIENT_CA", "CERT", "KEY")
    }
    ca, certificate, key = (
        f"/run/secrets/{name}" for name in ("tls_ca", f"{service}_cert", f"{service}_key")
    )
    assert shown == {"CA": ca, "CLIENT_CA": ca, "CERT": certificate, "KEY": key}
    assert part["healthcheck"]["test"][-3:] == [ca, certificate, key]
    others = [name for name in COMPOSE["services"] if name != service]
    assert not [o for o in others if f"{service}_key" in COMPOSE["services"][o].get("secrets", [])]


def test_containers_of_ours_can_do_little(secrets: Path) -> None:
    for name, _ in service_modules():
        part = COMPOSE["services"][name]
        assert part["read_only"] is True
        assert part["cap_drop"] == ["ALL"]
        assert part["security_opt"] == ["no-new-privileges:true"]
    user = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user == ["contentshop"]
    # What no container reads stays with its owner.
    kept = {path.name for path in secrets.iterdir() if path.stat().st_mode & 0o077 == 0}
    assert kept == {"tls_ca_key", "gateway_key"}
    assert not kept & set(COMPOSE["secrets"])


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
