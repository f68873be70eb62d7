"""One run at a time owns a data folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderTaken(Exception):
    """Another run works on this folder; says which."""


@contextmanager
def owned(folder: Path) -> Iterator[Path]:
    """Own the folder, made if there is none; the kernel gives it back however we end.

    Raises:
        FolderTaken: another run owns it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "owner").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            taken = f"{folder.resolve()} is in use by process {file.read().strip() or 'unknown'}"
            raise FolderTaken(f"{taken}: stop it first") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield folder
