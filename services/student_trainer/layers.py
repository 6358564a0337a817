"""Which of the teacher's layers teaches which of the student's (§3.3), and a map where their widths differ.

Layers are numbered as in the contract: 0 is the embeddings, L the last layer's output.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from student_trainer.errors import UserError

SCHEMES = ("skip", "last", "uniform")
_PAIR = re.compile(r"\s*([0-9]{1,4})\s*:\s*([0-9]{1,4})\s*")


def pairs(layer_map: str | Sequence[str], teacher_layers: int, student_layers: int) -> list[tuple[int, int]]:
    """Matched layers, (teacher's, student's), of a teacher with T layers and a student with S.

    Args:
        layer_map: `skip`, every (T/S)-th layer of the teacher, half rounded up (12 and 6: 2, 4, 6, 8, 10
            with 1 to 5); `last`, its last ones but the very last (7 to 11); `uniform`, as `skip`, and the
            embeddings and the last layer as well (TinyBERT); or "teacher:student" pairs, "2:1,4:2" or a
            list of them. `skip` and `last` leave out the student's last layer, as BERT-PKD does: it learns
            from the teacher's predictions already.
        teacher_layers: T.
        student_layers: S.

    Raises:
        UserError: a layer that is not there, a student's layer named twice, something else than pairs, or
            a scheme that does not fit T and S.
    """
    if layer_map not in SCHEMES:
        return _explicit(layer_map, teacher_layers, student_layers)
    if student_layers < 2 and layer_map != "uniform":
        raise UserError(
            f"layer_map: {layer_map!r} leaves out the student's last layer, and it has no other; "
            'name a pair, such as "1:1", or choose supervision none'
        )
    if teacher_layers < student_layers:
        raise UserError(
            f"layer_map: {layer_map!r} needs a teacher at least as deep as the student, not {teacher_layers} "
            f'layers for {student_layers}; name the pairs, such as "1:1"'
        )
    matched = range(student_layers + 1) if layer_map == "uniform" else range(1, student_layers)
    if layer_map == "last":
        return [(teacher_layers - student_layers + layer, layer) for layer in matched]
    return [
        ((2 * layer * teacher_layers + student_layers) // (2 * student_layers), layer) for layer in matched
    ]


def _explicit(
    layer_map: str | Sequence[str], teacher_layers: int, student_layers: int
) -> list[tuple[int, int]]:
    found = named_pairs(layer_map)
    if not found:
        raise UserError('layer_map: no pair is named; give skip, last, uniform, or pairs such as "2:1,4:2"')
    for pair in found:
        _refuse_beyond(pair, teacher_layers, student_layers)
    students = [student for _, student in found]
    for layer in students:
        if students.count(layer) > 1:
            raise UserError(
                f"layer_map: student layer {layer} is named twice; match it with one teacher layer"
            )
    return found


def named_pairs(layer_map: str | Sequence[str]) -> list[tuple[int, int]]:
    """The pairs that a map names itself, (teacher's, student's); none of a scheme. Raises UserError for
    anything else."""
    if layer_map in SCHEMES:
        return []
    return [_pair(item) for item in (layer_map.split(",") if isinstance(layer_map, str) else layer_map)]


def _pair(item: str) -> tuple[int, int]:
    parts = _PAIR.fullmatch(item)
    if not parts:
        raise UserError(
            f'layer_map: {item!r} is no pair; give skip, last, uniform, or teacher:student, as in "2:1,4:2"'
        )
    return int(parts[1]), int(parts[2])


def _refuse_beyond(pair: tuple[int, int], teacher_layers: int, student_layers: int) -> None:
    teacher, student = pair
    for owner, layer, layers in (("teacher", teacher, teacher_layers), ("student", student, student_layers)):
        if layer > layers:
            item = f"{teacher}:{student}"
            raise UserError(f"layer_map: {item!r} names layer {layer} of the {owner}; it has 0 to {layers}")


class Projection(nn.Module):
    """A linear map for each pair, from the student's width to the teacher's; nothing where they are equal.

    It is trained with the student, and is no part of it: the student is saved without it.

    Args:
        pairs: L, the number of matched layers.
        student_width: h_s.
        teacher_width: h_t.
        seed: of the first weights; the global generator is left as it was.
    """

    def __init__(self, pairs: int, student_width: int, teacher_width: int, seed: int) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = None  # [L, h_t, h_s]
        self.bias: nn.Parameter | None = None  # [L, h_t]
        if student_width != teacher_width:
            bound = student_width**-0.5  # that of torch.nn.Linear
            generator = torch.Generator().manual_seed(seed)
            weight = torch.empty(pairs, teacher_width, student_width)
            self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator))
            self.bias = nn.Parameter(torch.zeros(pairs, teacher_width))

    def forward(self, states: Tensor) -> Tensor:
        """The student's states of the matched layers, in the teacher's width: [n, L, h_s] -> [n, L, h_t]."""
        if self.weight is None or self.bias is None:
            return states
        return torch.einsum("nls,lts->nlt", states.to(self.weight.dtype), self.weight) + self.bias
