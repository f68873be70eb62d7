from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import (
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from coordinator.definitions.compiler import compile_definition
from coordinator.definitions.services import Offer
from coordinator.participants.base import Contract, ParticipantUnreachable
from coordinator.participants.reflection import ReflectedContracts, ServedTwice, check_served_once
from local.ports import free_port
from tests.integration.definitions.servers import Answer, answering, files, listing, reflecting
from tests.unit.definitions.contracts import contract, shop, step
from tests.unit.definitions.test_place_order import SOURCE

POOL = descriptor_pool.Default()
MAKER = contract(
    "maker",
    shared="package shared.v1; message Money { int64 units = 1; }",
    make=f"""package t.v1; import "shared.proto"; {step("Make", "shared.v1.Money money = 1;")}""",
)


async def fetched(**targets: str) -> dict[str, Contract]:
    answers = await ReflectedContracts(targets).fetch()
    return {answer.participant: answer for answer in answers if isinstance(answer, Contract)}


async def unreachable(target: str, *, timeout_s: float = 5.0) -> str:
    (answer,) = await ReflectedContracts({"maker": target}, timeout_s=timeout_s).fetch()
    assert isinstance(answer, ParticipantUnreachable)
    return str(answer)


def one_file_at_a_time(request: ServerReflectionRequest) -> ServerReflectionResponse:
    """A server that answers with the file that was asked for, and not with what it imports."""
    by_name = {FileDescriptorProto.FromString(file).name: file for file in MAKER.files}
    if request.HasField("file_by_filename"):
        return files(by_name[request.file_by_filename])
    if request.HasField("file_containing_symbol"):
        return files(by_name["make.proto"])
    return listing([*MAKER.services, "grpc.health.v1.Health"])


async def test_the_shop_compiles_against_what_its_participants_reflect() -> None:
    services = {c.participant: sorted(c.services) for c in shop().contracts}
    async with (
        reflecting(POOL, *services["order"]) as order,
        reflecting(POOL, *services["inventory"]) as inventory,
        reflecting(POOL, *services["payment"]) as payment,
        reflecting(POOL, *services["fulfillment"]) as fulfillment,
    ):
        contracts = await fetched(
            order=order, inventory=inventory, payment=payment, fulfillment=fulfillment
        )
    assert {name: sorted(found.services) for name, found in contracts.items()} == services
    check_served_once(contracts.values())
    reflected = compile_definition(SOURCE, Offer.of(contracts.values())).version
    assert reflected.hash == compile_definition(SOURCE, shop()).version.hash


@pytest.mark.parametrize("protocol", ["v1alpha", "v1"])
async def test_files_that_are_missing_are_asked_for(protocol: str) -> None:
    async with answering(one_file_at_a_time, protocol=protocol) as address:
        contracts = await fetched(maker=address)
    assert contracts["maker"].services == MAKER.services
    assert sorted(contracts["maker"].files) == sorted(MAKER.files)


async def test_a_participant_that_is_away_is_told_and_the_others_answer() -> None:
    async with answering(one_file_at_a_time) as address:
        targets = {"maker": address, "away": f"127.0.0.1:{free_port()}"}
        answers = await ReflectedContracts(targets).fetch()
    assert isinstance(answers[0], Contract)
    assert isinstance(answers[1], ParticipantUnreachable)
    assert str(answers[1]).startswith("away at 127.0.0.1:")
    assert "does not tell its contract: UNAVAILABLE" in str(answers[1])


async def test_a_group_answers_while_one_of_it_does() -> None:
    async with answering(one_file_at_a_time) as address:
        contracts = await fetched(maker=f"ipv4:127.0.0.1:{free_port()},{address}")
    assert contracts["maker"].services == MAKER.services


async def test_a_participant_that_says_nothing_is_given_up() -> None:
    stop = asyncio.Event()

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    why = await unreachable(f"{host}:{port}", timeout_s=0.2)
    assert "no answer within 0.2 s" in why
    stop.set()
    server.close()
    await server.wait_closed()


async def test_a_participant_without_reflection_is_told_so() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert "it serves no reflection" in await unreachable(f"127.0.0.1:{port}")
    await server.stop(None)


def error_response(request: ServerReflectionRequest) -> ServerReflectionResponse:
    if request.HasField("list_services"):
        return listing(MAKER.services)
    response = ServerReflectionResponse()
    response.error_response.error_code = 5
    response.error_response.error_message = "no such symbol"
    return response


def garbage(request: ServerReflectionRequest) -> ServerReflectionResponse:
    return listing(MAKER.services) if request.HasField("list_services") else files(b"\xff\xff")


def another_file(request: ServerReflectionRequest) -> ServerReflectionResponse:
    if request.HasField("file_by_filename"):
        return files(FileDescriptorProto(name="other.proto").SerializeToString())
    return one_file_at_a_time(request)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (error_response, "it cannot tell t.v1.Make: no such symbol"),
        (garbage, "one of its file descriptors does not parse"),
        (another_file, "asked for shared.proto, it answered with another file"),
    ],
)
async def test_an_answer_that_is_no_contract_is_told(answer: Answer, why: str) -> None:
    async with answering(answer) as address:
        assert why in await unreachable(address)


def test_a_step_of_two_participants_is_told_with_both() -> None:
    twin = Contract(participant="twin", services=MAKER.services, files=MAKER.files)
    check_served_once([MAKER])
    with pytest.raises(ServedTwice, match=r"t\.v1\.Make is served by maker and by twin") as served:
        check_served_once([MAKER, twin])
    assert "PARTICIPANTS=maker=HOST:PORT|HOST:PORT" in str(served.value)


def test_a_service_that_is_no_step_may_be_everywhere() -> None:
    proto = "package t.v1; message A {} service Admin { rpc Do(A) returns (A); }"
    both = [contract(name, admin=proto) for name in ("east", "west")]
    check_served_once(both)
    assert all(served.services == {"t.v1.Admin"} for served in both)
