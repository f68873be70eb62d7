"""A database that takes no writes, as after a failover to a standby, is away until it does."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from psycopg import AsyncConnection
from sqlalchemy import text

from mesh.errors import Retry
from mesh.postgres import create_engine, transaction


async def test_sessions_that_may_not_write_are_replaced_and_writing_is_to_be_tried_again(
    postgres_dsn: str,
) -> None:
    name = urlsplit(postgres_dsn).path[1:]
    engine = create_engine(postgres_dsn)
    async with await AsyncConnection.connect(postgres_dsn, autocommit=True) as admin:
        await admin.execute("CREATE TABLE kept ()")
        await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with pytest.raises(Retry, match="takes no writes"):
            async with transaction(engine) as tx:
                await tx.execute(text("INSERT INTO kept DEFAULT VALUES"))
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        async with transaction(engine) as tx:
            await tx.execute(text("INSERT INTO kept DEFAULT VALUES"))
    await engine.dispose()
