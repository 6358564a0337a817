"""A server that is killed costs a pause; one that comes back as another teacher ends the questions."""

import asyncio
from functools import partial

import numpy as np
from processes import free_port

from student_trainer.teachers.client import Client, Patience
from teacher_api.errors import FingerprintMismatchError
from teacher_api.messages import Instance, Want

TEXTS = [Instance(f"a question that is asked while the server dies, number {n}") for n in range(2000)]
PARTS = [TEXTS[start : start + 100] for start in range(0, len(TEXTS), 100)]
WHOLE = Want(layers=(1,), pooling="none")  # over gRPC, that is a stream


async def test_a_killed_server_costs_a_pause_and_another_teacher_is_refused(new_server):
    ports = {"grpc": free_port(), "http": free_port()}
    flags = [f"--{face}-port={port}" for face, port in ports.items()]
    start = partial(asyncio.to_thread, new_server, *flags, free_ports=False)
    urls = [f"{face}://127.0.0.1:{port}" for face, port in ports.items()]

    running = await start()
    clients = [await Client.connect(url, patience=Patience(seconds=60)) for url in urls]
    asked = [asyncio.create_task(client.ask(part, Want())) for client in clients for part in PARTS]
    streamed = asyncio.create_task(clients[0].ask(TEXTS[:100], WHOLE))
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    running.kill()
    assert not all(task.done() for task in asked)
    running = await start()
    answers = [answer for part in await asyncio.gather(*asked) for answer in part]
    assert [answer.error for answer in answers if answer.error] == []
    assert [answer.error for answer in await streamed if answer.error] == []
    over_grpc, over_http = answers[: len(TEXTS)], answers[len(TEXTS) :]
    for one, other in zip(over_grpc, over_http, strict=True):
        np.testing.assert_allclose(one.outputs.logits, other.outputs.logits, rtol=0, atol=1e-6)

    assert running.stop() == 0
    await start("--max-length=64")  # truncates elsewhere: another teacher
    for client in clients:
        answers = await client.ask(TEXTS[:300], Want())
        assert all(isinstance(answer.error, FingerprintMismatchError) for answer in answers)
        assert (await client.usage()).asked == 0
        await client.close()
