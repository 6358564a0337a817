"""The error table is complete, and each error survives each wire."""

import pickle

import grpc
import pytest
from contract_values import ERRORS, told
from hypothesis import given

from teacher_api import errors
from teacher_api.errors import TABLE, TeacherError
from teacher_api.v1 import teacher_pb2 as pb

SHARING = {errors.BudgetSpentError}


def all_subclasses(kind):
    return {kind}.union(*map(all_subclasses, kind.__subclasses__()))


def test_the_table_is_complete():
    assert set(TABLE) == all_subclasses(TeacherError) - {TeacherError}


@pytest.mark.parametrize("column", ["code", "grpc_code", "http_status"])
def test_no_two_errors_share_a_code(column):
    """But for gRPC's one code for a queue and a budget: the error's name beside it tells them apart."""
    table = {kind: wire for kind, wire in TABLE.items() if column != "grpc_code" or kind not in SHARING}
    values = [getattr(kind if column == "code" else wire, column) for kind, wire in table.items()]
    assert all(values)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("wire", TABLE.values(), ids=[kind.code for kind in TABLE])
def test_codes_are_real_ones(wire):
    assert wire.grpc_code in grpc.StatusCode.__members__
    assert 400 <= wire.http_status <= 599


def test_the_tree_in_the_docstring_is_the_tree():
    names = {kind.__name__ for kind in all_subclasses(TeacherError)}
    drawn = {word for word in errors.__doc__.split() if word.endswith("Error")}
    assert names <= drawn


@given(ERRORS)
def test_errors_travel_by_proto(error):
    proto = pb.Error.FromString(errors.error_to_proto(error).SerializeToString())
    assert told(errors.error_from_proto(proto)) == told(error)


@given(ERRORS)
def test_errors_cross_processes(error):
    assert told(pickle.loads(pickle.dumps(error))) == told(error)


@pytest.mark.parametrize(("kind", "wire"), TABLE.items(), ids=[kind.code for kind in TABLE])
def test_bare_codes_give_the_same_class(kind, wire):
    bare = type(errors.error_from_grpc(wire.grpc_code, "m"))
    assert bare is (errors.OverloadedError if kind in SHARING else kind)
    assert type(errors.error_from_http(wire.http_status, "m")) is kind


def test_codes_of_others():
    assert type(errors.error_from_grpc("DATA_LOSS", "m")) is errors.InternalError
    assert type(errors.error_from_http(502, "Bad Gateway")) is errors.NotReadyError
    assert type(errors.error_from_http(418, "teapot")) is errors.InternalError
    assert type(errors.error_from_proto(pb.Error(code="of a newer server"))) is errors.InternalError


def test_no_text_of_the_inside_leaves():
    shown = errors.as_teacher_error(RuntimeError("/secret/path"))
    assert type(shown) is errors.InternalError
    assert "secret" not in str(shown)
    known = errors.NotReadyError("starting")
    assert errors.as_teacher_error(known) is known


def test_what_a_person_reads():
    error = errors.InvalidRequestError("too long", field="instances[3].text", value="x" * 100, limit=7)
    assert str(error) == f"too long (field instances[3].text, value {'x' * 79}…, limit 7)"
    assert str(errors.NotReadyError("starting")) == "starting"
