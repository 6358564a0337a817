"""Whether this server may be asked: one state, shown by grpc.health.v1, /readyz and /metrics."""

from grpc_health.v1 import health, health_pb2

from teacher_server.metrics import Metrics

SERVICES = ("", "teacher_api.v1.TeacherService")
ALIVE = "live"  # what an orchestrator asks for before it restarts a process: one that drains is none to kill


class Health:
    """Not ready until told so; `reason` says why."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.servicer = health.aio.HealthServicer()
        self.ready = False
        self.reason = "starting"

    async def set(self, *, ready: bool, reason: str) -> None:
        """For all who ask from now on, and all who watch."""
        self.ready, self.reason = ready, reason
        self._metrics.ready.set(ready)
        status = health_pb2.HealthCheckResponse
        for service in SERVICES:
            await self.servicer.set(service, status.SERVING if ready else status.NOT_SERVING)
        await self.servicer.set(ALIVE, status.SERVING)
