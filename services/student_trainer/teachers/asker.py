"""The way of a question: kept, shared, granted, asked; and its account.

A question passes four sieves, each counted in the ledger: not chosen (the loop's), answered before,
identical to another one, and only then granted and asked. Nothing that was paid is lost: answers,
their ledger rows and the end of their reservations are one transaction.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from student_trainer.costs.budget import Budget, Grant
from student_trainer.costs.database import transaction
from student_trainer.costs.ledger import Entry, Ledger, Outcome, Question
from student_trainer.teachers.store import Kept, Store
from teacher_api.errors import (
    BudgetSpentError,
    CancelledError,
    FingerprintMismatchError,
    InternalError,
    InvalidRequestError,
    PermissionDeniedError,
    TeacherError,
    UnauthenticatedError,
)
from teacher_api.messages import Answer, Description, Instance, Outputs, Want

# Errors after which it is certain that nothing was charged; after any other the reservation stands.
_NOTHING_RAN = (
    InvalidRequestError,
    FingerprintMismatchError,
    UnauthenticatedError,
    PermissionDeniedError,
    BudgetSpentError,
)
_INTERRUPTED = Answer(error=CancelledError("the question was given up before its answer came"))


class Answering(Protocol):
    """Any number of questions to one teacher, each with its answer or its error: client.Client."""

    description: Description

    async def ask(self, instances: Sequence[Instance], want: Want, operation: str = "") -> list[Answer]: ...


@dataclass
class _Ask:
    """One call of `Asker.ask`, by content key: the rows that share a question, and what became of it."""

    step: int
    questions: dict[bytes, list[Question]]
    instances: dict[bytes, Instance]
    answers: dict[bytes, Answer | None] = field(default_factory=dict)  # None: the budget is spent

    @classmethod
    def of(
        cls, step: int, rows: Sequence[int], keys: Sequence[bytes], instances: Sequence[Instance]
    ) -> "_Ask":
        questions: dict[bytes, list[Question]] = {}
        for row, key, instance in zip(rows, keys, instances, strict=True):
            questions.setdefault(key, []).append(Question(row, key, instance.characters))
        return cls(step, questions, dict(zip(keys, instances, strict=True)))


class Asker:
    """Asks one teacher on behalf of one run. All of it belongs to one event loop."""

    def __init__(
        self,
        client: Answering,
        want: Want,
        *,
        store: Store,
        ledger: Ledger,
        budget: Budget,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client, self._want = client, want
        self._store, self._ledger, self._budget, self._now = store, ledger, budget, now
        self._kept = Kept(store, client.description, want)
        self._pending: dict[bytes, asyncio.Future[Answer | None]] = {}
        self._rounds: set[asyncio.Future[None]] = set()

    @property
    def description(self) -> Description:
        """What the teacher is."""
        return self._client.description

    async def ask(self, step: int, rows: Sequence[int], instances: Sequence[Instance]) -> list[Answer | None]:
        """One answer for each instance, in their order; None where the budget refused.

        Args:
            step: the training step; with the row it is the question's place in the ledger.
            rows: each instance's number in the data set.
            instances: what to ask about, the most wanted first.

        Raises:
            TeacherError: a question failed; the answers to all others are kept and accounted for.
        """
        keys = [self._kept.key_of(instance) for instance in instances]
        ask = _Ask.of(step, rows, keys, instances)
        self._look_up(ask)
        open_keys = [key for key in ask.questions if key not in ask.answers]
        shared = {key: self._pending[key] for key in open_keys if key in self._pending}
        await self._buy(ask, [key for key in open_keys if key not in shared])
        await self._share(ask, shared)
        return [ask.answers[key] for key in keys]

    def kept(self, instances: Sequence[Instance]) -> list[Answer | None]:
        """What was answered before, in any run; it is no question, so the account does not change."""
        keys = [self._kept.key_of(instance) for instance in instances]
        found = self._kept.get_many(dict(zip(keys, instances, strict=True)))
        return [Answer(found[key][1], cached=True) if key in found else None for key in keys]

    def _look_up(self, ask: _Ask) -> None:
        """What was answered before, in any run; the ledger names the answer, which may be to more."""
        kept = self._kept.get_many(ask.instances)
        ask.answers = {key: Answer(outputs, cached=True) for key, (_, outputs) in kept.items()}
        self._note(
            ask.step,
            [
                Entry(replace(question, key=found), "kept")
                for key, (found, _) in kept.items()
                for question in ask.questions[key]
            ],
        )

    async def _share(self, ask: _Ask, shared: Mapping[bytes, asyncio.Future[Answer | None]]) -> None:
        """What another step is asking just now.

        The ledger says "kept", as it would had that answer come a moment earlier: rows must not depend
        on the pace of the wire.
        """
        for key, future in shared.items():
            ask.answers[key] = await asyncio.shield(future)
        self._write(ask, list(shared), "kept")
        _raise_first([ask.answers[key] for key in shared])

    async def _buy(self, ask: _Ask, keys: Sequence[bytes]) -> None:
        """What is asked, where other steps can see it under way."""
        futures = {key: asyncio.get_running_loop().create_future() for key in keys}
        self._pending |= futures
        try:
            await self._in_rounds(ask, keys)
        finally:
            for key, future in futures.items():
                del self._pending[key]
                future.set_result(ask.answers.get(key, _INTERRUPTED))

    async def _in_rounds(self, ask: _Ask, keys: Sequence[bytes]) -> None:
        """Asks as many as the budget grants, and again for as long as refunds leave room for more."""
        while keys:
            with transaction(self._ledger.database):
                firsts = [ask.questions[key][0] for key in keys]
                grant = self._budget.reserve(ask.step, firsts, self._now())
            if grant.count:
                granted, keys = keys[: grant.count], keys[grant.count :]
                await self._round(ask, granted, grant)
            elif self._rounds:
                await asyncio.wait(self._rounds, return_when=asyncio.FIRST_COMPLETED)
            else:
                break
        ask.answers |= dict.fromkeys(keys)
        self._write(ask, keys, "refused")

    async def _round(self, ask: _Ask, keys: Sequence[bytes], grant: Grant) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rounds.add(over)
        try:
            answers = await self._call([ask.instances[key] for key in keys])
            got = dict(zip(keys, answers, strict=True))
            self._commit(ask, got, grant)
            ask.answers |= got
        finally:
            self._rounds.remove(over)
            over.set_result(None)
        _raise_first(answers)

    async def _call(self, instances: list[Instance]) -> list[Answer]:
        try:
            # The run is the operation: what an answer on a lost connection cost is told when asked again.
            answers = await self._client.ask(instances, self._want, self._ledger.run)
        except TeacherError as error:
            return [Answer(error=error)] * len(instances)
        classes = len(self._client.description.labels)
        return [_checked(answer, self._want, classes) for answer in answers]

    def _commit(self, ask: _Ask, got: Mapping[bytes, Answer], grant: Grant) -> None:
        """Answers, ledger rows and settled reservations, together or not at all."""
        entries, settled = [], []
        for key, answer in got.items():
            first, *others = ask.questions[key]
            queries = _queries(answer, lost=key in grant.lost)
            entries.append(Entry(first, _outcome(answer, "charged" if queries else "cached"), queries))
            entries += [Entry(question, _outcome(answer, "joined")) for question in others]
            if answer.error is None or queries or isinstance(answer.error, _NOTHING_RAN):
                settled.append(first)
        with transaction(self._ledger.database):
            self._store.put_many({key: answer.outputs for key, answer in got.items() if answer.outputs})
            self._ledger.write(ask.step, entries, grant.at)
            self._budget.settle(ask.step, settled)

    def _write(self, ask: _Ask, keys: Sequence[bytes], good: Outcome) -> None:
        """What cost nothing."""
        outcomes = {key: _outcome(ask.answers[key], good) for key in keys}
        entries = [Entry(question, outcomes[key]) for key in keys for question in ask.questions[key]]
        self._note(ask.step, entries)

    def _note(self, step: int, entries: Sequence[Entry]) -> None:
        if entries:
            with transaction(self._ledger.database):
                self._ledger.write(step, entries, self._now())


def _outcome(answer: Answer | None, good: Outcome) -> Outcome:
    if answer is None:
        return "refused"
    return good if answer.error is None else "failed"


def _queries(answer: Answer, *, lost: bool) -> int:
    """What was charged. An answer that this run lost on its way was charged when it was first asked."""
    return max(answer.charged, 1) if lost and answer.error is None else answer.charged


def _checked(answer: Answer, want: Want, classes: int) -> Answer:
    """The answer, or an error in the place of outputs that no student may learn from."""
    if answer.error is not None:
        return Answer(charged=answer.charged, error=answer.error)
    error = _fault(answer.outputs or Outputs(), want, classes)
    return answer if error is None else Answer(charged=answer.charged, error=error)


def _fault(outputs: Outputs, want: Want, classes: int) -> TeacherError | None:
    logits = () if outputs.logits is None else (outputs.logits,)
    width = sum(len(array) for array in logits)
    if want.logits and width != classes:
        return InternalError(
            "the answer's logits are not one a label", field="logits", value=width, limit=classes
        )
    if not all(np.isfinite(array).all() for array in outputs.arrays):
        return InternalError("the answer holds numbers that are not finite", field="outputs")
    return None


def _raise_first(answers: Sequence[Answer | None]) -> None:
    """Raises the first error there is; that the teacher has changed before any other."""
    errors = [answer.error for answer in answers if answer is not None and answer.error is not None]
    if errors:
        raise min(errors, key=lambda error: not isinstance(error, FingerprintMismatchError))
