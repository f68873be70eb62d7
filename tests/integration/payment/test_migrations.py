from __future__ import annotations

from payment_svc.tables import metadata
from tests.schema import NewDatabase, declared, migrated


async def test_the_migrations_make_the_tables_that_the_code_declares(
    new_postgres_database: NewDatabase,
) -> None:
    made = await migrated(await new_postgres_database(), "payment_svc", metadata)
    assert made == await declared(await new_postgres_database(), metadata)
