"""The general stage's losses: by hand, over padding that is NaN, and their layers."""

import pytest
import torch

from student_trainer.layers import pairs
from student_trainer.losses import attention_loss, token_loss

NAN = float("nan")


def test_token_loss_by_hand() -> None:
    """Two instances of two layers; of the second instance the last token is padding."""
    student = torch.zeros(2, 2, 2, 2)
    teacher = torch.tensor(
        [
            [[[1.0, 1.0], [0.0, 2.0]], [[2.0, 0.0], [0.0, 0.0]]],  # 6 / 4 + 4 / 4
            [[[3.0, 1.0], [NAN, NAN]], [[0.0, 1.0], [9.0, 9.0]]],  # 10 / 2 + 1 / 2
        ]
    )
    mask = torch.tensor([[True, True], [True, False]])
    assert token_loss(student, teacher, mask).tolist() == pytest.approx([2.5, 5.5])


def test_attention_loss_by_hand() -> None:
    """One layer of two heads; each pair of real tokens counts, no other does."""
    student = torch.zeros(1, 1, 2, 3, 3)
    student[..., 2, :] = student[..., :, 2] = NAN
    teacher = torch.ones(1, 1, 2, 3, 3) * torch.tensor([1.0, 3.0])[:, None, None]
    mask = torch.tensor([[True, True, False]])
    assert attention_loss(student, teacher, mask).tolist() == pytest.approx([(4 * 1 + 4 * 9) / 8])


def test_padding_gives_no_gradient() -> None:
    student = torch.randn(1, 1, 3, 4, requires_grad=True)
    token_loss(student, torch.zeros(1, 1, 3, 4), torch.tensor([[True, True, False]])).sum().backward()
    assert torch.isfinite(student.grad).all()
    assert (student.grad[0, 0, :2] != 0).all()
    assert (student.grad[0, 0, 2] == 0).all()


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 4\) of the student and \(1, 1, 2, 1\)"):
        token_loss(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 1), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("teacher", "student", "matched"),
    [
        (12, 4, [(0, 0), (3, 1), (6, 2), (9, 3), (12, 4)]),  # TinyBERT-4 of BERT-base
        (3, 2, [(0, 0), (2, 1), (3, 2)]),
        (2, 1, [(0, 0), (2, 1)]),
    ],
)
def test_uniform_layers_reach_from_the_embeddings_to_the_last(
    teacher: int, student: int, matched: list[tuple[int, int]]
) -> None:
    assert pairs("uniform", teacher, student) == matched
