"""Whatever may arrive: strategies for hypothesis, and the faces that they are sent to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from processes import ServerProcess

from teacher_api.v1 import teacher_pb2 as pb

Code = grpc.StatusCode
REFUSALS = (Code.OK, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
STATUSES = (200, 412, 422, 504)

quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class RawGrpc:
    """Predict with whatever bytes."""

    def __init__(self, server: ServerProcess) -> None:
        self.channel = grpc.insecure_channel(server.grpc)
        self.predict = self.channel.unary_unary("/teacher_api.v1.TeacherService/Predict")

    def code(self, data: bytes) -> grpc.StatusCode:
        try:
            self.predict(data, timeout=20)
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            return error.code()
        return Code.OK


# ---- protobuf ----

PLAIN = pb.PredictRequest(instances=[pb.Instance(text="a"), pb.Instance(text="b")], want=pb.Want(logits=True))

tokens = st.builds(
    pb.TokenIds,
    ids=st.lists(st.integers(0, 2**32 - 1), max_size=3),
    type_ids=st.lists(st.integers(0, 2**32 - 1), max_size=3),
)
text = st.text(max_size=8)
instances = st.one_of(
    st.builds(pb.Instance, text=text, text_pair=st.none() | text),
    st.builds(pb.Instance, text=text, tokens=tokens),
)
wants = st.builds(
    pb.Want,
    logits=st.booleans(),
    layers=st.lists(st.integers(0, 5) | st.integers(0, 2**32 - 1), max_size=3),
    pooling=st.integers(0, 9),
    hidden_dtype=st.integers(0, 9),
)


def mutated(cut: int, at: int, put: bytes) -> bytes:
    data = PLAIN.SerializeToString()[: 40 - cut or None]
    return data[:at] + put + data[at + 1 :]


mutations = st.builds(mutated, st.integers(0, 40), st.integers(0, 40), st.binary(max_size=6))


def request_bytes(vocabulary_hash: str) -> st.SearchStrategy[bytes]:
    """Well-formed requests, sensible or not; half of them know the vocabulary."""
    requests = st.builds(
        pb.PredictRequest,
        instances=st.lists(instances, max_size=3),
        want=st.none() | wants,
        vocabulary_hash=st.sampled_from(["", vocabulary_hash]),
    )
    return requests.map(pb.PredictRequest.SerializeToString)


# ---- JSON ----

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def nearly(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of these names, each present or not, its value as it should be or anything."""
    return st.fixed_dictionaries({}, optional={name: value | any_json for name, value in fields.items()})


ids = st.lists(st.integers(0, 2**32 - 1), max_size=3)
json_instances = nearly(text=st.text(), text_pair=st.text(), token_ids=ids, type_ids=ids)
json_wants = nearly(
    logits=st.booleans(),
    layers=st.lists(st.integers(0, 3), max_size=2),
    pooling=st.sampled_from(["cls", "mean", "none"]),
    hidden_dtype=st.sampled_from(["float32", "float16"]),
)
bodies = nearly(
    instances=st.lists(json_instances, max_size=3),
    want=json_wants,
    fingerprint=st.just(""),
    vocabulary_hash=st.text(),
    encoding=st.sampled_from(["list", "base64"]),
    timeout_ms=st.integers(0, 20_000),
)


# ---- OpenAPI ----


def explored(server: ServerProcess, examples: int, folder: Path) -> int:
    """Runs schemathesis on every route of the server's own OpenAPI; returns how many cases it tried."""
    report = folder / "report.json"
    command = [
        *("-m", "schemathesis.cli", "--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
        *("run", f"{server.url}/openapi.json", "--max-examples", str(examples), "--seed", "1"),
        *("--phases", "examples,coverage,fuzzing", "--checks", "all", "--continue-on-failure"),
        # A sensible request may be refused for what no schema says: another fingerprint, a layer too many.
        *("--exclude-checks", "positive_data_acceptance"),
        *("--report", "json", "--report-json-path", str(report)),
    ]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    cases: int = json.loads(report.read_text())["test_cases"]["generated"]
    return cases
