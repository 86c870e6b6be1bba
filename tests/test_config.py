"""The specification of `agent_run.yaml`: what loads, what is refused and in which words."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from agentguard.config import Settings, json_schema, load, loads
from agentguard.errors import ConfigurationError
from agentguard.model import Limits, Retry

ARTICLE = """\
agent_run:
  workflow: "refund_and_close_ticket"
  max_steps: 10
  max_model_calls: 6
  max_spend_usd: 0.40
  routing:
    planner_model: "high_reasoning"
    executor_model: "fast_cheap"
    verifier_model: "fast_cheap"
  approvals:
    refund_usd_over: 50
  logging:
    trace: "opentelemetry"
    retention_days: 30
"""
AS_PRINTED = """\
# Example: enforcing a per-task budget and max-steps in an agent run config
agent_run:
 workflow: "refund_and_close_ticket"
 max_steps: 10
 max_model_calls: 6
 max_spend_usd: 0.40
 routing:
 planner_model: "high_reasoning"
 executor_model: "fast_cheap"
 verifier_model: "fast_cheap"
 approvals:
 refund_usd_over: 50
 logging:
 trace: "opentelemetry"
 retention_days: 30
"""
TOOLS = """\
agent_run:
  tools:
    issue_refund:
      effect: write
      scopes: [refunds:write]
      facts: {refund_usd: amount_usd}
      timeout: 10
      isolation: thread
      retry: {attempts: 3, wait: 0, max_wait: 2.5}
      rate_limit: 5/second
      sensitive: [iban]
      irreversible: true
      idempotency:
        key: refund:{ticket_id}
        scope: tenant
        retention: 30d
        on_doubt: retry_same_key
        downstream_dedupe: 24h
        volatile: [note]
      approval:
        when: amount_usd > 50
        roles: [finance]
        quorum: 2
        expires: 24h
        allow_edit: true
      budget: {max_calls: 3, max_spend_usd: 200, cost: amount_usd, per: day}
      owner: payments
"""


def under(lines: str) -> str:
    """Return *lines*, indented, beneath `agent_run:`."""
    return "agent_run:\n" + "".join(f"  {line}\n" for line in lines.splitlines())


def refusal(data: str | bytes) -> str:
    """Return the sentences with which *data* is refused, without the file's name."""
    with pytest.raises(ConfigurationError) as caught:
        loads(data, "a.yaml")
    lines = str(caught.value).split("\n")
    assert lines[0].startswith("a.yaml:")
    return "\n".join(line.removeprefix("a.yaml:") for line in lines)


# What loads


def test_the_articles_file_loads_as_it_stands() -> None:
    """The article's file, with its nesting restored, loads with its limits and thresholds."""
    assert loads(ARTICLE) == Settings(
        source="agent_run.yaml",
        workflow="refund_and_close_ticket",
        limits=Limits(max_steps=10, max_model_calls=6, max_spend=400_000_000),
        thresholds={"refund_usd": Decimal(50)},
        routing={
            "planner_model": "high_reasoning",
            "executor_model": "fast_cheap",
            "verifier_model": "fast_cheap",
        },
        trace="opentelemetry",
        retention_days=30,
    )


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    """A file loads from a path, as text or as path object, and errors show that path."""
    path = tmp_path / "agent_run.yaml"
    path.write_text(ARTICLE)
    assert load(path).source == str(path)
    assert load(str(path)) == load(path)


def test_every_key_of_a_tool_is_read() -> None:
    """The policy of a tool holds what the file says, money as decimals, lists as tuples."""
    tool = loads(TOOLS).tools["issue_refund"]
    assert tool.retry is not None
    assert tool.retry.retry() == Retry(attempts=3, wait=0, max_wait=2.5)
    assert tool.model_dump(exclude={"retry"}) == {
        "effect": "write",
        "scopes": ("refunds:write",),
        "facts": {"refund_usd": "amount_usd"},
        "timeout": 10.0,
        "isolation": "thread",
        "rate_limit": "5/second",
        "sensitive": ("iban",),
        "irreversible": True,
        "owner": "payments",
        "polls": False,
        "idempotency": {
            "key": "refund:{ticket_id}",
            "per": None,
            "scope": "tenant",
            "retention": "30d",
            "on_doubt": "retry_same_key",
            "downstream_dedupe": "24h",
            "volatile": ("note",),
        },
        "approval": {
            "when": "amount_usd > 50",
            "roles": ("finance",),
            "quorum": 2,
            "expires": "24h",
            "allow_edit": True,
        },
        "budget": {
            "max_calls": 3,
            "max_spend_usd": Decimal(200),
            "cost": "amount_usd",
            "per": "day",
        },
        "falls_back_to": None,
    }


