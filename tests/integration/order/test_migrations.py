from __future__ import annotations

from order_svc.tables import metadata
from tests.schema import NewDatabase, declared, migrated, migrated_anew


async def test_the_migrations_make_the_tables_that_the_code_declares(
    new_postgres_database: NewDatabase,
) -> None:
    made = await migrated(await new_postgres_database(), "order_svc", metadata)
    assert made == await declared(await new_postgres_database(), metadata)


async def test_the_migrations_can_be_taken_back_one_by_one_and_made_again(
    new_postgres_database: NewDatabase,
) -> None:
    anew = await migrated_anew(await new_postgres_database(), "order_svc", metadata)
    assert anew == await declared(await new_postgres_database(), metadata)
