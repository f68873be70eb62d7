"""Settings of a service: environment variables, checked at start and frozen from then on.

class Settings(PostgresSettings):
    grpc_port: int = Field(default=50052, ge=0, le=65535, description="port of the gRPC server")

async def main(settings: Settings) -> None: ...

if __name__ == "__main__":
    run(Settings, main, service="order")
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Literal, TypeVar

import structlog
from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict
from rich.console import Console
from rich.table import Table

from mesh.errors import MeshError
from mesh.logs import configure_logging

BAD_SETTINGS = 2
"""Exit code for a wrong environment variable or argument."""


class ServiceSettings(BaseSettings):
    """What every service reads."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    grpc_host: str = Field(default="0.0.0.0", description="address that the gRPC server listens on")  # noqa: S104 - a container has no other
    grpc_port: int = Field(
        default=0, ge=0, le=65535, description="port of the gRPC server; 0 for any"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level that is logged"
    )
    log_format: Literal["console", "json"] | None = Field(
        default=None, description="console or json; by default console on a terminal, else json"
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        default=None,
        description="where traces go by OTLP, such as http://localhost:4317; off when unset",
    )
    shutdown_grace_seconds: float = Field(
        default=10, ge=0, le=3600, description="how long calls in flight may take after SIGTERM"
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class PostgresSettings(ServiceSettings):
    """What a service with a PostgreSQL database reads."""

    postgres_dsn: str = Field(
        pattern=r"^postgres(ql)?://", description="database, postgresql://user@host:port/name"
    )
    barrier_retention_days: int = Field(
        default=400,
        ge=31,
        description="how long the record of a done step is kept for its compensation",
    )


S = TypeVar("S", bound=ServiceSettings)


def run(
    settings: type[S],
    main: Callable[[S], Coroutine[Any, Any, None]],
    *,
    service: str,
    arguments: Sequence[str] | None = None,
) -> None:
    """The body of every `__main__`: `--help`, settings, logs, then `main` until it returns.

    `arguments` are those of the command line, when None.

    Raises:
        SystemExit: 0 after `--help`; 2 for a wrong setting or argument; 1 when the service cannot
            run, such as with a password that its database refuses.
    """
    given = sys.argv[1:] if arguments is None else arguments
    read = read_settings(settings, given, service=service)
    configure_logging(level=read.log_level, log_format=read.log_format, service=service)
    causes: list[BaseException] = []
    try:
        asyncio.run(_until_told(main(read)))
    except* (MeshError, OSError) as failed:
        causes += _causes(failed)
    for cause in causes:
        structlog.stdlib.get_logger().error("service.failed", why=str(cause))
    if causes:
        raise SystemExit(1)


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Do the work; SIGTERM or SIGINT ends it at once, until there is a server that drains."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def _causes(failed: BaseException) -> Iterator[BaseException]:
    """What went wrong in a group of tasks, however deep."""
    if isinstance(failed, BaseExceptionGroup):
        for part in failed.exceptions:
            yield from _causes(part)
    else:
        yield failed


def read_settings(settings: type[S], arguments: Sequence[str], *, service: str) -> S:
    """Settings from the environment.

    Raises:
        SystemExit: 0 after `--help`, 2 for a wrong setting or argument, both with words about it.
    """
    if arguments:
        wanted = list(arguments) in (["-h"], ["--help"])
        _print_help(settings, service, Console(stderr=not wanted, soft_wrap=True))
        raise SystemExit(0 if wanted else BAD_SETTINGS)
    try:
        return settings()
    except ValidationError as invalid:
        _complain(invalid, service)
        raise SystemExit(BAD_SETTINGS) from None


def _complain(invalid: ValidationError, service: str) -> None:
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    for error in invalid.errors(include_input=False, include_url=False):
        variable = ".".join(str(part) for part in error["loc"]).upper()
        console.print(f"{service}: environment variable {variable}: {error['msg']}")
    console.print(f"{service}: --help lists every variable")


def _print_help(settings: type[ServiceSettings], service: str, console: Console) -> None:
    title = f"{service} is set up by environment variables"
    lines = [
        (name.upper(), _default(field), field.description or "")
        for name, field in settings.model_fields.items()
    ]
    if not console.is_terminal:
        plain = [f"{name}  (default: {default})  {meaning}" for name, default, meaning in lines]
        console.print("\n".join([title, *plain]), markup=False, highlight=False)
        return
    table = Table("variable", "default", "meaning", title=title)
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none, required"
    default = field.get_default(call_default_factory=True, validated_data={})
    return "unset" if default is None else str(default)
