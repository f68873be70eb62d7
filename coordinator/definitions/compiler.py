"""From a definition's text and its participants' contracts to something the engine can run.

YAML -> saga.v1.Definition -> values checked -> descriptors found -> services that are steps ->
expressions of exactly the right type. Each stage goes on with what the one before could make sense
of, so that one answer tells everything that is wrong. Nothing here does any I/O.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from coordinator.core.model import Definition
from coordinator.definitions.base import CompiledDefinition, DefinitionWarning
from coordinator.definitions.checks import check_values
from coordinator.definitions.findings import Findings
from coordinator.definitions.inputs import Inputs
from coordinator.definitions.linker import link
from coordinator.definitions.pool import DescriptorsInvalid, build_pool
from coordinator.definitions.reader import read_definition
from coordinator.definitions.services import Offer, needed_files
from coordinator.journal.definition_store import StoredDefinition
from protos.saga.v1 import saga_pb2


@dataclass(frozen=True, slots=True)
class Compilation:
    """What came of compiling a definition that could be registered."""

    version: CompiledDefinition
    warnings: tuple[DefinitionWarning, ...]


def compile_definition(source: str, offer: Offer) -> Compilation:
    """Compile a definition against what the running participants serve.

    Raises:
        DefinitionRefused: with everything that is wrong with it.
    """
    findings = Findings(source)
    message = _checked(source, findings)
    files = needed_files(message, offer, findings)
    descriptors = files.SerializeToString(deterministic=True)
    version = StoredDefinition(
        name=message.name,
        hash=content_hash(source, descriptors),
        source=source,
        descriptors=descriptors,
        created_ms=0,
    )
    return Compilation(_compiled(version, message, findings), findings.warnings)


def compile_stored(stored: StoredDefinition) -> CompiledDefinition:
    """Compile a version against the descriptors that were stored with it.

    Raises:
        DefinitionRefused: the release that stored it accepted it; this one does not.
    """
    findings = Findings(stored.source)
    return _compiled(stored, _checked(stored.source, findings), findings)


def _checked(source: str, findings: Findings) -> saga_pb2.Definition:
    message = read_definition(source, findings)
    check_values(message, findings)
    return message


def content_hash(source: str, descriptors: bytes) -> str:
    """Hex SHA-256 over a version's text, whatever its line ends, and its descriptors."""
    text = source.replace("\r\n", "\n").rstrip().encode()
    return hashlib.sha256(b"%d:%b%b" % (len(text), text, descriptors)).hexdigest()


def _compiled(
    version: StoredDefinition, message: saga_pb2.Definition, findings: Findings
) -> CompiledDefinition:
    pool = _pool(FileDescriptorSet.FromString(version.descriptors), findings)
    linked = link(message, pool, findings)
    findings.refuse()
    inputs = Inputs(pool.FindMessageTypeByName(message.input), linked.keys)
    return CompiledDefinition(
        name=version.name,
        hash=version.hash,
        source=version.source,
        definition=Definition(
            name=version.name,
            hash=version.hash,
            steps=linked.steps,
            deadline_ms=message.deadline.ToMilliseconds() or None,
        ),
        message=message.SerializeToString(deterministic=True),
        input_type=message.input,
        check_input=inputs.check,
        keys_of=inputs.keys_of,
        descriptors=version.descriptors,
        created_ms=version.created_ms,
    )


def _pool(files: FileDescriptorSet, findings: Findings) -> DescriptorPool:
    try:
        return build_pool(files)
    except DescriptorsInvalid as error:
        findings.problem("", "CONTRACT_INVALID", f"the contracts make no whole: {error}")
        findings.refuse()
        raise
