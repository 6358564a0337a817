"""kill -9 of the teacher's server in the middle of a run: the run waits for it, and loses nothing."""

from pathlib import Path

import pytest
from processes import StartServer, free_port
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, usage, weights_of


@pytest.mark.parametrize("strategy", ["entropy", "random"])
def test_a_server_that_comes_back_is_gone_on_with(
    strategy: str, command, request, task: Path, other_task: Path, new_server: StartServer, tmp_path: Path
) -> None:
    whole: Path = request.getfixturevalue("by_entropy" if strategy == "entropy" else "at_random")
    flags = (*ONE_TEXT_A_RUN, "--grpc-port", str(free_port()), "--http-port", "0")
    server = new_server(*flags, free_ports=False)
    data = task if strategy == "entropy" else other_task
    trainer = Trainer(tmp_path, *command(strategy=strategy, data=data, teacher=f"grpc://{server.grpc}"))
    assert trainer.wait_for_steps(5)
    before = usage(server)["charged"]
    server.kill()
    again = new_server(*flags, free_ports=False)
    assert trainer.wait() == 0, trainer.log
    assert weights_of(tmp_path / "run") == weights_of(whole / "run")
    assert ledger_of(tmp_path) == ledger_of(whole)
    charged = result_of(whole / "run")["questions"]["charged"] + 12
    # What the first server answered is not asked again, but for what it took with it on its way.
    assert 0 < usage(again)["charged"] <= charged - before
