"""PostgreSQL behind a pooler."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from mesh.migrate import migrate
from mesh.postgres import create_engine, transaction
from mesh.waiting import DatabaseRefuses
from tests.pooler import pooler

_LIMITS = {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "10s"}


async def test_a_session_has_its_settings_where_a_pooler_takes_none_at_its_start(
    postgres_dsn: str,
) -> None:
    async with pooler(postgres_dsn) as dsn:
        engine = create_engine(dsn)
        async with transaction(engine) as tx:
            for name, limit in _LIMITS.items():
                assert (await tx.execute(text(f"SHOW {name}"))).scalar_one() == limit
        await engine.dispose()


async def test_a_pooler_whose_clients_share_a_session_is_refused_in_words(
    postgres_dsn: str,
) -> None:
    async with pooler(postgres_dsn) as dsn:
        with pytest.raises(DatabaseRefuses, match="pool_mode = session"):
            await migrate(dsn, "order_svc")
    await migrate(postgres_dsn, "order_svc")
