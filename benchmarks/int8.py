"""How far int8 (or another dtype) answers from float32: a real teacher on its own data.

    python benchmarks/int8.py --model TEACHER_FOLDER --data FOLDER [--split test] [--dtypes int8 bfloat16]

For each dtype: how often it names the same class, KL(float32 || other) in nats, mean and largest, the
largest difference of a logit, and accuracy on the labels. The teacher is one that `student-trainer
finetune` made of the same data.
"""

import argparse
import json
import os

os.environ["HF_HUB_OFFLINE"] = os.environ["TQDM_DISABLE"] = "1"

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from student_trainer.data import DataSettings, Rows, load
from teacher_api.messages import Want
from teacher_server.model import Model

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the teacher")
    parser.add_argument("--data", required=True, help="folder, or hub name, of the data")
    parser.add_argument("--split", default="test", help="whose rows are asked")
    parser.add_argument("--dtypes", nargs="+", default=["int8"], help="besides float32")
    options = parser.parse_args()
    rows = load(DataSettings(data=options.data, validation_split=options.split)).validation
    exact = logits(options.model, "float32", rows)
    print(json.dumps({"dtype": "float32", "rows": len(rows), "accuracy": accuracy(exact, rows)}))
    for dtype in options.dtypes:
        print(json.dumps(compared(exact, logits(options.model, dtype, rows), rows) | {"dtype": dtype}))


def logits(model: str, dtype: str, rows: Rows) -> Tensor:
    """[rows, classes]."""
    teacher = Model.load(model, device="cpu", dtype=dtype)  # type: ignore[arg-type]  # it checks itself
    answers = []
    for start in range(0, len(rows), BATCH):
        encoded = teacher.encode(list(rows.instances[start : start + BATCH]))
        answers += teacher.run(encoded, [Want()] * len(encoded))
    return torch.stack([torch.from_numpy(answer.logits) for answer in answers])


def compared(exact: Tensor, other: Tensor, rows: Rows) -> dict[str, float | None]:
    log_p, log_q = exact.double().log_softmax(-1), other.double().log_softmax(-1)
    divergence = kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return {
        "same_class": round((exact.argmax(-1) == other.argmax(-1)).double().mean().item(), 4),
        "kl_mean": round(divergence.mean().item(), 6),
        "kl_largest": round(divergence.max().item(), 5),
        "logit_largest": round((exact - other).abs().max().item(), 4),
        "accuracy": accuracy(other, rows),
    }


def accuracy(scores: Tensor, rows: Rows) -> float | None:
    if rows.labels is None:
        return None
    return round((scores.argmax(-1) == torch.tensor(rows.labels)).double().mean().item(), 4)


if __name__ == "__main__":
    main()
