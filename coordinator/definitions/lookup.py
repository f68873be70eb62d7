"""Several descriptor pools as one, for a reflection service.

Every definition has a pool of its own, so that two versions of one type can live side by side; a
client that asks for a name gets the first pool's answer.
"""
# ruff: noqa: N802 - these are the names that reflection services ask a protobuf pool by

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

FoundT = TypeVar("FoundT")


class DescriptorLookup:
    """What a reflection service asks of a pool, asked of each; KeyError when none of them knows."""

    def __init__(self, pools: Iterable[DescriptorPool]) -> None:
        self._pools = tuple(pools)

    def FindFileByName(self, file_name: str) -> FileDescriptor:
        """The file of this name."""
        return self._first(lambda pool: pool.FindFileByName(file_name))

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        """The file that defines the message, enum, service or method of this full name."""
        return self._first(lambda pool: pool.FindFileContainingSymbol(symbol))

    def FindMessageTypeByName(self, full_name: str) -> Descriptor:
        """The message type of this full name."""
        return self._first(lambda pool: pool.FindMessageTypeByName(full_name))

    def FindExtensionByNumber(self, message_descriptor: Descriptor, number: int) -> FieldDescriptor:
        """The extension of a message with this number."""
        return _pool_of(message_descriptor).FindExtensionByNumber(message_descriptor, number)

    def FindAllExtensions(self, message_descriptor: Descriptor) -> list[FieldDescriptor]:
        """Every extension of a message that its own pool knows."""
        return _pool_of(message_descriptor).FindAllExtensions(message_descriptor)

    def _first(self, find: Callable[[DescriptorPool], FoundT]) -> FoundT:
        *others, last = self._pools
        for pool in others:
            try:
                return find(pool)
            except KeyError:
                continue
        return find(last)


def _pool_of(message: Descriptor) -> DescriptorPool:
    return message.file.pool
