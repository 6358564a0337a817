"""The temperature that makes a student as sure as its teacher is."""

import pytest
import torch

from student_trainer.dynamics.calibration import TEMPERATURES, fitting_temperature
from student_trainer.dynamics.uncertainty import entropy


@pytest.mark.parametrize("times", [0.25, 1.0, 4.0])
def test_it_undoes_what_made_the_student_too_sure(times: float) -> None:
    teacher = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    found = fitting_temperature(times * teacher, teacher.softmax(-1))
    assert found == pytest.approx(times, rel=0.06)  # the grid's steps


def test_by_hand() -> None:
    """Right three times of four while as good as certain: the best is ln 3 of odds, 10 / ln 3 = 9.1."""
    logits = torch.tensor([[10.0, 0.0]]).repeat(4, 1)
    targets = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    assert fitting_temperature(logits, targets) == pytest.approx(
        10 / torch.tensor(3.0).log().item(), rel=0.06
    )


def test_of_nothing_it_is_one_and_it_keeps_to_its_bounds() -> None:
    assert fitting_temperature(torch.empty(0, 3), torch.empty(0, 3)) == 1
    wrong = fitting_temperature(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert wrong == TEMPERATURES.max()


def test_it_changes_which_of_three_classes_is_doubted_most() -> None:
    """Torn between two, or leaning to one of three: the sharper, the more the first is in doubt."""
    torn, leaning = torch.tensor([4.0, 4.0, -9.0]), torch.tensor([1.2, 0.0, 0.0])
    order = [entropy(torch.stack([torn, leaning]) / t).argmax().item() for t in (0.2, 1.0)]
    assert order == [0, 1]