def test_a_tool_needs_no_more_than_its_effect() -> None:
    """A tool with its effect alone has no other policy; `approval: {}` asks always."""
    tool = loads(under("tools: {t: {effect: read, approval: {}}}")).tools["t"]
    assert (tool.idempotency, tool.budget, tool.retry) == (None, None, None)
    assert tool.approval is not None
    assert tool.approval.when is None


def test_money_keeps_every_digit_of_the_file() -> None:
    """Money comes from the file's text and never through a float."""
    thresholds = loads(under("approvals: {a_over: 0.1, b_over: 9007199254740993.01}")).thresholds
    assert thresholds == {"a": Decimal("0.1"), "b": Decimal("9007199254740993.01")}
    assert loads(under("max_spend_usd: 0.1")).limits.max_spend == 100_000_000


def test_words_of_old_yaml_are_text() -> None:
    """`no`, `on` and `12:30:00` are the texts they look like, as YAML 1.2 says."""
    routing = loads(
        under("routing: {planner_model: no, executor_model: on, verifier_model: 12:30:00}")
    )
    assert routing.routing == {
        "planner_model": "no",
        "executor_model": "on",
        "verifier_model": "12:30:00",
    }


def test_numbers_are_read_as_yaml_1_2() -> None:
    """A leading zero means nothing, and 0x and 0o are read."""
    limits = loads(under("max_steps: 010\nmax_model_calls: 0x10\nmax_tool_calls: 0o10")).limits
    assert (limits.max_steps, limits.max_model_calls, limits.max_tool_calls) == (10, 16, 8)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf" + ARTICLE.encode(), "\ufeff" + ARTICLE])
def test_a_byte_order_mark_is_passed_over(data: str | bytes) -> None:
    """A byte order mark at the beginning changes nothing."""
    assert loads(data) == loads(ARTICLE)


def test_windows_line_ends_change_nothing() -> None:
    """A file with CRLF means the same and has the same lines."""
    windows = loads(ARTICLE.replace("\n", "\r\n"))
    assert windows == loads(ARTICLE)
    assert windows.lines == loads(ARTICLE).lines


def test_lines_are_known_by_dotted_keys() -> None:
    """Each key's line is known, so that later checks can name it."""
    lines = loads(ARTICLE).lines
    assert lines["max_steps"] == 3
    assert lines["approvals.refund_usd_over"] == 11
    assert loads(TOOLS).lines["tools.issue_refund.approval.when"] == 21


def test_empty_settings_limit_nothing() -> None:
    """Without a file there are no limits, no thresholds and no tools."""
    empty = Settings.empty()
    assert empty.limits == Limits()
    assert not empty.thresholds
    assert not empty.tools


def test_settings_survive_copying() -> None:
    """A deep copy of settings equals them and has their version."""
    settings = loads(TOOLS)
    assert copy.deepcopy(settings) == settings
    assert copy.deepcopy(settings).version == settings.version


# The version


def test_the_version_does_not_depend_on_how_the_file_is_written() -> None:
    """Comments, order, quotes, notation, logging and the workflow's name leave the version."""
    one = under("workflow: a\nmax_steps: 10\nmax_spend_usd: 0.40\napprovals: {x_over: 50}")
    two = under(
        "approvals:\n  x_over: 50.0 # ok\n\nmax_spend_usd: 4e-1\nmax_steps: 10\nworkflow: b"
    )
    assert loads(one).version == loads(two + "  logging: {trace: none}\n").version


@pytest.mark.parametrize(
    "other",
    [
        ARTICLE.replace("max_steps: 10", "max_steps: 11"),
        ARTICLE.replace("_over: 50", "_over: 51"),
        ARTICLE.replace('"fast_cheap"', '"other"'),
        ARTICLE + "  tools: {t: {effect: read}}\n",
        ARTICLE + "  tools: {t: {effect: write}}\n",
    ],
)
def test_the_version_changes_with_the_policy(other: str) -> None:
    """A changed limit, threshold, routing or tool gives another version."""
    assert loads(other).version != loads(ARTICLE).version
    assert loads(other).version != loads(ARTICLE + "  tools: {t: {effect: forbidden}}\n").version


