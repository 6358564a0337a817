"""A teacher over HTTP: the same questions as JSON, tensors as base64 of their bytes."""

import asyncio
import base64
import ssl
from collections.abc import Sequence
from typing import Any

import httpx

from student_trainer.teachers import Options, Teacher, answers_from_response
from teacher_api.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    TeacherError,
    error_from_http,
    error_from_proto,
)
from teacher_api.messages import Answer, Description, Instance, Usage, Want
from teacher_api.v1 import teacher_pb2 as pb

Json = dict[str, Any]

CONNECT_TIMEOUT_S = 5.0
_MALFORMED = (AttributeError, KeyError, TypeError, ValueError)  # what a foreign JSON value can raise


class HttpTeacher(Teacher):
    """The teacher at `url` (http://host:port or https://host:port)."""

    def __init__(self, url: str, options: Options) -> None:
        trusted = ssl.create_default_context(cafile=options.ca_file)
        if options.certificate:
            trusted.load_cert_chain(options.certificate, options.certificate_key)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {options.api_key}"} if options.api_key else {},
            timeout=httpx.Timeout(options.timeout_s, connect=CONNECT_TIMEOUT_S),
            verify=trusted,
        )
        self._timeout = options.timeout_s

    async def describe(self) -> Description:
        return _description(await self._json("GET", "/v1/describe"))

    async def predict(
        self, instances: Sequence[Instance], want: Want, fingerprint: str, operation: str = ""
    ) -> list[Answer]:
        question = _question(instances, want, fingerprint) | {"timeout_ms": round(1000 * self._timeout)}
        response = _response(await self._json("POST", "/v1/predict", question, operation))
        return answers_from_response(response, len(instances), fingerprint)

    async def usage(self) -> Usage:
        return _usage(await self._json("GET", "/v1/usage"))

    async def close(self) -> None:
        await self._http.aclose()

    async def _json(self, method: str, path: str, body: Json | None = None, operation: str = "") -> Json:
        headers = {"operation-id": operation} if operation else {}
        try:
            # httpx limits each read and write; this limits the whole request.
            async with asyncio.timeout(self._timeout):
                response = await self._http.request(method, path, json=body, headers=headers)
        except (httpx.ConnectTimeout, httpx.ConnectError) as error:
            raise NotReadyError(f"no teacher at {self._http.base_url}: {error}") from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise DeadlineExceededError("the teacher took too long", limit=f"{self._timeout} s") from error
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"the question cannot travel: {error}", field="instances") from error
        except httpx.TransportError as error:
            raise NotReadyError(f"the connection to the teacher broke: {error}") from error
        if not response.is_success:
            raise _refusal(response)
        return _object(response)


def _question(instances: Sequence[Instance], want: Want, fingerprint: str) -> Json:
    wanted: Json = {
        "logits": want.logits,
        "layers": want.layers,
        "pooling": want.pooling,
        "hidden_dtype": want.hidden_dtype,
    }
    if want.attentions:  # a server of an older contract refuses a name that it does not know
        wanted["attentions"] = want.attentions
    asked = [_instance(instance) for instance in instances]
    return {"instances": asked, "want": wanted, "fingerprint": fingerprint, "encoding": "base64"}


def _instance(instance: Instance) -> Json:
    if instance.token_ids is not None:
        return {"token_ids": instance.token_ids, "type_ids": instance.type_ids}
    if instance.text_pair is None:
        return {"text": instance.text}
    return {"text": instance.text, "text_pair": instance.text_pair}


def _refusal(response: httpx.Response) -> TeacherError:
    try:
        return error_from_proto(pb.Error(**response.json()["error"]))
    except _MALFORMED:  # not ours: a proxy's, or the web server's own
        return error_from_http(response.status_code, response.reason_phrase)


def _object(response: httpx.Response) -> Json:
    try:
        return dict(response.json())
    except _MALFORMED as error:
        raise InternalError("the teacher's answer is not a JSON object") from error


def _response(body: Json) -> pb.PredictResponse:
    try:
        answers = [_answer(answer) for answer in body["answers"]]
        return pb.PredictResponse(answers=answers, fingerprint=body["fingerprint"])
    except _MALFORMED as error:
        raise InternalError(f"the teacher sent a corrupt answer: {error}") from error


def _answer(body: Json) -> pb.Answer:
    outputs, error = body.get("outputs"), body.get("error")
    return pb.Answer(
        outputs=None if outputs is None else _outputs(outputs),
        cached=body["cached"],
        charged=body["charged"],
        error=None if error is None else pb.Error(**error),
    )


def _outputs(body: Json) -> pb.Outputs:
    hidden, attentions = ((body.get(name) or {}).items() for name in ("hidden", "attentions"))
    return pb.Outputs(
        logits=_tensor(body.get("logits")),
        hidden=[pb.HiddenState(layer=int(layer), values=_tensor(values)) for layer, values in hidden],
        mask=_tensor(body.get("mask")),
        attentions=[pb.Attention(layer=int(layer), values=_tensor(values)) for layer, values in attentions],
    )


def _tensor(body: Json | None) -> pb.Tensor | None:
    if body is None:
        return None
    data = base64.b64decode(body["data"], validate=True)
    dtype = pb.DataType.Value(f"DATA_TYPE_{body['dtype'].upper()}")
    return pb.Tensor(dtype=dtype, shape=body["shape"], data=data)


def _description(body: Json) -> Description:
    try:
        known = {name: body[name] for name in Description.__dataclass_fields__ if name in body}
        tuples = {"labels": tuple(body["labels"]), "poolings": tuple(body["poolings"])}
        return Description(**known | tuples)
    except _MALFORMED as error:
        raise InternalError(f"the teacher's description cannot be read: {error}") from error


def _usage(body: Json) -> Usage:
    try:
        own = {name: body[name] for name in Usage().own()}
        return Usage(**own, keys=tuple(map(_usage, body["keys"])))
    except _MALFORMED as error:
        raise InternalError(f"the teacher's usage cannot be read: {error}") from error
