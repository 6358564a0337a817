"""Each RPC of the service is a method of every transport, and a path over HTTP."""

import inspect

import pytest

from student_trainer.teachers import Teacher, in_process, over_grpc, over_http
from teacher_api.v1 import teacher_pb2 as pb

METHODS = pb.DESCRIPTOR.services_by_name["TeacherService"].methods
RPCS = [method.name for method in METHODS if not method.server_streaming]  # a stream is another way to ask
TRANSPORTS = [over_grpc.GrpcTeacher, over_http.HttpTeacher, in_process.InProcessTeacher]


def method_of(rpc: str) -> str:
    return rpc.removeprefix("Get").lower()


@pytest.mark.parametrize("transport", [Teacher, *TRANSPORTS], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("rpc", RPCS)
def test_each_rpc_has_a_wrapper(rpc, transport):
    wrapper = getattr(transport, method_of(rpc))
    assert inspect.iscoroutinefunction(wrapper)
    assert inspect.signature(wrapper) == inspect.signature(getattr(Teacher, method_of(rpc)))


@pytest.mark.parametrize("rpc", RPCS)
def test_each_rpc_is_called_over_grpc_and_has_its_path(rpc):
    assert f"_stub.{rpc}(" in inspect.getsource(getattr(over_grpc.GrpcTeacher, method_of(rpc)))
    assert f'"/v1/{method_of(rpc)}"' in inspect.getsource(getattr(over_http.HttpTeacher, method_of(rpc)))
