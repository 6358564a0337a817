"""§3.1 and §3.3 end to end: who is asked about what, hidden states on the wire, and a kill in the middle."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from processes import ServerProcess, start_server
from safetensors.torch import load
from tiny_task import TRAIN, VALIDATION, save_bert
from trainers import ONE_TEXT_A_RUN, Trainer, ledger_of, result_of, timeless, train, usage, weights_of

from student_trainer.config import DistillSettings
from student_trainer.tariffs import tariffs_of
from teacher_api.prices import PriceBookError, Tariff
from teacher_api.v1 import teacher_pb2 as pb

STEPS = TRAIN // 16 * 3
BOOK = """
as_of = 2026-01-01
source = "made up: one cent for each text of the large teacher, a tenth of one for each of the small"

[features.small]
unit_characters = 1000
tiers = [{ usd_per_1000 = 1 }]

[features.large]
unit_characters = 1000
tiers = [{ usd_per_1000 = 10 }]
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory):
    """A larger teacher: 4 layers of another width, that nobody has taught."""
    folder = tmp_path_factory.mktemp("wide")
    model = save_bert(folder / "model", seed=9, layers=4, hidden=48)
    running = start_server(model, folder / "log", *ONE_TEXT_A_RUN)
    yield running
    assert running.stop() == 0


@pytest.fixture
def both(server: ServerProcess, wide: ServerProcess) -> str:
    return f"grpc://{server.grpc},{wide.url}"


def shares(folder: Path, *servers: ServerProcess) -> list[int]:
    """Training questions of each teacher, by the run's ledger."""
    ledger = ledger_of(folder)
    return [sum(row[2] == one.fingerprint and row[0] >= 0 for row in ledger) for one in servers]


@pytest.mark.parametrize(
    ("case", "asked"),
    [
        ("hard random two_pass", [2, 2]),
        ("ensemble random random", [4, 4]),
        ("soft margin two_pass", [4, 4]),
        ("soft-batch all full", [16, 16]),
    ],
)
def test_each_teacher_is_asked_what_adoption_says(
    case: str, asked: list[int], command, server, wide, tmp_path: Path
) -> None:
    adoption, strategy, scheme = case.split()
    (tmp_path / "book.toml").write_text(BOOK)
    prices = ("--price-book", "book.toml", "--price-feature", "small,large", "--output", "run")
    teachers = f"grpc://{server.grpc},{wide.url}"
    result = train(tmp_path, *command(*prices, teacher=teachers, adoption=adoption, strategy=strategy))
    assert shares(tmp_path, server, wide) == [STEPS * count for count in asked]
    assert result["questions"]["asked"] == STEPS * sum(asked)
    assert result["scheme"] == scheme
    small, large = asked
    assert result["usd"]["selected"] == pytest.approx(STEPS * (small * 0.001 + large * 0.01))
    assert result["usd"]["full_cached"] == pytest.approx(TRAIN * 0.011)
    own = [(part["fingerprint"], part["tariff"], part["questions"]) for part in result["teachers"]]
    assert own == [
        (server.fingerprint, "book/small", STEPS * small),
        (wide.fingerprint, "book/large", STEPS * large),
    ]
    bills = [part["usd"] for part in result["teachers"]]
    assert bills == pytest.approx([STEPS * small * 0.001, STEPS * large * 0.01])
    assert sum(part["distinct"] for part in result["teachers"]) == result["questions"]["distinct"]
    assert sum(part["charged"] for part in result["teachers"]) == result["questions"]["charged"]
    log = " ".join((tmp_path / "log").read_text().split())
    assert f"teacher 2, model: {STEPS * large} questions, " in log and "(book/large)" in log


def test_two_books_of_one_name_are_refused_if_they_differ(tmp_path: Path) -> None:
    """A copy is the same seller's: tiers and free units are counted over both."""

    def tariffs(*folders: str) -> list[Tariff]:
        books = [str(tmp_path / folder / "prices.toml") for folder in folders]
        teachers, features = ["local:small", "local:large"], ["large"]
        given = {"data": "d", "student": "s", "output": tmp_path, "teacher": teachers, "adoption": "hard"}
        return tariffs_of(DistillSettings(**given, price_book=books, price_feature=features))

    for folder, dollars in (("cheap", 10), ("copy", 10), ("dear", 20)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "prices.toml").write_text(BOOK.replace("= 10 ", f"= {dollars} "))
    one, other = tariffs("cheap", "copy")
    assert one == other
    with pytest.raises(
        PriceBookError, match="price_book: two books that differ have a tariff 'prices/large'"
    ):
        tariffs("cheap", "dear")
    with pytest.raises(PriceBookError, match=r"price_book: .*: no such price book"):
        tariffs("cheap", "nowhere")


