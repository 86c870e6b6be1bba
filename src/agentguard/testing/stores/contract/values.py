"""What is written comes back as it was, or is refused; it never comes back as something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ....errors import StoreUnavailable
from ..crowd import look, note, noted

if TYPE_CHECKING:
    from ....protocols import Store, Tx

TEXTS = {
    "empty": "", "blanks": "  a \t\n ", "quotes": "it's \"quoted\" \\ `so`",
    "percent": "100 % %s %(a)s ?", "emoji": "🦄 👩\u200d🚀 e\u0301 é", "bidi": "\u202eabc\u202c",
    "json": '{"a": [1, "\\u0000"]}', "long": "ä" * 300_000, "number": "007", "null": "NULL",
    "control": "".join(map(chr, range(1, 32))),
}  # fmt: skip
NUMBERS = [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)]


def keep_number(tx: Tx, number: int) -> int:
    """Write a number down."""
    tx.run(
        "INSERT INTO budgets (tenant, name, span, calls, spent, held) VALUES ('t', 'n', ?, 0, ?, 0)",
        (f"{number}", number),
    )
    return number


def number_kept(tx: Tx, number: int) -> object:
    """Read it."""
    row = tx.row("SELECT spent FROM budgets WHERE span = ?", (f"{number}",))
    return None if row is None else row[0]


class Values:
    """Texts, numbers, bytes and nothing."""

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    def test_a_text_comes_back_as_it_was(self, stores: list[Store], text: str) -> None:
        """Every character of a text survives, in values and in keys."""
        stores[0].transact(lambda tx: [note(tx, "value", text), note(tx, text[:1000], "key")])
        assert stores[-1].read(look, "value") == text
        assert stores[-1].read(look, text[:1000]) == "key"

    def test_a_text_with_a_nul_is_kept_or_refused(self, store: Store) -> None:
        """U+0000 is kept as any character is, or the transaction is refused and writes nothing."""
        try:
            store.transact(lambda tx: [note(tx, "before"), note(tx, "a", "b\0c")])
        except StoreUnavailable:
            assert noted(store) == []
        else:
            assert store.read(look, "a") == "b\0c"
        assert store.transact(note, "after") == "after"

    def test_texts_are_equal_only_if_every_character_is(self, store: Store) -> None:
        """Case, accents, their spelling and blanks at the end tell keys apart."""
        names = ["a", "A", "a ", "á", "a\u0301", "ａ"]  # noqa: RUF001 - a wide letter is another one
        for number, name in enumerate(names):
            store.transact(note, name, f"{number}")
        assert [store.read(look, name) for name in names] == ["0", "1", "2", "3", "4", "5"]

    @pytest.mark.parametrize("number", NUMBERS)
    def test_a_whole_number_comes_back_as_it_was(self, stores: list[Store], number: int) -> None:
        """Numbers of 64 bits with a sign survive exactly, as `int`."""
        stores[0].transact(keep_number, number)
        found = stores[-1].read(number_kept, number)
        assert (found, type(found)) == (number, int)

    def test_a_number_that_is_too_large_is_refused(self, store: Store) -> None:
        """What does not fit into 64 bits is an error, and nothing else is written in its place."""
        with pytest.raises((StoreUnavailable, OverflowError)):
            store.transact(lambda tx: [note(tx, "before"), keep_number(tx, 2**63)])
        assert (noted(store), store.read(number_kept, 2**63)) == ([], None)

    @pytest.mark.parametrize("content", [b"", bytes(range(256)), b"\0" * 1000, b"\\x00"])
    def test_bytes_come_back_as_they_were(self, stores: list[Store], content: bytes) -> None:
        """Every byte survives, as `bytes`."""
        sql = "INSERT INTO tenants (tenant, hash_key) VALUES ('t', ?)"
        stores[0].transact(lambda tx: tx.run(sql, (content,)))
        row = stores[-1].read(lambda tx: tx.row("SELECT hash_key FROM tenants WHERE tenant = 't'"))
        assert row is not None
        assert (row[0], type(row[0])) == (content, bytes)

    def test_nothing_comes_back_as_nothing(self, store: Store) -> None:
        """None is not zero and not an empty text, in columns of numbers and of texts."""
        sql = (
            "INSERT INTO switches (kind, name, by, reason, at, lifted_at, lifted_by)"
            " VALUES ('all', '', ?, '', 1, ?, ?)"
        )
        store.transact(lambda tx: [tx.run(sql, ("a", None, None)), tx.run(sql, ("b", 0, ""))])
        rows = store.read(
            lambda tx: list(tx.rows("SELECT lifted_at, lifted_by FROM switches ORDER BY by"))
        )
        assert [tuple(row) for row in rows] == [(None, None), (0, "")]
        found = store.read(lambda tx: tx.row("SELECT by FROM switches WHERE lifted_at IS NULL"))
        assert found is not None
        assert found[0] == "a"

    def test_texts_are_sorted_by_their_characters(self, stores: list[Store]) -> None:
        """The order of texts is that of their code points, on every machine: copies go by it."""
        names = ["", "Z", "_", "a", "a\u0301", "b", "é", "\uffee", "🦄"]
        stores[0].transact(lambda tx: [note(tx, name) for name in reversed(names)])
        sql = "SELECT key FROM meta WHERE key LIKE 'note:%' AND (key, '') > (?, '') ORDER BY key"
        rows = stores[-1].read(lambda tx: list(tx.rows(sql, ("note:Z",))))
        assert [key.removeprefix("note:") for (key,) in rows] == names[2:]

    def test_what_is_quoted_in_sql_is_text(self, store: Store) -> None:
        """A question mark or a per cent sign between quotes is no placeholder."""
        row = store.read(lambda tx: tx.row("SELECT '100 %? %s', CAST(? AS TEXT)", ("a ?",)))
        assert row is not None
        assert tuple(row) == ("100 %? %s", "a ?")
