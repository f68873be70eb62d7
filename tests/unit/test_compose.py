"""docker-compose.yml and the Dockerfile agree with the schema, the services and the Makefile."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic_settings import BaseSettings
from ruamel.yaml import YAML

from local.mesh import PARTICIPANTS, POSTGRES_DATABASES
from local.ports import Ports
from payment_svc.sandbox.settings import SandboxSettings

ROOT = Path(__file__).parents[2]
COMPOSE = YAML(typ="safe").load(ROOT / "docker-compose.yml")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name in SERVICES if "build" in SERVICES[name])
PORTS = {name: field.default for name, field in Ports.model_fields.items()}
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def settings_of(name: str) -> type[BaseSettings]:
    if name == "sandbox":
        return SandboxSettings
    module = "coordinator" if name == "coordinator" else f"{name}_svc"
    found: type[BaseSettings] = importlib.import_module(f"{module}.settings").Settings
    return found


def variables(settings: type[BaseSettings], *, required: bool = False) -> set[str]:
    prefix = settings.model_config.get("env_prefix", "")
    return {
        f"{prefix}{name}".upper()
        for name, field in settings.model_fields.items()
        if field.is_required() or not required
    }


def test_the_file_fits_the_compose_specification() -> None:
    schema = json.loads((Path(__file__).parent / "schemas/compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)


def test_every_service_of_the_mesh_is_there() -> None:
    assert set(OURS) == {"coordinator", *PARTICIPANTS, "sandbox"}


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_the_service_reads(name: str) -> None:
    assert set(SERVICES[name]["environment"]) <= variables(settings_of(name))


@pytest.mark.parametrize("name", OURS)
def test_every_variable_that_the_service_requires_is_set(name: str) -> None:
    assert variables(settings_of(name), required=True) <= set(SERVICES[name]["environment"])


@pytest.mark.parametrize("name", OURS)
def test_the_values_are_ones_that_the_service_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, VARIABLE.sub(r"\2", str(value)))
    monkeypatch.setattr("sys.argv", [name])
    settings_of(name)()


@pytest.mark.parametrize("name", OURS)
def test_a_service_listens_on_its_own_port_and_is_asked_there_for_its_health(name: str) -> None:
    port = PORTS[name]
    service = SERVICES[name]
    assert service["environment"]["SANDBOX_PORT" if name == "sandbox" else "GRPC_PORT"] == port
    assert f"127.0.0.1:{port}" in service["healthcheck"]["test"][-1]
    assert any(published.endswith(f":-{port}}}:{port}") for published in service["ports"])


def test_every_port_is_published_on_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:${") for port in published)


def test_the_coordinator_is_told_every_participant() -> None:
    told = SERVICES["coordinator"]["environment"]["PARTICIPANTS"].split(",")
    assert told == [f"{name}:{PORTS[name]}" for name in PARTICIPANTS]


def test_every_database_that_a_service_uses_is_created() -> None:
    created = re.findall(
        r"create database (\w+);", (ROOT / "ops/postgres/databases.sql").read_text()
    )
    used = {
        name: service["environment"]["POSTGRES_DSN"].rpartition("/")[2]
        for name, service in SERVICES.items()
        if "POSTGRES_DSN" in service.get("environment", {})
    }
    assert used == POSTGRES_DATABASES
    assert set(created) == set(used.values())


def test_who_waits_for_health_waits_for_something_that_has_a_health_check() -> None:
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]


def test_files_that_are_mounted_exist() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_the_example_environment_lists_every_variable_with_its_default() -> None:
    used = set(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()
    listed = {tuple(line.split("=", 1)) for line in lines if line and not line.startswith("#")}
    assert listed == used


def test_the_image_takes_the_steps_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    steps = re.findall(r"^RUN (.+)$", DOCKERFILE, re.MULTILINE)
    assert "make stubs PY=python" in steps
    assert re.search(r"^stubs:$", makefile, re.MULTILINE)
    for option in ("--disable-pip-version-check", "--require-hashes", "-r requirements"):
        assert any(step.startswith("pip install") and option in step for step in steps)
        assert any("/pip install" in line and option in line for line in makefile.splitlines())


def test_the_image_gets_every_package_it_runs_and_the_build_may_see_it() -> None:
    copied = set(re.findall(r"^COPY (\w+) \w+$", DOCKERFILE, re.MULTILINE))
    seen = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    modules = {SERVICES[name]["command"][2].split(".")[0] for name in OURS}
    assert modules | {"mesh", "protos"} == copied
    assert copied <= seen


def test_the_image_runs_as_a_user_without_rights() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["mesh"]
