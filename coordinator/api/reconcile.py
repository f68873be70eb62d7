"""SagaService.ReconcileEffects: what a reconciliation finds, as it finds it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from coordinator.api.convert import SAGA_STATES
from coordinator.api.refusals import translated
from coordinator.reconciliation.base import Finding, Orphan, OrphanKind
from coordinator.reconciliation.reconciler import Reconciler
from mesh.errors import FieldViolation
from mesh.validation import refuse_if_any
from protos.saga.v1 import saga_pb2 as pb

KINDS = {
    OrphanKind.UNKNOWN_SAGA: pb.ORPHAN_KIND_UNKNOWN_SAGA,
    OrphanKind.STILL_HELD: pb.ORPHAN_KIND_STILL_HELD,
    OrphanKind.MISSING: pb.ORPHAN_KIND_MISSING,
}


async def reconcile(
    request: pb.ReconcileEffectsRequest, reconciler: Reconciler
) -> AsyncGenerator[pb.ReconcileEffectsResponse, None]:
    """Every orphan, and at the end the summary.

    Raises:
        InvalidRequest: there is no such participant.
        Retry: the journal is away.
    """
    refuse_if_any(_violations(request, reconciler))
    asked = tuple(dict.fromkeys(request.participants)) or reconciler.participants
    with translated():
        async with aclosing(reconciler.run(asked)) as findings:
            async for finding in findings:
                yield _message(finding)


def _violations(
    request: pb.ReconcileEffectsRequest, reconciler: Reconciler
) -> Iterator[FieldViolation]:
    known = ", ".join(reconciler.participants)
    for index, name in enumerate(request.participants):
        if name not in reconciler.participants:
            yield FieldViolation(f"participants[{index}]", f"must be one of {known}")


def _message(finding: Finding) -> pb.ReconcileEffectsResponse:
    if isinstance(finding, Orphan):
        return pb.ReconcileEffectsResponse(orphan=_orphan(finding))
    summary = pb.ReconciliationSummary(
        effects=finding.effects,
        orphans=finding.orphans,
        participants=finding.participants,
        unreachable=finding.unreachable.values(),
    )
    return pb.ReconcileEffectsResponse(summary=summary)


def _orphan(orphan: Orphan) -> pb.Orphan:
    message = pb.Orphan(
        participant=orphan.participant,
        saga_id=orphan.key.saga_id,
        step=orphan.key.step,
        kind=KINDS[orphan.kind],
        explanation=orphan.explanation,
    )
    if orphan.saga_state is not None:
        message.saga_state = SAGA_STATES[orphan.saga_state]
    if orphan.effect_ms is not None:
        message.effect_time.FromMilliseconds(orphan.effect_ms)
    return message
