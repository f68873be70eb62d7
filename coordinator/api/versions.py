"""Finding the version of a definition that a request names."""

from __future__ import annotations

from coordinator.api.refusals import definition_not_found
from coordinator.definitions.base import CompiledDefinition, Definitions


async def find_version(
    definitions: Definitions, name: str, content_hash: str
) -> CompiledDefinition:
    """The version of this name and hash; the newest when the hash is empty.

    Raises:
        NotFound: DEFINITION_NOT_FOUND.
    """
    if content_hash:
        version = await definitions.load(content_hash)
    else:
        version = await definitions.newest(name)
    if version is None or version.name != name:
        raise definition_not_found(name, content_hash)
    return version


def version_at_hand(
    definitions: Definitions, name: str, content_hash: str
) -> CompiledDefinition | None:
    """Like `find_version`, without asking anybody; None when the store has to be asked."""
    version = definitions.at_hand(name, content_hash)
    return version if version is not None and version.name == name else None
