"""What grpcurl asks before it can send a saga's input as JSON."""

from __future__ import annotations

import pytest
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tests.integration.api.counter import Counter

INPUT = "shop.v1.PlaceOrderInput"


@pytest.fixture(autouse=True)
def _known_only_to_a_definition(counter: Counter) -> None:
    file = FileDescriptorProto(
        name="shop/v1/shop.proto",
        package="shop.v1",
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
    )
    message = file.message_type.add(name="PlaceOrderInput")
    message.field.add(
        name="place_time",
        number=1,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=".google.protobuf.Timestamp",
        label=FieldDescriptorProto.LABEL_OPTIONAL,
    )
    timestamp = FileDescriptorProto()
    timestamp_pb2.DESCRIPTOR.CopyToProto(timestamp)
    counter.desk.definitions.types.Add(timestamp)
    counter.desk.definitions.types.Add(file)


async def ask(
    counter: Counter, *requests: pb.ServerReflectionRequest
) -> list[pb.ServerReflectionResponse]:
    stub = reflection_pb2_grpc.ServerReflectionStub(counter.channel)
    return [answer async for answer in stub.ServerReflectionInfo(iter(requests))]


def files(answer: pb.ServerReflectionResponse) -> list[str]:
    served = answer.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(file).name for file in served]


async def test_it_lists_what_the_coordinator_serves(counter: Counter) -> None:
    (answer,) = await ask(counter, pb.ServerReflectionRequest(list_services=""))
    names = [service.name for service in answer.list_services_response.service]
    assert "saga.v1.SagaService" in names
    assert "saga.v1.DefinitionService" in names
    assert "grpc.health.v1.Health" in names


async def test_a_message_that_only_a_definition_knows_is_found_with_all_it_needs(
    counter: Counter,
) -> None:
    symbol, by_name = await ask(
        counter,
        pb.ServerReflectionRequest(file_containing_symbol=INPUT),
        pb.ServerReflectionRequest(file_by_filename="shop/v1/shop.proto"),
    )
    assert files(symbol) == ["shop/v1/shop.proto", "google/protobuf/timestamp.proto"]
    assert files(by_name) == files(symbol)


async def test_our_own_services_are_found_behind_the_definitions(counter: Counter) -> None:
    (answer,) = await ask(
        counter, pb.ServerReflectionRequest(file_containing_symbol="saga.v1.SagaService")
    )
    assert "protos/saga/v1/saga.proto" in files(answer)


async def test_a_name_that_nobody_knows_is_not_found(counter: Counter) -> None:
    (answer,) = await ask(
        counter, pb.ServerReflectionRequest(file_containing_symbol="shop.v1.Unheard")
    )
    assert answer.error_response.error_code == 5


async def test_what_was_found_once_is_found_while_the_database_is_away(counter: Counter) -> None:
    await ask(counter, pb.ServerReflectionRequest(list_services=""))
    counter.desk.definitions.away = True
    (answer,) = await ask(counter, pb.ServerReflectionRequest(file_containing_symbol=INPUT))
    assert "shop/v1/shop.proto" in files(answer)


async def test_our_own_services_are_found_while_the_database_is_away(counter: Counter) -> None:
    counter.desk.definitions.away = True
    own, foreign = await ask(
        counter,
        pb.ServerReflectionRequest(file_containing_symbol="saga.v1.SagaService"),
        pb.ServerReflectionRequest(file_containing_symbol=INPUT),
    )
    assert "protos/saga/v1/saga.proto" in files(own)
    assert foreign.error_response.error_code == 5
