"""What models cost: tables, callables and genai-prices; what nobody knows is unknown, never zero."""

from __future__ import annotations

import datetime as dt
import importlib.util
import sys
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from agentguard import BudgetExceeded, ConfigurationError, Guard
from agentguard.config import loads
from agentguard.hosting import ModelReports
from agentguard.prices import Price, Prices, Rates, Tokens, genai_prices, pricing
from agentguard.prompts import Prompt
from agentguard.record import costs_of, fold
from agentguard.testing import FakeClock

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
HALF = Tokens(1_000_000, 0, 500_000)


def told(guard: Guard, run_id: str = "r") -> list[dict[str, Any]]:
    """What the record says of the run's model calls."""
    return [dict(e.data) for e in guard.runs.events(run_id) if e.kind == "model.called"]


def called(guard: Guard, model: str = "m", **used: Any) -> dict[str, Any]:
    """Make one model call in a run of its own, and return its event."""
    used = {"input_tokens": 1_000_000, **used}
    with guard.run(run_id="r") as run:
        run.model_finished(run.model_started(model=model, messages=["?"]), output="!", **used)
    (call,) = told(guard)
    return call


@pytest.fixture(name="guard")
def guard_with_a_table() -> Iterator[Guard]:
    """A guard with a price list of one model."""
    guard = Guard("memory://", prices={"m": ("1", "2", "0.10", "1.25")})
    yield guard
    guard.close()


# Tables.


@pytest.mark.parametrize(
    ("rates", "tokens", "usd"),
    [
        (("1", "2"), Tokens(1_000_000, 500_000), "2"),
        (("1", "2"), HALF, "1"),
        (("1", "2", "0.10"), HALF, "0.55"),
        (("1", "2", "0.10", "1.25"), Tokens(1_000_000, 0, 200_000, 400_000), "0.92"),
        ({"input_usd": 1, "output_usd": 2, "cached_usd": "0.10"}, HALF, "0.55"),
        (Rates(Decimal(1), Decimal(2), cache_write=Decimal(3)), Tokens(10, 0, 0, 10), "0.00003"),
        (("0", "0"), Tokens(5, 5), "0"),
    ],
)
def test_a_table_prices_what_was_used(rates: Any, tokens: Tokens, usd: str) -> None:
    """Cached tokens are part of the input; where they have no rate they cost as much as all of it."""
    price = pricing({"m": rates}).price("m", tokens, NOW)
    assert price is not None
    assert (price.usd, price.source) == (Decimal(usd), "table")


def test_cached_tokens_beside_the_input_are_charged_too() -> None:
    """A provider that does not count them as input shows that by more cached ones than there are."""
    price = pricing({"m": ("1", "2", "0.10")}).price("m", Tokens(100, 0, 1_000_000), NOW)
    assert price is not None
    assert price.usd == Decimal("0.1001")


@pytest.mark.parametrize(
    ("entry", "model"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o", "openai:gpt-4o"),
        ("gpt-4o", "openrouter/openai/gpt-4o"),
        ("openai:gpt-4o", "gpt-4o"),
        ("gemini", "models/gemini"),
        ("llama3:8b", "llama3:8b"),
    ],
)
def test_a_table_knows_a_model_with_and_without_its_provider(entry: str, model: str) -> None:
    """Who serves a model does not make it another one."""
    assert pricing({entry: ("1", "1")}).price(model, Tokens(1, 1), NOW) is not None


@pytest.mark.parametrize(
    ("entry", "model"),
    [
        ("gpt-4o", "gpt-4o-2024-05-13"),
        ("gpt-4o", "gpt-4o-mini"),
        ("llama3", "ollama:llama3"),
        ("llama3", "llama3:8b"),
        ("gpt-4o", ""),
    ],
)
def test_a_table_knows_no_other_model(entry: str, model: str) -> None:
    """Another snapshot, another size, a model at home: another price, which is not known."""
    assert pricing({entry: ("1", "1")}).price(model, Tokens(1, 1), NOW) is None