def test_the_version_is_short_hex() -> None:
    """The version is 12 hexadecimal digits and the same in every process."""
    assert loads(ARTICLE).version == "893fbc89d657"
    assert Settings.empty().version == loads("agent_run: {}").version


# Facts


def test_a_threshold_on_an_undeclared_fact_is_told_with_its_line() -> None:
    """A threshold on a fact that no tool declares gives file, line and the closest fact."""
    (error,) = loads(ARTICLE).unknown_facts(["refunds_usd", "rows"])
    assert str(error) == (
        "agent_run.yaml:11: approvals.refund_usd_over is a threshold on the fact 'refund_usd', "
        "which no bound tool declares; did you mean 'refunds_usd'?"
    )


def test_declared_facts_are_no_error() -> None:
    """A threshold on a declared fact is right; without any fact the mend is to declare it."""
    assert loads(ARTICLE).unknown_facts({"refund_usd"}) == []
    assert "declare it in the tool's facts" in str(loads(ARTICLE).unknown_facts([])[0])


# The article's block as printed


def test_the_block_as_printed_is_answered_with_the_mended_block() -> None:
    """The article's block with its nesting lost is recognised and given back as it was meant."""
    assert refusal(AS_PRINTED) == (
        "8: the nesting is lost, planner_model belongs under routing; write it so:\n\n" + ARTICLE
    )


def test_the_mended_block_holds_the_users_own_values() -> None:
    """The mended block keeps changed values, quotes, further keys and nested tools."""
    mine = AS_PRINTED.replace("50", "75.50").replace('"fast_cheap"', "'my model'")
    mine += " tools:\n   t:\n      effect: read # mine\n      scopes: [a,\n         b]\n"
    block = refusal(mine).partition("\n\n")[2]
    settings = loads(block)
    assert settings.thresholds == {"refund_usd": Decimal("75.50")}
    assert settings.routing["executor_model"] == "my model"
    assert settings.tools["t"].scopes == ("a", "b")
    assert block.endswith(
        "  tools:\n    t:\n       effect: read # mine\n       scopes: [a,\n          b]\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        AS_PRINTED.replace("\n ", "\n"),
        ARTICLE.replace("agent_run:\n", "").replace("\n  ", "\n")[2:],
        AS_PRINTED.replace("agent_run:\n", "").replace("\n ", "\n"),
        AS_PRINTED.replace("\n", "\r\n"),
    ],
)
def test_lost_indentation_and_wrapper_are_mended_too(text: str) -> None:
    """A file without `agent_run:`, or with all indentation lost, gets the same mended block."""
    assert refusal(text).partition("\n\n")[2].replace("\r", "") == ARTICLE


def test_a_missing_wrapper_is_not_guessed() -> None:
    """Keys without `agent_run:` above them are refused, with the line and the mend."""
    assert refusal("# mine\nmax_steps: 10\n") == (
        "2: the nesting is lost, max_steps belongs under agent_run; write it so:\n\n"
        "agent_run:\n  max_steps: 10\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "agent_run: hello\nmax_steps: 1",
        under("routing: fast\nplanner_model: x"),
        under("logging: {trace: none}\ntrace: opentelemetry"),
    ],
)
def test_a_mend_never_drops_a_value(text: str) -> None:
    """Where a mended block would lose one of the user's values, only the place is named."""
    assert refusal(text).endswith(":")
    assert "indent it beneath" in refusal(text)


# One document of plain values


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_an_empty_file_is_refused(text: str) -> None:
    """A file without content is refused."""
    assert "the file is empty" in refusal(text)


