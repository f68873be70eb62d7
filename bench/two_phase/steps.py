"""The participants of the saga: `python -m bench.two_phase.steps`, once for each database.

STEP=order.v1.CreateOrder or inventory.v1.ReserveStock says which of the two it serves; it sends the
statement of `orders` behind our barrier. The messages are those of the demo mesh.
"""

from __future__ import annotations

from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.two_phase.orders import TAKE_STOCK, WRITE_ORDER
from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.tables import create_barrier
from mesh.postgres import create_engine
from mesh.server import Server
from mesh.settings import PostgresSettings, run
from mesh.step import GuardedStep, Step, StepCall
from protos.inventory.v1 import inventory_pb2
from protos.order.v1 import order_pb2


def _statement(sql: str) -> str:
    """The same with names as SQLAlchemy has them."""
    return sql.replace("%(", ":").replace(")s", "")


_WRITE_ORDER = text(_statement(WRITE_ORDER))
_CANCEL = text("DELETE FROM orders WHERE order_id = :order_id")
_TAKE_STOCK = text(_statement(TAKE_STOCK))
_GIVE_BACK = text("UPDATE stock SET available = available + 1 WHERE product_id = :product_id")


class CreateOrder(
    Step[order_pb2.CreateOrderRequest, order_pb2.CreateOrderResponse, AsyncConnection]
):
    """Writes the order down."""

    service = "order.v1.CreateOrder"

    async def do(
        self, call: StepCall, request: order_pb2.CreateOrderRequest, tx: AsyncConnection
    ) -> order_pb2.CreateOrderResponse:
        """Insert it."""
        product_id = request.items[0].product_id
        values = {"order_id": request.order_id, "product_id": product_id}
        await tx.execute(_WRITE_ORDER, values)
        return order_pb2.CreateOrderResponse()

    async def compensate(
        self,
        call: StepCall,
        request: order_pb2.CreateOrderRequest,
        response: order_pb2.CreateOrderResponse,
        tx: AsyncConnection,
    ) -> None:
        """Delete it."""
        await tx.execute(_CANCEL, {"order_id": request.order_id})


class ReserveStock(
    Step[inventory_pb2.ReserveStockRequest, inventory_pb2.ReserveStockResponse, AsyncConnection]
):
    """Takes the stock."""

    service = "inventory.v1.ReserveStock"

    async def do(
        self, call: StepCall, request: inventory_pb2.ReserveStockRequest, tx: AsyncConnection
    ) -> inventory_pb2.ReserveStockResponse:
        """Take one."""
        await tx.execute(_TAKE_STOCK, {"product_id": request.items[0].product_id})
        return inventory_pb2.ReserveStockResponse()

    async def compensate(
        self,
        call: StepCall,
        request: inventory_pb2.ReserveStockRequest,
        response: inventory_pb2.ReserveStockResponse,
        tx: AsyncConnection,
    ) -> None:
        """Give it back."""
        await tx.execute(_GIVE_BACK, {"product_id": request.items[0].product_id})


class Settings(PostgresSettings):
    """What the participant reads."""

    step: str = Field(description="full name of the step service that it serves")


async def main(settings: Settings) -> None:
    """Serve until SIGTERM; its barrier is made anew."""
    engine = create_engine(settings.postgres_dsn)
    async with engine.begin() as connection:
        await connection.run_sync(create_barrier)
    barrier = PostgresBarrier(engine)
    steps: list[GuardedStep] = [barrier.guard(CreateOrder()), barrier.guard(ReserveStock())]
    server = Server(settings)
    for step in steps:
        if step.types.service.full_name == settings.step:
            server.add_step(step)
    await server.run()
    await engine.dispose()


if __name__ == "__main__":
    run(Settings, main, service="steps")
