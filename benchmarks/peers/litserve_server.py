"""LitServe with dynamic batching: python litserve_server.py PORT"""

import sys
from itertools import islice

import litserve
from classifier import Classifier


class Served(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.classify = Classifier()

    def decode_request(self, request: dict[str, list[str]]) -> list[str]:
        return request["texts"]

    def batch(self, inputs: list[list[str]]) -> list[list[str]]:
        return inputs

    def predict(self, batch: list[list[str]]) -> list[list[list[float]]]:
        logits = iter(self.classify([text for texts in batch for text in texts]))
        return [list(islice(logits, len(texts))) for texts in batch]

    def unbatch(self, output: list[list[list[float]]]) -> list[list[list[float]]]:
        return output

    def encode_response(self, output: list[list[float]]) -> dict[str, list[list[float]]]:
        return {"logits": output}


if __name__ == "__main__":
    api = Served(max_batch_size=32, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
