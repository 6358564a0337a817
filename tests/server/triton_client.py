"""NVIDIA's client, unmodified, in a process of its own: it and the server's code describe the same protobuf
package, which one process can know once only.

    python triton_client.py GRPC_ADDRESS HTTP_ADDRESS

Each line of stdin is a call, a JSON object; each line of stdout its result, or {"error", "status"}.
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

MODULES = {"grpc": tritonclient.grpc, "http": tritonclient.http}


def infer(kind: str, client: Any, call: dict[str, Any]) -> dict[str, Any]:
    module, more, inputs = MODULES[kind], {}, []
    for name in call["texts"]:
        array = np.array([text.encode() for text in call["texts"][name]], np.object_)
        tensor = module.InferInput(name, list(array.shape), "BYTES")
        inputs.append(tensor.set_data_from_numpy(array, **(call["input_options"] if kind == "http" else {})))
    if call["outputs"]:
        options = {name: value for name, value in call["output_options"].items() if _known(kind, name)}
        more["outputs"] = [module.InferRequestedOutput(name, **options) for name in call["outputs"]]
    result = client.infer(call["model"], inputs, parameters=call["parameters"], **more, **call["more"])
    if kind == "grpc":
        response = result.get_response(as_json=True)
        parameters = {name: int(one["int64_param"]) for name, one in response["parameters"].items()}
        version = response["model_version"]
    else:
        response = result.get_response()
        parameters, version = response["parameters"], response["model_version"]
    arrays = {one["name"]: result.as_numpy(one["name"]) for one in response["outputs"]}
    tensors = {name: {"dtype": str(array.dtype), "values": array.tolist()} for name, array in arrays.items()}
    return {"tensors": tensors, "parameters": parameters, "version": version, "id": response.get("id", "")}


def _known(kind: str, option: str) -> bool:
    return kind == "http" or option != "binary_data"


def main() -> None:
    addresses = dict(zip(MODULES, sys.argv[1:], strict=True))
    clients = {kind: MODULES[kind].InferenceServerClient(address) for kind, address in addresses.items()}
    for line in sys.stdin:
        call = json.loads(line)
        client = clients[call["kind"]]
        try:
            if call["method"] == "infer":
                result = infer(call["kind"], client, call)
            else:
                as_json = {"as_json": True} if call["kind"] == "grpc" and "metadata" in call["method"] else {}
                result = getattr(client, call["method"])(*call["arguments"], **as_json)
        except InferenceServerException as error:
            result = {"error": error.message(), "status": error.status()}
        print(json.dumps(result), flush=True)


main()