@pytest.mark.parametrize("text", ["--- ~", "- a\n- b\n", "hello", "5", "{}", "null"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    """A file that holds a list, a scalar or nothing at its top is refused."""
    assert refusal(text) == (
        "1: the file must hold agent_run: with keys beneath it, and nothing else"
    )


def test_several_documents_are_refused() -> None:
    """A second document is refused, with the line at which it begins."""
    assert refusal(ARTICLE + "---\na: 1\n").startswith("15: a second document begins here")


def test_duplicate_keys_are_refused_with_both_lines() -> None:
    """A key that stands twice is refused with both lines."""
    text = under("max_steps: 10\nmax_model_calls: 6\nmax_steps: 1000")
    assert refusal(text) == "4: 'max_steps' stands twice, here and in line 2; keep one"


def test_duplicate_keys_are_refused_at_any_depth() -> None:
    """A key that stands twice deep in a tool, once quoted, is refused with both lines."""
    text = TOOLS.replace("        quorum: 2\n", '        quorum: 2\n        "quorum": 1\n')
    assert refusal(text) == "24: 'quorum' stands twice, here and in line 23; keep one"


def test_duplicate_keys_at_the_top_are_refused() -> None:
    """A second `agent_run:` is refused with both lines."""
    assert refusal(ARTICLE + "agent_run: {}").startswith(
        "15: 'agent_run' stands twice, here and in line 1"
    )


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    """An alias bomb costs nothing: its first anchor is refused."""
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefgh"))
    assert refusal(bomb) == "1: the anchor &a is not allowed; remove it"


@pytest.mark.parametrize("text", ["a: *x", "*x : 1", "a: [*x]"])
def test_aliases_are_refused(text: str) -> None:
    """An alias is refused as a value, as a key and in a list."""
    assert refusal(text) == "1: the alias *x is not allowed; write the value out"


@pytest.mark.parametrize("text", ["&k a: 1", "a: &k 1", "a: &k {b: 1}", "a: &k [1]"])
def test_anchors_are_refused(text: str) -> None:
    """An anchor is refused on keys, scalars, mappings and lists, also when nothing uses it."""
    assert refusal(text) == "1: the anchor &k is not allowed; remove it"


@pytest.mark.parametrize("text", ["a: !!str 1", "!mine a: 1", "a: !!python/object:os.system {}"])
def test_tags_are_refused(text: str) -> None:
    """A tag is refused, a harmless one too."""
    assert "is not allowed; remove it" in refusal(text)


def test_merge_keys_are_ordinary_unknown_keys() -> None:
    """A merge key merges nothing and is refused as an unknown key."""
    assert "'<<' is not a known key" in refusal(under("<<: {max_steps: 1}"))


def test_directives_of_other_versions_are_refused() -> None:
    """A file that asks for YAML 1.1 or defines tags is refused; YAML 1.2 is what is read."""
    assert "YAML 1.2" in refusal("%YAML 1.1\n---\n" + ARTICLE)
    assert "YAML 1.2" in refusal("%TAG ! tag:x,2000:\n---\n" + ARTICLE)
    assert loads("%YAML 1.2\n---\n" + ARTICLE) == loads(ARTICLE)


@pytest.mark.parametrize("text", ["? [a]\n: 1", "{{a: 1}: 1}", "? {a: 1}\n: 1"])
def test_keys_that_are_no_text_are_refused(text: str) -> None:
    """A list or a mapping as a key is refused."""
    assert "a key must be a plain text" in refusal(text)


def test_tabs_are_refused_in_plain_words() -> None:
    """A tab as indentation is refused, with the advice to use spaces."""
    assert refusal("agent_run:\n\tmax_steps: 1") == (
        "2: a tab stands where YAML wants spaces; indent with spaces"
    )


def test_what_is_no_yaml_is_refused_with_its_line() -> None:
    """A syntax error names its line, the parser's reason and what to look at."""
    sentence = refusal(under("workflow: a: b"))
    assert sentence.startswith("2: this is not YAML (")
    assert sentence.endswith("check indentation, colons and quotes")


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    """A file over 256 KB is refused, from memory and from disk."""
    large = ARTICLE + "#" * 256 * 1024
    (tmp_path / "large.yaml").write_text(large)
    assert "larger than 256 KB" in refusal(large)
    with pytest.raises(ConfigurationError, match="larger than 256 KB"):
        load(tmp_path / "large.yaml")


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{a: " * 50 + "}" * 50, "- " * 100_000])
def test_deep_nesting_is_refused(text: str) -> None:
    """Nesting beyond 16 levels is refused where it begins."""
    assert "nested deeper than 16 levels" in refusal(text)


def test_sixteen_levels_are_enough_and_allowed() -> None:
    """Nesting is counted exactly: the sixteenth level is read, the seventeenth refused."""
    assert "must hold agent_run" in refusal("[" * 15 + "a" + "]" * 15)
    assert "nested deeper" in refusal("[" * 16 + "a" + "]" * 16)


@pytest.mark.parametrize(
    "data", [b"agent_run:\n  workflow: \xff\n", ARTICLE.encode("utf-16"), "a: 1\nb: \ud800"]
)
def test_what_is_not_utf_8_is_refused(data: str | bytes) -> None:
    """Bytes that are not UTF-8 and text that cannot become UTF-8 are refused."""
    assert "not UTF-8; save the file as UTF-8" in refusal(data)


def test_the_line_of_a_wrong_byte_is_named() -> None:
    """A byte that is not UTF-8 is refused with its line."""
    assert refusal(b"agent_run:\n  workflow: \xff\n").startswith("2:")


@pytest.mark.parametrize("escape", [r"\ud800", r"\0", r"\x1b[31m", r"\x9f"])
def test_escapes_for_hidden_characters_are_refused(escape: str) -> None:
    """An escape for a lone surrogate or a control character is refused in values and keys."""
    assert refusal(under(f'workflow: "{escape}"')).startswith("2: the text contains a control")
    assert refusal(under(f'"{escape}": 1')).startswith("2: the text contains a control")


def test_raw_control_characters_are_refused_with_their_line() -> None:
    """A control character in the file is refused with its line."""
    assert refusal("agent_run:\n  workflow: a\x00b") == "2: there is a control character; remove it"


def test_impossible_escapes_are_refused() -> None:
    """An escape beyond Unicode, which the parser itself stumbles over, is refused."""
    assert "cannot be read" in refusal(under(r'workflow: "\UFFFFFFFF"'))


@pytest.mark.parametrize(
    "number", ["9" * 5000, "-" + "9" * 5000, "1e999999", "1e-999999", "0." + "1" * 50]
)
def test_monstrous_numbers_are_refused(number: str) -> None:
    """A number with thousands of digits or a huge exponent is refused before it is built."""
    assert refusal(under(f"max_spend_usd: {number}")).startswith("2: the number has more than")


# Types


@pytest.mark.parametrize(
    "value", ['"10"', "no", "10.5", "true", "[1]", "{a: 1}", "1_000", "12:30:00"]
)
def test_a_count_is_a_whole_number(value: str) -> None:
    """Nothing is coerced to a count: quotes, words, fractions, booleans and times are refused."""
    assert refusal(under(f"max_steps: {value}")) == (
        "2: max_steps must be a whole number without quotes, such as 10"
    )


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("max_steps: -1", "at least 1"),
        ("max_steps: 0", "at least 1"),
        ("max_repeats: 0", "at least 1"),
        ("max_model_calls: -1", "at least 0"),
        ("max_tool_calls: 10000000000", "at most 1000000000"),
        ("logging: {retention_days: 0}", "at least 1"),
        ("max_seconds: 0", "more than 0"),
        ("max_seconds: -1", "from 0 to"),
        ("max_spend_usd: -0.01", "from 0 to"),
        ("max_spend_usd: 9000000001", "from 0 to"),
        ("approvals: {a_over: -1}", "from 0 to"),
    ],
)
def test_numbers_out_of_range_are_refused(line: str, limit: str) -> None:
    """A number out of its range is refused with the range."""
    assert f"must be {limit}" in refusal(under(line))


