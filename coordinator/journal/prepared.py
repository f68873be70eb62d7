"""Statements that a session prepares once, asked in libpq's own terms.

A group commit has packed all that it says already. A cursor of psycopg would look up again how to
say each part of it, and costs as much as the rest of what this process does for a small group.
"""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import AsyncConnection, OperationalError, generators
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format


class Statement:
    """A statement with its parameters, by name, and their types in PostgreSQL.

    In its text they are written `%(name)s`. All of them go in binary format, and so do its answers.
    """

    def __init__(self, name: str, text: str, parameters: Mapping[str, str]) -> None:
        places = {parameter: f"${place}" for place, parameter in enumerate(parameters, start=1)}
        self._name = name.encode()
        self._formats = [Format.BINARY] * len(parameters)
        self._prepare = f"PREPARE {name} ({', '.join(parameters.values())}) AS {text % places}"

    async def prepare(self, connection: AsyncConnection) -> None:
        """Make it known to a session.

        Raises:
            psycopg.Error: the session does not know it.
        """
        await connection.execute(self._prepare)

    async def ask(
        self, connection: AsyncConnection, parameters: list[bytes]
    ) -> list[list[bytes | None]]:
        """The rows that answer it; parameters in their order. One asks at a time.

        Raises:
            psycopg.Error: it was refused, or not answered.
        """
        session = connection.pgconn
        session.send_query_prepared(
            self._name, parameters, self._formats, result_format=Format.BINARY
        )
        answers = await connection.wait(generators.execute(session))
        if not answers:
            raise OperationalError("the server has not answered")
        if answers[0].status != ExecStatus.TUPLES_OK:
            raise error_from_result(answers[0])
        rows, columns = range(answers[0].ntuples), range(answers[0].nfields)
        return [[answers[0].get_value(row, column) for column in columns] for row in rows]
