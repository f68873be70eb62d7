"""Statements asked in libpq's own terms: prepared once for each session, several in one round trip.

A statement that finds one row by its key costs PostgreSQL 30 us, and asked through SQLAlchemy five
to ten times that. What every call of a step asks is therefore a `Statement`: its parameters and its
answers travel in binary, and what belongs together goes out together (a pipeline of libpq).

    MOVE = Statement("move", "UPDATE t SET state = %(state)s WHERE id = %(id)s RETURNING id",
                     {"id": "text", "state": "text"})
    async with transaction(engine) as tx:
        moved, _ = await ask(tx, MOVE(id="1", state="DONE"), COMMIT)

In a transaction of SQLAlchemy the first question takes BEGIN along, so that none pays a round trip
for it, and whatever SQLAlchemy executes on the same connection is in the same transaction. Outside
of one (`mesh.postgres.session`) the questions of one `ask` are a transaction by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy.ext.asyncio import AsyncConnection

Value = str | bytes | int | None
Rows = list[list[bytes | None]]
"""As they travel in binary: text in UTF-8, integers in network order, one byte for a boolean."""

_NO_TYPES: Mapping[str, str] = {}
_OIDS = {"text": 25, "bytea": 17, "bigint": 20}
_REFUSED = frozenset({ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE})


class Statement:
    """One statement; `types` are those of its parameters, which its text has as `%(name)s`.

    The name is that of the prepared statement, unique in its service; without one it is parsed
    whenever it is asked.
    """

    def __init__(self, name: str, text: str, types: Mapping[str, str] = _NO_TYPES) -> None:
        places = {parameter: f"${place}" for place, parameter in enumerate(types, start=1)}
        self.name = name.encode()
        self.text = (text % places).encode()
        self.source = text
        self.types = types
        self.oids = [_OIDS[type_] for type_ in types.values()]
        self._parameters = tuple(types)
        self._formats = [Format.BINARY] * len(types)

    def __call__(self, **values: Value) -> Question:
        """The question with these values.

        Raises:
            KeyError: one is missing or unknown.
        """
        if len(values) > len(self._parameters):
            raise KeyError(values.keys() - set(self._parameters))
        return Question(self, [_packed(values[name]) for name in self._parameters])

    def send(self, session: PGconn, values: Sequence[bytes | None]) -> None:
        """Put it into the pipeline."""
        if self.name:
            session.send_query_prepared(self.name, values, self._formats, Format.BINARY)
        else:
            session.send_query_params(self.text, values, self.oids, self._formats, Format.BINARY)


@dataclass(frozen=True, slots=True)
class Question:
    """A statement with its values."""

    statement: Statement
    values: list[bytes | None]


_UNNAMED = b""
BEGIN = Statement("", "BEGIN")()
COMMIT = Statement("", "COMMIT")()


async def ask(connection: AsyncConnection, *questions: Question) -> list[Rows]:
    """The answers, in the order of the questions; all of them in one round trip.

    Raises:
        psycopg.Error: one was refused, and those after it were not asked.
    """
    driver = session_of(connection)
    begins = connection.in_transaction() and not is_begun(connection)
    asked = [BEGIN, *questions] if begins else questions
    known: set[bytes] = connection.info.setdefault("statements", {_UNNAMED})
    results = await driver.wait(_together(driver.pgconn, asked, known))
    for result in results:
        if result.status in _REFUSED:
            raise error_from_result(result, encoding=driver.info.encoding)
    return [_rows(result) for result in results[-len(questions) :]]


def is_begun(connection: AsyncConnection) -> bool:
    """Whether PostgreSQL is in a transaction, good or failed, on this connection."""
    return session_of(connection).pgconn.transaction_status != TransactionStatus.IDLE


def session_of(connection: AsyncConnection) -> psycopg.AsyncConnection:
    """What psycopg calls this connection."""
    pooled = connection.sync_connection
    assert pooled is not None  # noqa: S101 - it is open
    driver = pooled.connection.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)  # noqa: S101
    return driver


def _together(
    session: PGconn, asked: Sequence[Question], known: set[bytes]
) -> PQGen[list[PGresult]]:
    """Send all of it, and read as many answers; it is run to its end also when it is cancelled.

    `known` are the names of what this session has prepared; what is new is added.
    """
    new = {question.statement.name: question.statement for question in asked}
    new = {name: statement for name, statement in new.items() if name not in known}
    session.enter_pipeline_mode()
    for statement in new.values():
        session.send_prepare(statement.name, statement.text, statement.oids)
    for question in asked:
        question.statement.send(session, question.values)
    session.pipeline_sync()
    yield from generators.send(session)
    results: list[PGresult] = []
    for name in new:
        results += yield from generators.fetch_many(session)
        if results[-1].status == ExecStatus.COMMAND_OK:
            known.add(name)
    for _ in asked:
        results += yield from generators.fetch_many(session)
    yield from generators.fetch_many(session)
    session.exit_pipeline_mode()
    return results


def _rows(result: PGresult) -> Rows:
    columns = range(result.nfields)
    return [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)]


def _packed(value: Value) -> bytes | None:
    match value:
        case str():
            return value.encode()
        case int():
            return value.to_bytes(8, signed=True)
        case _:
            return value
