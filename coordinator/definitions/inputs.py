"""The input of a saga: is it of the right type, and which searchable keys does it give?"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from coordinator.core.model import RequestNotBuildable
from coordinator.definitions.base import InputRefused
from coordinator.definitions.expressions import Expression


class Inputs:
    """Inputs of one definition."""

    def __init__(self, input_type: Descriptor, keys: Mapping[str, Expression]) -> None:
        self._type = input_type.full_name
        self._form = GetMessageClass(input_type)
        self._keys = dict(keys)

    def check(self, type_url: str, value: bytes) -> bytes:
        """The input in canonical bytes; see `CompiledDefinition.check_input`."""
        given = type_url.rpartition("/")[2]
        if given != self._type:
            message = f"the input must be a {self._type}, given {given[:200] or 'none'}"
            raise InputRefused("INPUT_TYPE_MISMATCH", message)
        try:
            return self._form.FromString(value).SerializeToString(deterministic=True)
        except DecodeError:
            message = f"the input's bytes are no {self._type}"
            raise InputRefused("INPUT_MALFORMED", message) from None

    def keys_of(self, input_bytes: bytes) -> dict[str, str]:
        """The searchable keys; see `CompiledDefinition.keys_of`."""
        return {name: self._key(name, input_bytes) for name in self._keys}

    def _key(self, name: str, input_bytes: bytes) -> str:
        try:
            return self._keys[name].text({"input": input_bytes})
        except RequestNotBuildable as error:
            raise InputRefused("KEY_NOT_BUILDABLE", f"key {name}: {error}") from error
