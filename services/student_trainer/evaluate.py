"""How good a model is on labelled rows: accuracy, F1, Matthews correlation."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef  # type: ignore[import-untyped]
from transformers import BatchEncoding, PreTrainedTokenizerBase

from student_trainer.data import Rows, collate
from student_trainer.errors import DivergedError
from teacher_api.messages import Instance, Pooling


def evaluate(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    max_length: int,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """`metrics` of a model on rows that all have a label; the model's modes stay as they were.

    Raises ValueError if a row has no label, DivergedError if a logit is not finite.
    """
    if rows.labels is None or min(rows.labels, default=-1) < 0:
        raise ValueError("only rows that all have a label can be evaluated")
    logits = predict(model, tokenizer, rows.instances, max_length, batch_size, device)
    return metrics(logits, torch.tensor(rows.labels))


def predict(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    instances: Sequence[Instance],
    max_length: int,
    batch_size: int,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Logits float32 [instances, classes] on the CPU, no gradient or dropout, in the order of instances."""
    return _by_length(
        lambda batch: model(**batch).logits,
        model,
        tokenizer,
        instances,
        max_length,
        batch_size,
        device,
    )


def vectors(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    instances: Sequence[Instance],
    max_length: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    pooling: Pooling = "cls",
) -> torch.Tensor:
    """Pooled last hidden states float32 [instances, hidden]; for the rest as `predict`."""

    def last(batch: BatchEncoding) -> torch.Tensor:
        return pooled(model(**batch, output_hidden_states=True).hidden_states[-1], batch, pooling)

    return _by_length(last, model, tokenizer, instances, max_length, batch_size, device)


def pooled(states: torch.Tensor, batch: BatchEncoding, pooling: Pooling) -> torch.Tensor:
    """As teachers pool: the first token's state, or the mean over all tokens but padding. -> [n, h]."""
    if pooling == "cls":
        return states[:, 0]
    mask: torch.Tensor = batch["attention_mask"][..., None].to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)


def _by_length(
    read: Callable[[BatchEncoding], torch.Tensor],
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    instances: Sequence[Instance],
    max_length: int,
    batch_size: int,
    device: torch.device | str,
) -> torch.Tensor:
    """What is read of each batch, [instances, …] in their order.

    Batches are formed by length, longest first: little is padded, and what does not fit fails at once.
    """
    lengths = [instance.characters for instance in instances]
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    with torch.inference_mode(), _eval_mode(model):
        batches = [
            read(collate(tokenizer, [instances[i] for i in chosen], max_length, device)).float().cpu()
            for chosen in (by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size))
        ]
    return torch.cat(batches)[torch.tensor(by_length).argsort()]


def metrics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Metrics of predictions by the largest logit.

    Args:
        logits: [rows, classes].
        labels: class ids [rows].

    Returns:
        accuracy; f1: of class 1 if there are two classes, else the mean over the classes that occur (macro);
        matthews: correlation, CoLA's metric, 0 for constant predictions.

    Raises DivergedError if a logit is not finite: a largest one would be found all the same.
    """
    if not logits.isfinite().all():
        raise DivergedError
    predicted, true = logits.argmax(-1).tolist(), labels.tolist()
    average = "binary" if logits.shape[-1] == 2 else "macro"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A single label was found")  # as in few rows it may be
        return {
            "accuracy": float(accuracy_score(true, predicted)),
            "f1": float(f1_score(true, predicted, average=average, zero_division=0)),
            "matthews": float(matthews_corrcoef(true, predicted)),
        }


@contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Every module in eval mode, then each in the mode that it was in: a frozen part stays frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
