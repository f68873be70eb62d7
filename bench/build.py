"""What is built before anything is measured, into build/: the Go ends, and the steps' contracts."""

from __future__ import annotations

import functools
import subprocess
import sys
import sysconfig
from pathlib import Path

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "build" / "bench"
PROGRAM = BUILT / "bench"
CONTRACTS = BUILT / "steps.binpb"

_PROTOS = ("bench/steps.proto", "protos/mesh/v1/mesh.proto")


class CannotBuild(Exception):
    """Something that is needed did not compile, or cannot be had."""


def build() -> None:
    """Make PROGRAM and CONTRACTS anew.

    Raises:
        CannotBuild: Go is not there, or the compiler complained.
    """
    BUILT.mkdir(parents=True, exist_ok=True)
    run(["go", "build", "-o", str(PROGRAM), "."], folder=ROOT / "bench" / "go")
    includes = ["-I.", f"-I{sysconfig.get_paths()['purelib']}", "--include_imports"]
    compiler = [sys.executable, "-m", "grpc_tools.protoc", *includes]
    run([*compiler, f"-o{CONTRACTS}", *_PROTOS], folder=ROOT)


def run(command: list[str], *, folder: Path) -> None:
    """Run one build step; its output goes where ours goes.

    Raises:
        CannotBuild: it failed, or the program is not there.
    """
    try:
        subprocess.run(command, cwd=folder, check=True)  # noqa: S603 - our own commands
    except (OSError, subprocess.CalledProcessError) as failed:
        raise CannotBuild(f"{' '.join(command)}: {failed}") from failed


@functools.cache
def message(name: str) -> type[Message]:
    """The class of a message of bench/steps.proto, such as `Order`."""
    files = FileDescriptorSet.FromString(CONTRACTS.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.v1.{name}"))
