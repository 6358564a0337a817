"""Coverage-guided bytes for what reads bytes of others.

python tests/soak/atheris_codecs.py tensor|sealed|request|answer|json -runs=2000000 CORPUS_FOLDER
"""

import contextlib
import sys
import zlib
from collections.abc import Callable

import atheris

with atheris.instrument_imports(include=["teacher_api", "teacher_server.http_bodies"]):
    from teacher_api import tensors
    from teacher_api.errors import TeacherError
    from teacher_api.messages import Outputs, answer_from_proto, instance_from_proto, want_from_proto
    from teacher_api.sealed import seal, unseal
    from teacher_api.v1 import teacher_pb2 as pb
    from teacher_server.http_bodies import PredictRequest

from google.protobuf.message import DecodeError
from pydantic import ValidationError

KEY = bytes(32)
HEAD = seal(KEY, Outputs())[:36]


def tensor(data: bytes) -> None:
    tensors.decode(pb.Tensor.FromString(data))


def sealed(data: bytes) -> None:
    """Under a sound checksum, or nothing of it would be read."""
    unseal(KEY, HEAD + zlib.crc32(data).to_bytes(4, "little") + data)


def request(data: bytes) -> None:
    message = pb.PredictRequest.FromString(data)
    want_from_proto(message.want)
    for one in message.instances:
        instance_from_proto(one, "instances[0]")


def answer(data: bytes) -> None:
    answer_from_proto(pb.Answer.FromString(data))


def json(data: bytes) -> None:
    PredictRequest.model_validate_json(data).question()


# What each reader may say of bytes that it cannot read.
ALLOWED = (DecodeError, TeacherError, tensors.TensorError, ValidationError)


def reading(codec: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        with contextlib.suppress(ALLOWED):
            codec(data)

    return read


if __name__ == "__main__":
    codecs = {codec.__name__: codec for codec in (tensor, sealed, request, answer, json)}
    atheris.Setup([sys.argv[0], *sys.argv[2:]], reading(codecs[sys.argv[1]]))
    atheris.Fuzz()