def test_entries_that_disagree_leave_a_bare_name_unknown() -> None:
    """Two providers with two prices: a name that says neither is not guessed."""
    prices = pricing({"openai:m": ("1", "1"), "azure:m": ("2", "2")})
    assert prices.price("m", Tokens(1, 1), NOW) is None
    assert prices.price("azure:m", Tokens(1, 1), NOW) is not None


def test_the_version_of_a_table_is_what_it_says() -> None:
    """Equal tables have one version, however they are written; another price is another version."""

    def version(table: Any) -> str | None:
        price = pricing(table).price("m", Tokens(1, 1), NOW)
        return None if price is None else price.version

    assert version({"m": ("1.0", 2)}) == version({"m": {"input_usd": 1, "output_usd": "2.00"}})
    assert version({"m": ("1", "2")}) != version({"m": ("1", "3")})


@pytest.mark.parametrize(
    "rates",
    ["1", ("1",), ("1", None), ("1", "x"), ("1", "-2"), (), 7, ("1", "2", "3", "4", "5"),
     {"input_usd": 1}, {"input_usd": 1, "output_usd": 1, "cache": 1}, ("nan", "1")],
    ids=repr,
)  # fmt: skip
def test_rates_that_cannot_be_read_are_refused(rates: Any) -> None:
    """The model is named, and what stands there, and how it is written."""
    with pytest.raises(ConfigurationError, match=r"prices: 'm': .* is not \(input, output\)"):
        Guard("memory://", prices={"m": rates})


@pytest.mark.parametrize("prices", ["openai", 7, object()])
def test_prices_that_are_none_are_refused(prices: Any) -> None:
    """A guard says what it takes."""
    with pytest.raises(ConfigurationError, match="genai-prices"):
        Guard("memory://", prices=prices)


# In the record.


def test_the_record_says_who_said_what_it_cost(guard: Guard) -> None:
    """Amount, source and version stand in the event, and on the step."""
    call = called(guard, cached_tokens=500_000, cache_write_tokens=100_000)
    assert (call["cost_nanos"], call["price_source"]) == (575_000_000, "table")
    assert (call["cached_tokens"], call["cache_write_tokens"]) == (500_000, 100_000)
    (step,) = fold(guard.runs.events("r"))
    assert step.price == f"table {call['price_version']}"
    assert costs_of(guard.runs.events("r")).prices == (step.price,)


def test_a_callable_gets_three_arguments_and_says_an_amount_or_nothing() -> None:
    """As before: model, input tokens, output tokens; None is unknown."""

    def price(model: str, asked: int, answered: int) -> Decimal | None:
        return Decimal(asked + answered) if model == "m" else None

    guard = Guard("memory://", prices=price)
    call = called(guard, input_tokens=2, output_tokens=1)
    assert (call["cost_nanos"], call["price_source"]) == (3_000_000_000, "callable")
    with guard.run(run_id="other") as run:
        run.model_finished(run.model_started(model="x", messages=[]), input_tokens=1)
    assert not guard.runs.show("other").cost_complete
    guard.close()