@pytest.mark.parametrize("value", ['"0.40"', "true", "much", "[1]", "{a: 1}", "NaN"])
def test_money_is_a_number(value: str) -> None:
    """Money in quotes, a boolean, a word or a collection is refused."""
    assert refusal(under(f"max_spend_usd: {value}")) == (
        "2: max_spend_usd must be a number without quotes, such as 0.40"
    )


@pytest.mark.parametrize("value", [".nan", ".NaN", ".inf", "-.inf", "+.INF"])
def test_money_is_finite(value: str) -> None:
    """NaN and infinities are no money and no threshold."""
    assert "must be a finite number" in refusal(under(f"max_spend_usd: {value}"))
    assert "must be a finite number" in refusal(under(f"approvals: {{a_over: {value}}}"))


@pytest.mark.parametrize("value", ["5", "true", "1.5"])
def test_text_is_not_made_of_numbers(value: str) -> None:
    """A number or a boolean where a text belongs is refused with the advice to quote it."""
    assert refusal(under(f"workflow: {value}")) == "2: workflow must be a text; put it in quotes"


@pytest.mark.parametrize("value", ['""', '" a"', '"a\\nb"'])
def test_names_are_one_trimmed_line(value: str) -> None:
    """An empty name, blanks at its ends and line breaks are refused."""
    assert "one line without blanks" in refusal(under(f"workflow: {value}"))


