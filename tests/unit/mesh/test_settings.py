from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from mesh.settings import PostgresSettings, ServiceSettings, read_settings, run


class Settings(PostgresSettings):
    grpc_port: int = Field(default=50052, ge=0, le=65535, description="port of the gRPC server")
    instance_id: str = Field(default_factory=lambda: "host-1", description="name of this instance")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://u:s3cret@localhost/orders")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_PORT", "0")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")

    settings = read_settings(Settings, [], service="order")

    assert settings.grpc_port == 0
    assert settings.log_level == "debug"
    assert settings.postgres_dsn.endswith("/orders")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_PORT", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")

    settings = read_settings(Settings, [], service="order")

    assert settings.grpc_port == 50052
    assert settings.otel_exporter_otlp_endpoint is None


def test_settings_are_frozen() -> None:
    settings = ServiceSettings()

    with pytest.raises(ValidationError, match="frozen"):
        settings.grpc_port = 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GRPC_PORT", "http"),
        ("GRPC_PORT", "70000"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("POSTGRES_DSN", "mysql://root:s3cret@localhost/orders"),
        ("SHUTDOWN_GRACE_SECONDS", "-1"),
        ("BARRIER_RETENTION_DAYS", "7"),
    ],
)
def test_a_wrong_value_names_its_variable_and_not_itself(
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SystemExit) as stopped:
        read_settings(Settings, [], service="order")

    assert stopped.value.code == 2
    words = capsys.readouterr().err
    assert f"environment variable {variable}:" in words
    assert "s3cret" not in words


def test_a_missing_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POSTGRES_DSN")

    with pytest.raises(SystemExit) as stopped:
        read_settings(Settings, [], service="order")

    assert stopped.value.code == 2
    assert "POSTGRES_DSN" in capsys.readouterr().err


def test_help_lists_every_variable_with_default_and_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        read_settings(Settings, ["--help"], service="order")

    assert stopped.value.code == 0
    words = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        line = next(line for line in words.splitlines() if line.startswith(f"{name.upper()} "))
        assert field.description
        assert field.description in line
    assert "GRPC_PORT  (default: 50052)" in words
    assert "INSTANCE_ID  (default: host-1)" in words
    assert "POSTGRES_DSN  (default: none, required)" in words


def test_an_unknown_argument_is_answered_with_help_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        read_settings(Settings, ["--port=1"], service="order")

    assert stopped.value.code == 2
    assert "GRPC_PORT" in capsys.readouterr().err


def test_run_hands_the_settings_to_main(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["order_svc"])
    seen: list[Settings] = []

    async def main(settings: Settings) -> None:
        seen.append(settings)

    run(Settings, main, service="order")

    assert [settings.grpc_port for settings in seen] == [50052]


TAKEN = OSError("cannot listen on 0.0.0.0:50052")


@pytest.mark.parametrize(
    "failure",
    [TAKEN, ExceptionGroup("tasks", [TAKEN]), ExceptionGroup("", [ExceptionGroup("", [TAKEN])])],
    ids=["alone", "in a group of tasks", "deeper"],
)
def test_run_ends_with_1_and_words_when_the_service_cannot_start(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["order_svc"])

    async def main(_: Settings) -> None:
        raise failure

    with pytest.raises(SystemExit) as stopped:
        run(Settings, main, service="order")

    assert stopped.value.code == 1
    words = capsys.readouterr().err
    assert "cannot listen on 0.0.0.0:50052" in words
    assert "Traceback" not in words


def test_run_does_not_hide_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["order_svc"])

    async def main(_: Settings) -> None:
        raise ExceptionGroup("tasks", [KeyError("a bug")])

    with pytest.raises(ExceptionGroup):
        run(Settings, main, service="order")