def test_a_price_list_of_ones_own_names_itself() -> None:
    """Whatever has a method `price` is asked with tokens and the store's time."""

    class Contract:
        """Prices of a contract."""

        def price(self, model: str, tokens: Tokens, at: dt.datetime) -> Price | None:
            """Charge a dollar for each started thousand tokens since March."""
            if model != "m" or at < dt.datetime(2026, 3, 1, tzinfo=dt.UTC):
                return None
            return Price(Decimal(-(-tokens.input // 1000)), "contract", "2026-03")

    listed: Prices = Contract()
    clock = FakeClock("2026-02-28T23:59:59+00:00")
    guard = Guard("memory://", prices=listed, clock=clock)
    assert called(guard, input_tokens=1)["cost_nanos"] is None
    clock.advance(1)
    with guard.run(run_id="later") as run:
        run.model_finished(run.model_started(model="m", messages=[]), input_tokens=1_500)
    (call,) = told(guard, "later")
    assert (call["cost_nanos"], call["price_source"], call["price_version"]) == (
        2_000_000_000, "contract", "2026-03",
    )  # fmt: skip
    guard.close()


def test_an_answer_without_tokens_has_no_price(guard: Guard) -> None:
    """A stream that told no usage was not free: what it cost is unknown."""
    call = called(guard, input_tokens=0)
    assert call["cost_nanos"] is None
    assert not guard.runs.show("r").cost_complete
    assert costs_of(guard.runs.events("r")).unknown == ("model",)


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (RuntimeError("refused"), True),
        (TimeoutError(), False),
        (type("APITimeoutError", (Exception,), {})(), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_what_a_broken_call_cost(guard: Guard, error: BaseException, known: bool) -> None:  # noqa: FBT001 - a parameter
    """What a provider refuses is free; whoever stopped waiting does not know."""
    assert (called(guard, input_tokens=0, error=error)["cost_nanos"] == 0) is known
    assert guard.runs.show("r").cost_complete is known


def test_a_call_that_ended_without_a_word_may_have_been_charged(guard: Guard) -> None:
    """What a runtime never told the end of was dispatched all the same."""
    with guard.run(run_id="r") as run, ModelReports(run) as reports:
        reports.started("1", model="m", messages=["?"], prompt="p")
    (call,) = told(guard)
    assert (call["cost_nanos"], call["prompt_name"]) == (None, "p")
    assert not guard.runs.show("r").cost_complete


def test_a_price_list_that_breaks_after_the_call_leaves_nothing_held() -> None:
    """The call was made: it is settled, at an unknown price, and the record says why."""
    says: list[Any] = [Decimal(1)]

    def price(_model: str, _asked: int, _answered: int) -> Any:
        return says[0] if not isinstance(says[0], Exception) else _raise(says[0])

    guard = Guard("memory://", prices=price)
    for run_id, broken in (("raises", ZeroDivisionError()), ("minus", Decimal(-1))):
        with guard.run(run_id=run_id) as run:
            says[0] = Decimal(1)
            call = run.model_started(model="m", messages=[])
            says[0] = broken
            run.model_finished(call, input_tokens=1)
            assert run.usage.held == 0
    assert told(guard, "raises")[0]["price_error"] == "ZeroDivisionError"
    assert told(guard, "minus")[0]["price_error"] == "ConfigurationError"
    assert not guard.runs.show("minus").cost_complete
    guard.close()


@pytest.mark.parametrize(
    "told_tokens",
    [{"input_tokens": None, "output_tokens": 5}, {"input_tokens": 1.5}, {"input_tokens": -5},
     {"input_tokens": 5, "cached_tokens": -5}, {"input_tokens": 10**30}],
)  # fmt: skip
def test_tokens_that_are_no_counts_are_not_known(guard: Guard, told_tokens: Any) -> None:
    """The call was made and is settled; what it cost is unknown, and nothing odd is added up."""
    with guard.run(run_id="r") as run:
        call = run.model_started(model="m", messages=[], max_output_tokens=100)
        run.model_finished(call, output="!", **told_tokens)
    shown = guard.runs.show("r")
    assert (shown.status, shown.cost_complete) == ("succeeded", False)
    assert run.usage.held == 0
    assert min(told(guard)[0][f"{name}_tokens"] for name in ("input", "output", "cached")) >= 0


@pytest.mark.parametrize("said", [Decimal(-1), float("nan"), "dear", True, Decimal("1e15")])
def test_a_price_that_is_no_amount_is_refused_before_the_call(said: Any) -> None:
    """The sentence names the list, the model and what was said."""
    guard = Guard("memory://", prices=lambda _model, _asked, _answered: said)
    with (
        guard.run() as run,
        pytest.raises(ConfigurationError, match=r"prices: callable says .* for m"),
    ):
        run.model_started(model="m", messages=[])
    guard.close()


def _raise(error: Exception) -> None:
    raise error


def test_the_worst_case_is_reserved_before_the_call(guard: Guard) -> None:
    """What it may answer at the most is held, and refused where there is no room for it."""
    with guard.run(max_spend_usd="0.50") as run:
        call = run.model_started(model="m", messages=["hello"], max_output_tokens=200_000)
        assert 400_000_000 < run.usage.held < 400_100_000
        with pytest.raises(BudgetExceeded):
            run.model_started(model="m", messages=["hello"], max_output_tokens=200_000)
        run.model_finished(call, input_tokens=10, output_tokens=10)


# Prompts.


@pytest.mark.parametrize(
    ("prompt", "name", "version"),
    [
        (Prompt("answer", "7"), "answer", "7"),
        (("answer", 7), "answer", "7"),
        (("answer", None), "answer", None),
        ("answer", "answer", None),
    ],
)
def test_the_record_names_the_prompt(
    guard: Guard, prompt: Any, name: str, version: str | None
) -> None:
    """Its name and version stand in the event, and on the step."""
    with guard.run(run_id="r") as run:
        call = run.model_started(model="m", messages=[], prompt=prompt)
        run.model_finished(call, input_tokens=1)
    (event,), (step,) = told(guard), fold(guard.runs.events("r"))
    assert (event["prompt_name"], event["prompt_version"]) == (name, version)
    assert step.prompt == (name if version is None else f"{name}@{version}")


async def test_the_prompt_on_an_event_loop(guard: Guard) -> None:
    """`amodel_started` takes it too."""
    async with guard.run(run_id="r") as run:
        call = await run.amodel_started(model="m", messages=[], prompt="answer")
        await run.amodel_finished(call, input_tokens=1, cache_write_tokens=1)
    assert told(guard)[0]["prompt_name"] == "answer"


@pytest.mark.parametrize("prompt", [7, "", ("a",), ("a", "b", "c"), (None, "1"), [""]], ids=repr)
def test_a_prompt_that_is_none_is_refused(guard: Guard, prompt: Any) -> None:
    """Nothing is reserved for it."""
    with guard.run() as run:
        with pytest.raises(ConfigurationError, match="give a name"):
            run.model_started(model="m", messages=[], prompt=prompt)
        assert (run.usage.held, run.usage.model_calls) == (0, 0)


def test_no_prompt_leaves_no_trace(guard: Guard) -> None:
    """Who says nothing of prompts has an event as before."""
    assert "prompt_name" not in called(guard)


# The configuration.

FILE = """agent_run:
  costs:
    prices: genai-prices
    models:
      gpt-4o: {input_usd: 1, output_usd: 2, cached_usd: 0.10}
      in-house: {input_usd: 0, output_usd: 0}
"""


def test_the_configuration_says_what_models_cost() -> None:
    """Its table comes first, then the list it names; zero is a price that somebody wrote down."""
    guard = Guard("memory://", config=loads(FILE))
    for model, source, nanos in (
        ("gpt-4o", "table", 1_000_000_000),
        ("in-house", "table", 0),
        ("gpt-4o-mini", "genai-prices", 150_000_000),
        ("nobody's", None, None),
    ):
        with guard.run(run_id=model) as run:
            call = run.model_started(model=model, messages=[])
            run.model_finished(call, input_tokens=1_000_000)
        (event,) = told(guard, model)
        assert (event.get("price_source"), event["cost_nanos"]) == (source, nanos)
    guard.close()


def test_code_replaces_what_the_configuration_says() -> None:
    """A guard's own prices are the only ones."""
    guard = Guard("memory://", config=loads(FILE), prices={"m": ("1", "1")})
    assert guard.prices.price("gpt-4o", Tokens(1, 1), NOW) is None
    guard.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("prices: litellm", "genai-prices"),
        ("models: {m: {input_usd: 1}}", "output_usd"),
        ("models: {m: {input_usd: 1, output_usd: '2'}}", "number without quotes"),
        ("models: {m: {input_usd: 1, output_usd: 2, cache_usd: 1}}", "cache_usd"),
    ],
)
def test_a_price_that_cannot_be_read_is_refused_with_its_line(line: str, says: str) -> None:
    """The file says where."""
    with pytest.raises(ConfigurationError, match=f"agent_run.yaml:3: .*{says}"):
        loads(f"agent_run:\n  costs:\n    {line}\n")


def test_prices_do_not_change_the_version_of_a_policy() -> None:
    """A price list rules nothing; files keep the versions they had."""
    assert loads(FILE).version == loads("agent_run: {workflow: w}").version


# genai-prices.


@pytest.mark.parametrize(
    "model",
    ["gpt-4o", "openai:gpt-4o", "openai/gpt-4o", "GPT-4o", "gpt-4o-2024-08-06", "azure_openai:gpt-4o",
     "openrouter/openai/gpt-4o"],
)  # fmt: skip
def test_genai_prices_knows_a_model_by_many_names(model: str) -> None:
    """Provider and date in a name are understood; cached tokens are cheaper, and part of the input."""
    price = genai_prices().price(model, Tokens(1000, 500, 200), NOW)
    assert price is not None
    assert (price.usd, price.source) == (Decimal("0.00725"), "genai-prices")
    assert price.version is not None
    assert price.version[0].isdigit()


@pytest.mark.parametrize(
    "model",
    ["models/gemini-2.5-pro", "google_genai:gemini-2.5-pro", "mistralai:mistral-large-latest",
     "anthropic:claude-sonnet-4-5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"],
)  # fmt: skip
def test_genai_prices_knows_names_of_other_providers(model: str) -> None:
    """As LangChain, Google and Bedrock write them."""
    price = genai_prices().price(model, Tokens(1000, 500), NOW)
    assert price is not None
    assert price.usd > 0


@pytest.mark.parametrize(
    "model", ["", "nobody", "gpt-4o-homegrown", "ollama:gpt-oss", "ollama/gpt-4o", "fake-gpt-4o"]
)
def test_what_genai_prices_does_not_know_is_unknown(model: str) -> None:
    """A model at home, or of nobody, has no price: no zero, and no price of somebody else."""
    assert genai_prices().price(model, Tokens(1000, 500), NOW) is None


def test_an_unknown_model_makes_the_run_incomplete() -> None:
    """By the name of the list, and never as zero."""
    guard = Guard("memory://", prices="genai-prices")
    assert called(guard, model="nobody")["cost_nanos"] is None
    assert not guard.runs.show("r").cost_complete
    guard.close()


def test_genai_prices_go_by_the_time_of_the_store() -> None:
    """What a price was on the day of the call counts, not what it is today."""
    costs = []
    for day in ("2026-03-01", "2026-06-01"):
        guard = Guard("memory://", prices="genai-prices", clock=FakeClock(f"{day}T00:00:00+00:00"))
        costs.append(called(guard, model="claude-sonnet-4-6", input_tokens=300_000)["cost_nanos"])
        guard.close()
    assert costs == [1_800_000_000, 900_000_000]


def test_more_cached_tokens_than_there_are_is_no_error() -> None:
    """Counts that contradict each other are read as if the cached ones stood beside the others."""
    price = genai_prices().price("gpt-4o", Tokens(10, 0, 200), NOW)
    assert price == genai_prices().price("gpt-4o", Tokens(210, 0, 200), NOW)


def test_genai_prices_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the extra; nothing was loaded to find out."""
    monkeypatch.setattr("agentguard._genai_prices.find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r'pip install "agentguard\[prices\]"'):
        Guard("memory://", prices="genai-prices")


def test_genai_prices_load_with_the_first_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that never asks for a price never pays for the list."""
    loaded: list[str] = []

    def calc_price(_usage: Any, model: str, **_: Any) -> Any:
        loaded.append(model)
        return SimpleNamespace(total_price=Decimal(1), auto_update_timestamp=NOW)

    fake = SimpleNamespace(calc_price=calc_price, Usage=lambda **_: None, __version__="9")
    monkeypatch.setitem(sys.modules, "genai_prices", fake)
    monkeypatch.setattr("agentguard._genai_prices.find_spec", importlib.util.find_spec)
    monkeypatch.setattr(fake, "__spec__", SimpleNamespace(), raising=False)
    guard = Guard("memory://", prices="genai-prices")
    assert loaded == []
    price = guard.prices.price("m", Tokens(1, 1), NOW)
    assert price is not None
    assert (price.version, set(loaded)) == ("9+202611010000", {"m"})
    guard.close()