@pytest.mark.parametrize("key", ["routing", "approvals", "logging", "tools"])
def test_sections_hold_keys(key: str) -> None:
    """A section that holds no keys is refused."""
    assert refusal(under(f"{key}: 5")) == f"2: {key} must hold keys beneath it"


@pytest.mark.parametrize(
    "line", ["max_steps:", "max_steps: null", "workflow: ~", "routing:", "tools: {t:}"]
)
def test_empty_values_are_refused(line: str) -> None:
    """A key without a value is refused instead of being taken for a default."""
    assert "is empty; give it a value or remove it" in refusal(under(line))


def test_a_wrong_choice_is_answered_with_the_choices() -> None:
    """A value that is none of the allowed words is refused with them."""
    assert refusal(under("logging: {trace: otel}")) == (
        "2: logging.trace must be 'opentelemetry' or 'none'"
    )


# Keys


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("max_stepz: 10", "max_stepz is not a known key; did you mean 'max_steps'?"),
        (
            "routing: {planer_model: a}",
            "routing.planer_model is not a known key; did you mean 'planner_model'?",
        ),
        ("country: no", "country is not a known key; known here: workflow, autonomy,"),
        (
            "tools: {t: {effect: read, timeot: 1}}",
            "tools.t.timeot is not a known key; did you mean 'timeout'?",
        ),
        ("tools: {t: {effect: read, retry: {tries: 1}}}", "known here: attempts, wait, max_wait"),
        ('"a\\tb": 1', r"'a\tb' is not a known key"),
    ],
)
def test_unknown_keys_are_answered_with_the_closest(line: str, sentence: str) -> None:
    """An unknown key is refused with the closest known key of its place, or all of them."""
    assert sentence in refusal(under(line))


def test_unknown_keys_at_the_top_are_refused() -> None:
    """Beside `agent_run` nothing may stand at the top."""
    assert refusal("foo: 1\n" + ARTICLE) == "1: foo is not a known key; known here: agent_run"
    assert "agent_run is missing" in refusal("foo: 1\n")


@pytest.mark.parametrize("key", ["redaction", "prompts"])
def test_keys_without_a_room_are_refused_honestly(key: str) -> None:
    """Keys of the design that this version does not obey are refused, never silently ignored."""
    assert refusal(under(f"{key}: {{a: 1}}")) == (
        f"2: {key} is planned, but this version does not read it yet; remove it"
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("retry_budget: {percent: 500}", "retry_budget.percent must be at most 100"),
        ("retry_budget: {prcent: 5}", "retry_budget.prcent is not a known key; did you mean"),
        ("slos: {a: {target: 0.9, demote: {restore: {after: 5}}}}", "a.demote.restore.after must"),
    ],
)
def test_where_keys_or_off_may_stand_keys_are_told_of_in_their_place(
    line: str, sentence: str
) -> None:
    """What is wrong beneath a key that may also be off has its own place, and off is not asked for."""
    told = refusal(under(line))
    assert told.startswith("2: ")
    assert sentence in told
    assert "'off'" not in told


def test_autonomy_is_a_stage_or_keys() -> None:
    """One word is the stage of everything; `auto` says no more than nothing; others are refused."""
    assert loads(under("autonomy: auto")) == loads("agent_run: {}")
    assert loads(under("autonomy: draft")) == loads(under("autonomy: {default: draft}"))
    assert refusal(under("autonomy: full")) == (
        "2: autonomy must be draft, propose, approve or auto, or hold keys beneath it"
    )


@pytest.mark.parametrize("confidence", ["0.9", '"0.9"', ".9", '"0.90"'])
def test_a_confidence_is_a_share(confidence: str) -> None:
    """How sure a promotion must be is read the same as a number and as a text."""
    line = f"autonomy: {{promote: {{after: 20, confidence: {confidence}}}}}"
    found = loads(under(line)).autonomy
    assert found is not None
    assert found.promote is not None
    assert found.promote.confidence == Decimal("0.9")


