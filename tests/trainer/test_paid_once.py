"""What was answered once is not paid for again: by the same trainer, another one, or another server."""

from pathlib import Path

from processes import RedisProcess, StartServer
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, train, usage, weights_of


def test_a_second_run_charges_nothing(command, by_entropy: Path, server) -> None:
    """In the same folder of answers: not a question leaves it."""
    before = usage(server)
    first, second = result_of(by_entropy / "run"), train(by_entropy, *command(output="again"))
    assert second["questions"]["charged"] == second["questions"]["checked"] == 0
    assert second["questions"]["kept"] == first["questions"]["asked"]
    assert second["questions"]["distinct"] == first["questions"]["distinct"]
    assert usage(server) == before
    assert weights_of(by_entropy / "again") == weights_of(by_entropy / "run")
    assert second["scores"] == first["scores"]


def test_a_second_trainer_is_served_from_the_servers_cache(
    command, by_entropy: Path, new_server: StartServer, tmp_path: Path
) -> None:
    server = new_server(*ONE_TEXT_A_RUN)
    teacher = f"grpc://{server.grpc}"
    first = train(tmp_path, *command(teacher=teacher, output="first", answers="others.sqlite"))
    before = usage(server)["charged"]
    second = train(tmp_path, *command(teacher=teacher))
    assert second["questions"]["charged"] == second["questions"]["checked"] == 0
    assert second["questions"]["cached"] == first["questions"]["charged"]
    assert second["questions"]["kept"] == first["questions"]["kept"]
    assert usage(server)["charged"] == before
    assert weights_of(tmp_path / "run") == weights_of(by_entropy / "run")


def test_two_servers_share_a_redis_and_outlive_it(
    command,
    by_entropy: Path,
    at_random: Path,
    other_task: Path,
    new_server: StartServer,
    redis_server: RedisProcess,
    tmp_path: Path,
) -> None:
    one, other = (new_server(*ONE_TEXT_A_RUN, "--cache", redis_server.url) for _ in range(2))
    train(tmp_path, *command(teacher=f"grpc://{one.grpc}"))
    second = train(tmp_path, *command(teacher=f"grpc://{other.grpc}", answers="own.sqlite", output="second"))
    assert second["questions"]["charged"] == second["questions"]["checked"] == 0
    assert usage(other)["charged"] == 0
    assert weights_of(tmp_path / "second") == weights_of(by_entropy / "run")

    flags = command(teacher=f"grpc://{other.grpc}", strategy="random", data=other_task, output="third")
    third = Trainer(tmp_path, *flags)
    assert third.wait_for_steps(4)
    redis_server.kill()
    assert third.wait() == 0, third.log
    assert weights_of(tmp_path / "third") == weights_of(at_random / "run")
    assert ledger_of(tmp_path, "third") == ledger_of(at_random)
    assert usage(other)["charged"] == result_of(at_random / "run")["questions"]["charged"] + 12
