"""Which participants serve what a definition names, and the descriptors that it needs of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from coordinator.definitions.findings import Findings
from coordinator.definitions.pool import Descriptors, DescriptorsInvalid
from coordinator.participants.base import Contract, ParticipantUnreachable
from protos.saga.v1 import saga_pb2


@dataclass(frozen=True, slots=True)
class Offer:
    """What the running participants answered when they were asked for their contracts."""

    contracts: Sequence[Contract]
    unreachable: Sequence[ParticipantUnreachable]

    @classmethod
    def of(cls, answers: Iterable[Contract | ParticipantUnreachable]) -> Offer:
        """The answers of `Contracts.fetch`."""
        listed = list(answers)
        contracts = sorted(
            (answer for answer in listed if isinstance(answer, Contract)),
            key=lambda contract: contract.participant,
        )
        return cls(contracts, [a for a in listed if isinstance(a, ParticipantUnreachable)])


def needed_files(
    definition: saga_pb2.Definition, offer: Offer, findings: Findings
) -> FileDescriptorSet:
    """The files of the definition's step services and input with all they import, and no more."""
    return _Needs(offer, findings).files(definition)


class _Needs:
    """Collects the files of the participants that a definition needs."""

    def __init__(self, offer: Offer, findings: Findings) -> None:
        self._offer = offer
        self._findings = findings
        self._descriptors = Descriptors()
        self._paths: dict[str, str] = {}
        """Where the definition needs a participant first."""

    def files(self, definition: saga_pb2.Definition) -> FileDescriptorSet:
        for number, step in enumerate(definition.steps):
            if step.service:
                self._serve(step.service, f"steps[{number}].service")
        for contract in self._offer.contracts:
            if contract.participant in self._paths:
                self._add(contract)
        if definition.input and not self._descriptors.defines(definition.input):
            self._find_input(definition.input)
        services = {step.service for step in definition.steps}
        files = self._descriptors.needed(services | {definition.input})
        self._report_conflicts(files)
        return files

    def _serve(self, service: str, path: str) -> None:
        serving = [c.participant for c in self._offer.contracts if service in c.services]
        for participant in serving:
            self._paths.setdefault(participant, path)
        if len(serving) > 1:
            message = f"{service} is served by more than one participant: {', '.join(serving)}"
            self._findings.problem(path, "SERVICE_SERVED_TWICE", message)
        elif not serving:
            self._missing(path, "SERVICE_NOT_FOUND", f"no participant serves {service}")

    def _find_input(self, input_type: str) -> None:
        for contract in self._offer.contracts:
            if _defines(contract, input_type):
                self._paths.setdefault(contract.participant, "input")
                self._add(contract)
                return
        message = f"no participant has a message {input_type} in the files of its services"
        self._missing("input", "INPUT_NOT_FOUND", message)

    def _missing(self, path: str, reason: str, message: str) -> None:
        """Something that nobody serves: for want of it, or of the participant that would."""
        if self._offer.unreachable:
            why = "; ".join(str(error) for error in self._offer.unreachable)
            self._findings.problem(path, "PARTICIPANT_UNREACHABLE", f"{message} now: {why}")
        else:
            self._findings.problem(path, reason, message)

    def _add(self, contract: Contract) -> None:
        try:
            self._descriptors.add(contract.participant, contract.files)
        except DescriptorsInvalid as error:
            message = f"the contract of {contract.participant} cannot be read: {error}"
            self._findings.problem(self._paths[contract.participant], "CONTRACT_INVALID", message)

    def _report_conflicts(self, files: FileDescriptorSet) -> None:
        for conflict in self._descriptors.conflicts(files):
            message = (
                f"{conflict.symbol} is not the same in {conflict.first} and in {conflict.other}:"
                " build both from one contract"
            )
            self._findings.problem(self._paths[conflict.other], "CONTRACT_CONFLICT", message)


def _defines(contract: Contract, symbol: str) -> bool:
    descriptors = Descriptors()
    try:
        descriptors.add(contract.participant, contract.files)
    except DescriptorsInvalid:
        return False  # a participant that may not be needed is no problem of this definition
    return descriptors.defines(symbol)