@pytest.mark.parametrize("confidence", ["0", "1", "2", "high", "-0.5"])
def test_what_is_no_share_is_refused(confidence: str) -> None:
    """Nobody can be surer than certain, or less sure than not at all."""
    line = f"autonomy: {{promote: {{after: 20, confidence: {confidence}}}}}"
    assert "2: autonomy.promote.confidence must be" in refusal(under(line))


@pytest.mark.parametrize("key", ["refund_usd", "over", "_over", "9_over", "a-b_over", '""'])
def test_approvals_hold_thresholds_only(key: str) -> None:
    """A key under `approvals` that is no `<fact>_over` is refused."""
    assert "must be a threshold such as refund_usd_over: 50" in refusal(
        under(f"approvals: {{{key}: 1}}")
    )


def test_a_threshold_without_its_ending_is_mended() -> None:
    """A fact's bare name under `approvals` is answered with its threshold key."""
    assert refusal(under("approvals: {refund_usd: 1}")).endswith("did you mean 'refund_usd_over'?")


def test_all_problems_are_told_at_once_in_order() -> None:
    """Several problems are told together, by line, at most ten of them."""
    text = under('max_steps: "1"\nworkflow: 5\nmax_stepz: 1')
    assert [line[0] for line in refusal(text).splitlines()] == ["2", "3", "4"]
    many = refusal(under("\n".join(f"k{n}: 1" for n in range(30)))).splitlines()
    assert len(many) == 11
    assert many[-1] == "… and 20 more"


# Tools


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("{}", "tools.t.effect is missing; add it"),
        ("{effect: delete}", "tools.t.effect must be 'read', 'write' or 'forbidden'"),
        ("{effect: read, scopes: a}", "tools.t.scopes must be a list, such as [a, b]"),
        ("{effect: read, scopes: [1]}", "tools.t.scopes.0 must be a text; put it in quotes"),
        ("{effect: read, rate_limit: 5/s}", "tools.t.rate_limit must be 5/second"),
        ("{effect: read, timeout: soon}", "tools.t.timeout must be a number without quotes"),
        ("{effect: read, irreversible: yes}", "tools.t.irreversible must be true or false"),
        ("{effect: read, facts: {a b: c}}", "must be a name of letters, digits and _"),
        ("{effect: read, fails_when: f}", "is a function, which a file cannot hold"),
        ("{effect: read, retry: {attempts: 0}}", "tools.t.retry.attempts must be at least 1"),
        ("{effect: read, retry: {wait: 20}}", "tools.t.retry max_wait must be at least wait"),
        (
            "{effect: write, idempotency: {key: a, per: call}}",
            "either 'key' with a template or 'per",
        ),
        ("{effect: write, idempotency: {}}", "either 'key' with a template or 'per: call'"),
        ("{effect: write, idempotency: {per: run}}", "tools.t.idempotency.per must be 'call'"),
        ("{effect: write, idempotency: {key: a, reconcile: f}}", "is a function, which a file"),
        (
            "{effect: write, idempotency: {key: a, on_doubt: reconcile}}",
            "'halt' or 'retry_same_key'",
        ),
        ("{effect: write, idempotency: {key: a, retention: 24}}", "must be a text"),
        ("{effect: write, idempotency: {key: a, retention: 24 h}}", "must be 90s, 30m, 24h or 7d"),
        ("{effect: read, approval: {when: f(x)}}", "tools.t.approval.when the expression 'f(x)'"),
        ("{effect: read, approval: {when: x >}}", "cannot be read"),
        ("{effect: read, approval: {quorum: 0}}", "tools.t.approval.quorum must be at least 1"),
        ("{effect: read, budget: {cost: [1]}}", "tools.t.budget.cost must be a number"),
        (
            "{effect: read, budget: {per: year}}",
            "tools.t.budget.per must be 'run', 'hour', 'day', 'week' or 'month'",
        ),
    ],
)
def test_wrong_tool_policies_are_refused(policy: str, sentence: str) -> None:
    """A tool's policy that cannot be obeyed is refused with its line and its mend."""
    assert sentence in refusal(under(f"tools:\n  t: {policy}"))
    assert refusal(under(f"tools:\n  t: {policy}")).startswith("3:")