def test_a_cache_makes_no_pass_dearer_that_sees_a_part_of_the_rows(
    command, both: str, tmp_path: Path
) -> None:
    (tmp_path / "book.toml").write_text(BOOK)
    prices = ("--price-book", "book.toml", "--price-feature", "small")
    usd = train(tmp_path, *command(*prices, teacher=both, adoption="hard", epochs=0.5))["usd"]
    assert usd["full"] == usd["full_cached"] == pytest.approx(0.5 * TRAIN * 2 * 0.001)


def test_the_larger_named_first_is_warned_of(command, server, wide, tmp_path: Path) -> None:
    def warned(output: str, *teachers: str) -> bool:
        train(tmp_path, *command(teacher=",".join(teachers), adoption="hard", epochs=0.1, output=output))
        return "as the smaller one" in " ".join((tmp_path / "log").read_text().split())

    small = f"grpc://{server.grpc}"
    assert not warned("in-order", small, wide.url)
    assert warned("swapped", wide.url, small)


def test_the_check_of_a_teacher_pays_for_no_hidden_states(command, server, wide, tmp_path: Path) -> None:
    """What a run without them has asked for it is kept for one with them, whose training asks anew."""
    train(tmp_path, *command(teacher=wide.url, epochs=0.1, output="plain"))
    train(tmp_path, *command("--supervision", "dynamic", teacher=wide.url, epochs=0.1))
    outcomes = [
        [{row[4] for row in ledger_of(tmp_path, output) if (row[0] < 0) == check} for check in (True, False)]
        for output in ("plain", "run")
    ]
    (plain_check, plain), (check, taught) = outcomes
    assert "kept" not in plain_check | plain | taught
    assert check == {"kept"}


def test_the_more_doubtful_half_asks_the_small_teacher(
    command, both: str, server, wide, tmp_path: Path
) -> None:
    """With a student that never changes, the halves of a batch are those of its entropies."""
    flags = command("--learning-rate", "1e-30", teacher=both, adoption="hard", ratio=0.5, epochs=0.5)
    train(tmp_path, *flags)
    ledger = ledger_of(tmp_path)
    for step in range(6):
        rows = [
            [row[1] for row in ledger if row[0] == step and row[2] == one.fingerprint]
            for one in (server, wide)
        ]
        assert [len(part) for part in rows] == [4, 4]
        assert not set(rows[0]) & set(rows[1])


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_hidden_states_of_another_width(pooling: str, command, wide, tmp_path: Path) -> None:
    """They come for the asked alone, teach the student something, and leave nothing of theirs in it."""
    plain = train(tmp_path, *command(teacher=wide.url, output="plain"))
    more = ("--supervision", "dynamic", "--hidden-dtype", "float16", "--pooling", pooling)
    taught = train(tmp_path, *command(*more, teacher=wide.url))
    assert taught["questions"]["asked"] == plain["questions"]["asked"]
    one, other = load(weights_of(tmp_path / "plain")), load(weights_of(tmp_path / "run"))
    assert one.keys() == other.keys()
    assert any(not weights.equal(other[name]) for name, weights in one.items())


