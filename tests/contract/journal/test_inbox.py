"""The contract's part "Inbox"."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from coordinator.journal.base import RevisionConflict
from coordinator.journal.verbs import (
    UnknownSaga,
    Verb,
    VerbIdReused,
    VerbKind,
    VerbOutcome,
    VerbState,
)
from tests.contract.journal.harness import LONG, Instance, Rig, begun, finished

PENDING = VerbOutcome(VerbState.PENDING, revision=1)
ACCEPTED = VerbOutcome(VerbState.ACCEPTED, revision=1)


def verb(request_id: str, saga_id: str = "s1") -> Verb:
    return Verb(
        request_id=request_id,
        saga_id=saga_id,
        kind=VerbKind.SKIP,
        step="a",
        actor="ann",
        reason="done by hand",
        revision=1,
    )


def refusal(explanation: str) -> VerbOutcome:
    return VerbOutcome(VerbState.REFUSED, explanation, revision=1)


async def test_the_owner_is_shown_what_others_posted_oldest_first(
    mine: Instance, other: Instance
) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    await other.tell(begun("s3").append)
    for posted in (verb("v2"), verb("v1", "s2"), verb("v0", "s3")):
        await other.journal.post_verb(posted)
    assert await mine.journal.pending_verbs(mine.lease) == [verb("v2"), verb("v1", "s2")]
    assert await other.journal.pending_verbs(other.lease) == [verb("v0", "s3")]
    assert await other.journal.verb_outcome("v2") == PENDING
    assert await other.journal.verb_outcome("v3") is None


async def test_a_verb_is_accepted_with_the_event_that_names_it(mine: Instance) -> None:
    first, second, _ = finished("s1")
    await mine.tell(first)
    await mine.journal.post_verb(verb("v1"))
    await mine.journal.post_verb(verb("v2"))
    await mine.tell(replace(second, verb_id="v1"), replace(second, verb_id="v1"))
    assert await mine.journal.verb_outcome("v1") == ACCEPTED
    assert await mine.journal.pending_verbs(mine.lease) == [verb("v2")]


async def test_an_event_that_is_not_written_accepts_nothing(mine: Instance) -> None:
    told, otherwise = begun("s1"), begun("s1")
    await mine.tell(told.append, told.done("a"))
    await mine.journal.post_verb(verb("v1"))
    (error,) = await mine.write(replace(otherwise.failed("a"), verb_id="v1"))
    assert isinstance(error, RevisionConflict)
    assert await mine.journal.verb_outcome("v1") == PENDING


async def test_a_verb_is_refused_with_an_explanation(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.post_verb(verb("v1"))
    await mine.journal.refuse_verb("v1", "not\0 now")
    refused = refusal("not\N{REPLACEMENT CHARACTER} now")
    assert await mine.journal.verb_outcome("v1") == refused
    assert await mine.journal.pending_verbs(mine.lease) == []
    await mine.journal.refuse_verb("v1", "asked twice")
    assert await mine.journal.verb_outcome("v1") == refused


async def test_a_verb_that_was_accepted_is_not_refused_later(mine: Instance) -> None:
    first, second, _ = finished("s1")
    await mine.tell(first)
    await mine.journal.post_verb(verb("v1"))
    await mine.tell(replace(second, verb_id="v1"))
    await mine.journal.refuse_verb("v1", "too late")
    assert await mine.journal.verb_outcome("v1") == ACCEPTED


async def test_only_the_owner_refuses(mine: Instance, other: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.post_verb(verb("v1"))
    await other.journal.refuse_verb("v1", "not mine")
    assert await mine.journal.verb_outcome("v1") == PENDING


async def test_a_claim_takes_the_verbs_along(rig: Rig, mine: Instance, other: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.post_verb(verb("v1"))
    await mine.journal.release_lease(mine.lease)
    assert await other.journal.pending_verbs(other.lease) == []
    await other.journal.claim(other.lease, 10)
    assert await other.journal.pending_verbs(other.lease) == [verb("v1")]
    await mine.journal.refuse_verb("v1", "not mine any more")
    assert await mine.journal.verb_outcome("v1") == PENDING


async def test_anyone_decides_what_was_posted_for_a_finished_saga(
    mine: Instance, other: Instance
) -> None:
    await mine.tell(*finished("s1"))
    await mine.journal.post_verb(verb("v1"))
    await mine.journal.release_lease(mine.lease)
    assert await other.journal.pending_verbs(other.lease) == [verb("v1")]
    await other.journal.refuse_verb("v1", "it is finished")
    outcome = await other.journal.verb_outcome("v1")
    assert outcome == refusal("it is finished")


async def test_the_same_verb_again_changes_nothing(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    soiled = replace(verb("v1"), actor="a\0", reason="r\ud800")
    for _ in range(2):
        await mine.journal.post_verb(soiled)
    (pending,) = await mine.journal.pending_verbs(mine.lease)
    assert (pending.actor, pending.reason) == ("a\N{REPLACEMENT CHARACTER}", "r?")
    await mine.journal.refuse_verb("v1", "no")
    await mine.journal.post_verb(soiled)
    assert await mine.journal.verb_outcome("v1") == refusal("no")


async def test_an_id_belongs_to_one_verb(mine: Instance) -> None:
    await mine.tell(begun("s1").append, begun("s2").append)
    await mine.journal.post_verb(verb("v1"))
    for otherwise in (
        verb("v1", "s2"),
        replace(verb("v1"), step="b"),
        replace(verb("v1"), revision=2),
    ):
        with pytest.raises(VerbIdReused):
            await mine.journal.post_verb(otherwise)
    assert await mine.journal.pending_verbs(mine.lease) == [verb("v1")]


async def test_a_verb_for_no_saga_is_not_taken(mine: Instance) -> None:
    with pytest.raises(UnknownSaga):
        await mine.journal.post_verb(verb("v1"))
    assert await mine.journal.verb_outcome("v1") is None


async def test_a_former_lease_is_shown_nothing(mine: Instance) -> None:
    await mine.tell(begun("s1").append)
    await mine.journal.post_verb(verb("v1"))
    again = await mine.journal.acquire_lease("mine", LONG)
    await mine.journal.claim(again, 10)
    assert await mine.journal.pending_verbs(mine.lease) == []