def test_the_line_of_a_nested_problem_is_its_own() -> None:
    """A problem deep in a tool names the line of its own key."""
    assert refusal(TOOLS.replace("quorum: 2", "quorum: two")).startswith(
        "23: tools.issue_refund.approval.q"
    )


# Files


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b"])
def test_a_path_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    """A missing file, a directory and an impossible name are refused with the path."""
    with pytest.raises(
        ConfigurationError, match=r"the configuration cannot be read \(.+\); check the path"
    ):
        load(f"{tmp_path}/{name}")


def test_importing_the_module_does_not_import_the_parser() -> None:
    """The YAML parser and the file's models are loaded when a file is read and not before."""
    code = "import sys, agentguard.config as c; late = {'ruamel.yaml', 'agentguard._keys'}; "
    code += "sys.exit(not late.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The JSON Schema


def plain(text: str) -> Any:
    """Return *text* as an editor's YAML reader sees it."""
    return json.loads(json.dumps(YAML(typ="safe", pure=True).load(text)))


def test_the_schema_is_json_schema_2020_12() -> None:
    """The schema is valid JSON Schema 2020-12 and names that dialect first."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert next(iter(schema.items())) == ("$schema", "https://json-schema.org/draft/2020-12/schema")


def objects(schema: Any) -> list[dict[str, Any]]:
    """Return every schema of an object inside *schema*."""
    if not isinstance(schema, dict):
        return (
            [found for item in schema for found in objects(item)]
            if isinstance(schema, list)
            else []
        )
    inner = [found for item in schema.values() for found in objects(item)]
    return inner + ([schema] if schema.get("type") == "object" else [])


def test_the_schema_is_closed_and_described() -> None:
    """No object of the schema takes further keys, and every key has a description."""
    assert len(objects(json_schema())) > 8
    for found in objects(json_schema()):
        assert found["additionalProperties"] is False
        assert all("description" in key for key in found.get("properties", {}).values())


@pytest.mark.parametrize("text", [ARTICLE, TOOLS, "agent_run: {}"])
def test_the_schema_accepts_what_loads(text: str) -> None:
    """Files that load are valid for editors."""
    jsonschema.validate(plain(text), json_schema())


@pytest.mark.parametrize(
    "line",
    [
        "max_stepz: 1",
        "max_steps:",
        'max_steps: "1"',
        "max_spend_usd: -1",
        "max_seconds: 0",
        "approvals: {refund: 1}",
        "autonomy: full",
        "redaction: {}",
        "slos: {a: {}}",
        "tools: {t: {}}",
        "tools: {t: {effect: read, rate_limit: fast}}",
    ],
)
def test_the_schema_refuses_what_is_refused(line: str) -> None:
    """What the loader refuses in these places is marked by editors as well."""
    assert refusal(under(line))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain(under(line)), json_schema())


# Anything


WORDS = """agent_run workflow max_steps max_spend_usd routing approvals a_over logging trace tools t
    effect retry idempotency key approval when budget cost slos autonomy planner_model"""
ODD = """1 0.5 -1 no true ~ "" .nan 'a' call 1e40 *a !!int read [ { | "\\ud800" 12:30:00"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.sampled_from([*ODD.split(), "", "\t", "&a 1", "a: b", "x > 1", "9" * 50])
FLOW = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(KEYS, inner), max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=12,
)
BLOCK = st.lists(st.tuples(st.sampled_from(["", " ", "  ", "    "]), KEYS, FLOW), max_size=12).map(
    lambda lines: "".join(f"{indent}{key}: {value}\n" for indent, key, value in lines)
)
LETTERS = st.text(
    alphabet=" \n\t\r:-?[]{}#&*!|>'\"%@`,~.0123456789abeE_\\ud\ufeff\x85\u2028", max_size=40
)


@given(
    st.text(max_size=60)
    | st.binary(max_size=60)
    | LETTERS
    | FLOW
    | BLOCK
    | FLOW.map("agent_run: {}".format)
)
@example("agent_run:\n max_steps: 1\n? routing\n: 1")
@example("a: |2\n   x")
@example("--- ! a")
def test_no_text_breaks_the_loader(data: str | bytes) -> None:
    """Any text or bytes either load, with a version, or are refused with a ConfigurationError."""
    try:
        settings = loads(data)
    except ConfigurationError:
        return
    assert len(settings.version) == 12