def test_each_teachers_own_score_on_the_rows_that_it_was_checked_by(
    command, both: str, task: Path, finetuned: Path, server, wide, tmp_path: Path
) -> None:
    """Of all rows that is what fine-tuning measured; the wide one, whom nobody taught, is worse."""
    result = train(tmp_path, *command(teacher=both, adoption="ensemble", epochs=0.1, check_rows=VALIDATION))
    small, large = result["teachers"]
    assert small["check_rows"] == large["check_rows"] == VALIDATION
    assert small["check_scores"] == pytest.approx(result_of(finetuned)["scores"])
    assert large["check_scores"]["accuracy"] < small["check_scores"]["accuracy"]
    own = f"itself has accuracy {100 * small['check_scores']['accuracy']:.1f} on {VALIDATION} validation rows"
    assert f"teacher 1, {small['name']}, {own}" in " ".join((tmp_path / "log").read_text().split())
    again = train(tmp_path, *command(teacher=wide.url, epochs=0.1, check_rows=0, output="unchecked"))
    assert (again["teachers"][0]["check_rows"], again["teachers"][0]["check_scores"]) == (0, {})


def test_each_teacher_is_asked_for_the_layers_of_its_own_map(
    command, both, server, wide, tmp_path: Path
) -> None:
    """The small teacher has three layers, the wide one four: no pair that names layer 4 would fit both."""
    flags = command(teacher=both, adoption="ensemble", supervision="static", epochs=0.1)
    train(tmp_path, *flags, "--layer-map", "3:1;1:1,4:2")
    with closing(sqlite3.connect(tmp_path / "answers.sqlite")) as database:
        wants = database.execute("SELECT teacher, want FROM wants").fetchall()
    layers = {(teacher, tuple(pb.Want.FromString(want).layers)) for teacher, want in wants}
    small, large = server.fingerprint, wide.fingerprint
    assert layers == {(small, ()), (small, (3,)), (large, ()), (large, (1, 4))}


def test_all_three_at_once_are_killed_and_go_on(command, both: str, server, wide, tmp_path: Path) -> None:
    """Selection, adoption and supervision in one run; weights, projections and ledger as if unbroken."""
    flags = command(
        "--checkpoint-steps",
        4,
        "--resume",
        teacher=both,
        adoption="hard",
        supervision="dynamic",
        layer_map="3:1",
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    unbroken = train(whole, *flags, "--output", "run")
    before = usage(server)["charged"], usage(wide)["charged"]
    for steps in (6, 9):
        trainer = Trainer(broken, *flags)
        assert trainer.wait_for_steps(steps)
        assert trainer.kill() == -signal.SIGKILL
    last = Trainer(broken, *flags)
    assert last.wait() == 0, last.log
    assert weights_of(broken / "run") == weights_of(whole / "run")
    assert [row[:4] for row in ledger_of(broken)] == [row[:4] for row in ledger_of(whole)]
    assert timeless(result_of(broken / "run"))["scores"] == unbroken["scores"]
    assert (usage(server)["charged"], usage(wide)["charged"]) == before  # of the servers' caches


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--adoption", "hard"), ["adoption: ", "hard", "two teachers or more, not 1"]),
        (("--teacher", "local:b"), ["adoption: ", "single", "not 2"]),
        (
            ("--teacher", "local:b", "--adoption", "soft", "--teacher-labels", "x,y"),
            ["teacher_labels: "],
        ),
        (("--price-book", "a,b"), ["price_book: 2 are named for 1 teachers"]),
        (("--supervision", "static", "--layer-map", "9:1"), ["layer_map: ", "'9:1'", "0 to 3"]),
        (("--supervision", "static", "--layer-map", "1:5"), ["layer_map: ", "'1:5'", "0 to 2"]),
        (("--supervision", "static", "--layer-map", "first"), ["layer_map: ", "'first'", "teacher:student"]),
        (("--supervision", "static", "--student-layers", "1"), ["layer_map: ", "no other"]),
        (("--layer-map", "3:1;1:1"), ["layer_map: 2 are named for 1 teachers"]),
        (
            ("--teacher", "local:b", "--adoption", "soft", "--layer-map", "3:1;first"),
            ["layer_map: ", "'first' is no pair"],
        ),
        (("--supervision", "sometimes"), ["supervision: ", "'dynamic'", "(it is 'sometimes')"]),
    ],
)
def test_what_does_not_fit_is_refused(
    flags: tuple[str, ...], says: list[str], command, server, tmp_path: Path
) -> None:
    before = usage(server)
    trainer = Trainer(tmp_path, *command(*flags))
    assert trainer.wait() == 2, trainer.log
    assert all(part in trainer.log for part in says), trainer.log
    assert usage(server) == before
    assert not (tmp_path / "run").exists()
