"""What a command reads."""

from __future__ import annotations

import typer


def read_text(file: typer.FileText) -> str:
    """The whole text of a file.

    Raises:
        typer.BadParameter: it is no UTF-8.
    """
    try:
        return file.read()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file.name} is no UTF-8 text") from error
