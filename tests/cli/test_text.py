"""Values as people read them."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.cli import output, text
from tests.cli.world import unseen


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text", "plain text"),
        ("naïve 日本 €", "naïve 日本 €"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("a\tb\nc\r", r"a\tb\nc\r"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("fill\u3164\u2800\ufe0f", r"fill\u3164\u2800\ufe0f"),
        ("blank\u00a0\u3000\u2028", r"blank\xa0\u3000\u2028"),
        ("lone\ud800", r"lone\ud800"),
    ],
)
def test_what_cannot_be_seen_is_escaped(raw: str, shown: str) -> None:
    """Controls, bidi, zero-width, blanks and surrogates become escapes; letters stay."""
    assert text.escaped(raw) == shown


@given(st.text())
def test_nothing_unseen_survives(raw: str) -> None:
    """No text whatever brings an unseen character through, as a text or as JSON."""
    assert unseen(text.escaped(raw)) == set()
    assert unseen(text.value({raw: [raw]})) == set()
    assert "\n" not in text.escaped(raw)


@given(st.recursive(st.none() | st.booleans() | st.text(), st.lists))
def test_json_is_ascii_and_means_the_same(value: object) -> None:
    """JSON for programs is printable ASCII from which the same value is read."""
    printed = output.dumped(value)
    assert all(" " <= char <= "~" for char in printed)
    assert json.loads(printed) == value


def test_a_text_and_a_number_look_different() -> None:
    """A person who approves sees whether it is "75" or 75."""
    assert text.arguments({"a": "75", "b": 75}) == 'a="75" b=75'


def test_a_long_value_says_that_it_is_cut() -> None:
    """What is left out is counted, and where to see it is told."""
    assert text.value("x" * 5000).endswith(" … 1002 more characters, see -o json")


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ('t{"id": 1}', '{"id": 1}'),
        ('j{"$agentguard": "decimal", "value": "2.50"}', '"2.50"'),
        (
            'j{"$agentguard": "tuple", "value": [1, {"$agentguard": "bytes", "value": "eA=="}]}',
            '[1, "eA=="]',
        ),
        ("jnot json", '"jnot json"'),
        (None, "null"),
        ("jfalse", "false"),
    ],
)
def test_a_stored_result_is_shown_as_plain_json(kept: object, shown: str) -> None:
    """The letter and the tags of the store's own form are left out."""
    assert text.result(kept) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.00002, "20 µs"), (0.25, "250 ms"), (2.34, "2.3 s"), (42, "42 s"), (60, "1 min"),
        (170, "2 min 50 s"), (7300, "2 h 1 min"), (90_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float, shown: str) -> None:
    """A duration is shown in the units that matter."""
    assert text.span(seconds) == shown


@pytest.mark.parametrize(
    ("gap", "shown"), [(0, "0 s ago"), (200, "3 min ago"), (90_000, "1 d ago"), (-7300, "in 2 h")]
)
def test_ages_have_one_unit(gap: float, shown: str) -> None:
    """How long ago something was is told in its largest unit."""
    noon = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
    assert text.ago(noon - dt.timedelta(seconds=gap), noon) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(Decimal("0.40"), "$0.40"), (Decimal("1E-9"), "$0.000000001"), (None, "unknown")],
)
def test_money_is_exact(amount: Decimal | None, shown: str) -> None:
    """Money is never rounded and never in powers of ten."""
    assert text.money(amount) == shown


def test_wide_characters_take_two_cells() -> None:
    """Columns are measured in cells, not in characters."""
    assert text.breadth("日本 e\u0301") == 6


def test_a_cut_text_fits_and_says_so() -> None:
    """A text that is cut ends in an ellipsis and takes no more cells than it has."""
    assert output.cut("日本語です", 6) == "日本…"
    assert output.cut("short", 6) == "short"
