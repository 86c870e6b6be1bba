"""Questions that are asked together: one round trip for all verbs of a transaction.

Theory of operation. A verb that is marked with `foreseen` tells what it is going to ask. All that
the verbs of a batch ask goes out at once, before the first of them runs: the locks in one order for
all processes, so that two batches do not wait for each other in a circle, then what is only read.
An answer must be what the verb would get if it asked itself, after the verbs before it:

- a lock's row is given once; who asks for the same row later asks the server;
- what is read under a lock is given only to the verb that the lock's row is given to;
- what is read under no lock is given until something is written to its table;
- a verb that does not tell what it asks may change anything: nothing is asked across it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._pg_sql import table, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..protocols import Asked
    from ._pg_wire import Reply

Key = tuple[str, "Sequence[Any]"]


class _Answer:
    __slots__ = ("reply", "under", "verb")

    def __init__(self, reply: Reply, verb: int, under: Key | None) -> None:
        self.reply, self.verb, self.under = reply, verb, under


class Foresight:
    """The answers that are there before their questions.

    Args:
        send: queues one statement.
    """

    def __init__(self, send: Callable[..., Reply]) -> None:
        self._send = send
        self._verbs: Sequence[Sequence[Asked] | None] = ()
        self._answers: dict[Key, _Answer] = {}
        self._turn = self._collected = 0

    def begin(self, verbs: Sequence[Sequence[Asked] | None]) -> None:
        """Take what each of the next verbs is going to ask; None of one that does not say."""
        self._verbs, self._collected = verbs, 0
        self._answers.clear()

    def turn(self, number: int, gate: Callable[[str], None]) -> None:
        """Ask what the next verb needs and does not have, and what those after it need.

        Args:
            number: the verb's place.
            gate: passes a gate with others.
        """
        self._turn, asked = number, self._verbs[number]
        self._forget(lambda answer, key: answer.verb < number and _is_own(answer, key))
        if asked is None:
            self._answers.clear()
            self._collected = number + 1
            return
        if number >= self._collected:
            self._collect(number, gate)
        self._ask(number, asked, gate)

    def _collect(self, first: int, gate: Callable[[str], None]) -> None:
        found: list[tuple[int, Asked]] = []
        for number in range(first, len(self._verbs)):
            asked = self._verbs[number]
            if asked is None:
                break
            found += [(number, question) for question in asked if question.early]
            self._collected = number + 1
        locks = sorted((pair for pair in found if pair[1].how == "lock"), key=_order)
        for number, question in locks:
            self._ask(number, (question,), gate)
        for number, question in found:
            if question.how != "lock" and self._has_lock(number, question):
                self._ask(number, (question,), gate)

    def _has_lock(self, number: int, question: Asked) -> bool:
        if question.under is None:
            return True
        lock = self._answers.get(_key(question.under))
        return lock is not None and lock.verb == number

    def _ask(self, number: int, questions: Iterable[Asked], gate: Callable[[str], None]) -> None:
        for question in questions:
            if question.how == "gate":
                gate(question.what)
                continue
            key = _key(question)
            if key not in self._answers:
                under = None if question.under is None else _key(question.under)
                self._answers[key] = _Answer(self._send(*key), number, under)

    def take(self, sql: str, values: Sequence[Any]) -> Reply | None:
        """Return the answer to a question, if it is there and still true."""
        key = (sql, values)
        found = self._answers.get(key)
        if found is None:
            return None
        if _is_own(found, key):
            del self._answers[key]
        if found.verb != self._turn:  # that verb has lost its lock, and what it would read under it
            self._forget(lambda answer, _: answer.under == key)
        return found.reply

    def wrote(self, sql: str) -> None:
        """Forget what *sql* may have made untrue."""
        if self._answers:
            changed, turn = table(sql), self._turn
            self._forget(
                lambda answer, key: (
                    changed in tables(key[0]) and (answer.verb == turn or not _is_own(answer, key))
                )
            )

    def _forget(self, untrue: Callable[[_Answer, Key], bool]) -> None:
        for key in [key for key, answer in self._answers.items() if untrue(answer, key)]:
            del self._answers[key]


def questions(verb: Callable[..., Any], args: Sequence[Any]) -> list[Asked] | None:
    """Return what *verb* is going to ask, if it tells."""
    asks = getattr(verb, "asks", None)
    return None if asks is None else list(asks(*args))


_LOCKED = " FOR UPDATE"


def _is_own(answer: _Answer, key: Key) -> bool:
    """Return whether an answer is one verb's, and not for all who ask."""
    return answer.under is not None or key[0].endswith(_LOCKED)


def locking(sql: str) -> str:
    """Return the question for a row that nobody else changes meanwhile."""
    return sql + _LOCKED


def _key(question: Asked) -> Key:
    return (locking(question.what) if question.how == "lock" else question.what), question.values


def _order(pair: tuple[int, Asked]) -> tuple[bool, str, str]:
    """Runs before effects, as in every verb, and each in one order for all."""
    name = table(pair[1].what)
    return name != "runs", name, repr(pair[1].values)
