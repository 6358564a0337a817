"""The same question over both faces, raw: what a client library would hide is seen here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
from processes import ServerProcess

from teacher_api.errors import TeacherError, error_from_proto
from teacher_api.messages import Instance, Want, request_to_proto
from teacher_api.v1 import teacher_pb2 as pb
from teacher_api.v1.teacher_pb2_grpc import TeacherServiceStub

PATIENCE_SECONDS = 20
LOGITS = Want()


class OverGrpc:
    def __init__(self, server: ServerProcess) -> None:
        self.channel = grpc.aio.insecure_channel(server.grpc)
        self.stub = TeacherServiceStub(self.channel)

    async def ask(
        self,
        instances: Sequence[Instance],
        want: Want = LOGITS,
        *,
        fingerprint: str = "",
        vocabulary_hash: str = "",
        seconds: float = PATIENCE_SECONDS,
    ) -> list[dict[str, Any]]:
        """Answers as {"logits", "cached", "charged", "error"}; raises the TeacherError that was sent."""
        request = request_to_proto(instances, want, fingerprint)
        request.vocabulary_hash = vocabulary_hash
        try:
            response = await self.stub.Predict(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise grpc_error(error) from None
        return [
            {
                "logits": memoryview(one.outputs.logits.data).cast("f").tolist(),
                "cached": one.cached,
                "charged": one.charged,
                "error": one.error.code if one.HasField("error") else None,
                "field": one.error.field,
            }
            for one in response.answers
        ]

    async def close(self) -> None:
        await self.channel.close()


class OverHttp:
    def __init__(self, server: ServerProcess) -> None:
        self.client = httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS)

    async def ask(
        self,
        instances: Sequence[Instance],
        want: Want = LOGITS,
        *,
        fingerprint: str = "",
        vocabulary_hash: str = "",
        seconds: float = PATIENCE_SECONDS,
    ) -> list[dict[str, Any]]:
        body = {
            "instances": [instance_json(one) for one in instances],
            "want": {"logits": want.logits, "layers": want.layers, "pooling": want.pooling},
            "fingerprint": fingerprint,
            "vocabulary_hash": vocabulary_hash,
            "timeout_ms": round(1000 * seconds),
        }
        response = await self.client.post("/v1/predict", json=body)
        if response.status_code != 200:
            raise error_from_proto(pb.Error(**response.json()["error"]))
        return [
            {
                "logits": (one["outputs"] or {}).get("logits") or [],
                "cached": one["cached"],
                "charged": one["charged"],
                "error": (one["error"] or {}).get("code"),
                "field": (one["error"] or {}).get("field", ""),
            }
            for one in response.json()["answers"]
        ]

    async def close(self) -> None:
        await self.client.aclose()


Face = OverGrpc | OverHttp
OpenFace = Callable[[ServerProcess], Face]


class FaultyServer:
    """A server of faulty_server.py, and what its model has seen."""

    def __init__(self, running: ServerProcess, runs: Path) -> None:
        self.running, self._runs = running, runs

    def seen(self, text: str) -> int:
        """How often the model ran for this text."""
        return self.all_seen().count(text)

    def all_seen(self) -> list[str]:
        """Every text that the model ran for."""
        return self._runs.read_text().splitlines() if self._runs.exists() else []


def grpc_error(error: grpc.aio.AioRpcError) -> TeacherError:
    """What travels in teacher-error-bin; without it the call was not answered by our code."""
    told = dict(error.trailing_metadata() or ()).get("teacher-error-bin")
    assert told is not None, f"not from the error table: {error.code()} {error.details()}"
    return error_from_proto(pb.Error.FromString(told))


def instance_json(instance: Instance) -> dict[str, Any]:
    if instance.token_ids is not None:
        return {"token_ids": instance.token_ids, "type_ids": instance.type_ids}
    pair = {} if instance.text_pair is None else {"text_pair": instance.text_pair}
    return {"text": instance.text} | pair


def texts(*contents: str) -> list[Instance]:
    return [Instance(text) for text in contents]
