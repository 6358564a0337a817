"""How long readiness and health take to tell the truth while the model is at long batches."""

import asyncio
import time

import httpx
from faces import OverGrpc, texts
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import ServerProcess

DEADLINE_SECONDS = 1.0


async def checkups(server: ServerProcess, batches: int, name: str) -> list[float]:
    """Seconds of each Check and each /readyz during so many batches of 1 s; each says that it is well."""
    face = OverGrpc(server)
    health = health_pb2_grpc.HealthStub(face.channel)
    delays: list[float] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_SECONDS) as client:
        for number in range(batches):
            work = asyncio.create_task(face.ask(texts(f"slow 1.0 {name} {number}")))
            while not work.done():
                delays += [await check(health), await ready(client)]
                await asyncio.sleep(0.02)
            await work
    await face.close()
    return delays


async def check(health: health_pb2_grpc.HealthStub) -> float:
    began = time.monotonic()
    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    return time.monotonic() - began


async def ready(client: httpx.AsyncClient) -> float:
    began = time.monotonic()
    assert (await client.get("/readyz")).status_code == 200
    return time.monotonic() - began
