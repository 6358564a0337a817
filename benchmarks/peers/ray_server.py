"""Ray Serve with dynamic batching: python ray_server.py PORT"""

import contextlib
import sys
import time
from itertools import islice

import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=256)
class Served:
    def __init__(self) -> None:
        import torch
        from classifier import Classifier

        torch.set_num_threads(2)  # Ray gives an actor's process as many threads as CPUs it reserves
        self.classify = Classifier()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def batched(self, batch: list[list[str]]) -> list[list[list[float]]]:
        logits = iter(self.classify([text for texts in batch for text in texts]))
        return [list(islice(logits, len(texts))) for texts in batch]

    async def __call__(self, request: Request) -> dict[str, list[list[float]]]:
        return {"logits": await self.batched((await request.json())["texts"])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    for _ in range(4):  # it gives its proxy 60 s to start, which a busy machine may need twice
        with contextlib.suppress(TimeoutError):
            serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
            break
    serve.run(Served.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)
