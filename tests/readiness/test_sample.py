"""The sample: what is read of the record, from every store."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentguard import Principal
from agentguard.readiness import grade, read_sample
from tests.readiness.shop import Shop, answer_late, good, lose_a_reply, retry_dearly


@pytest.fixture(name="url", params=["memory", "sqlite", "postgres"])
def a_store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty store of each kind."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/shop.db"


def test_every_store_tells_the_same(url: str) -> None:
    """What happened is counted alike on every store: writes, repeats, doubts, decisions."""
    shop = Shop(url)
    retry_dearly(shop)
    lose_a_reply(shop)
    answer_late(shop)
    shop.ticket = lambda number: f"T-{min(number, 4)}"  # the last one comes again and again
    shop.work(7)
    sample = read_sample(shop.guard.store, workflow="refund")
    shop.guard.close()
    tally = sample.tally
    assert (tally.writes, tally.again, tally.replayed) == (12, 5, 2)
    assert (tally.doubts, tally.by_people, tally.late) == (2, 1, 1)
    assert (tally.decisions, tally.nameless) == (1, 0)
    assert [effect.tool for effect in sample.doubts] == ["lost"]
    assert sample.tools == {"refund", "dear", "lost", "slow"}
    assert sum(run.retry_usd for run in sample.runs) == 5


def test_the_newest_run_is_the_last(url: str) -> None:
    """A sample is in the order of time, and `newest` keeps its end."""
    shop = Shop(url).work(4)
    sample = read_sample(shop.guard.store, newest=2)
    shop.guard.close()
    assert ([run.info.id for run in sample.runs], sample.there) == (["r-T-2", "r-T-3"], 4)
    assert str(sample) == "the newest 2 runs of 4 of the last 30 days"


def test_another_tenant_is_left_out() -> None:
    """With a tenant only its runs count, without one all do."""
    shop = Shop().work(2)
    with shop.guard.run(run_id="r-acme", principal=Principal("support", tenant="acme")):
        shop.clock.advance(1)
    assert read_sample(shop.guard.store, tenant="acme").there == 1
    assert read_sample(shop.guard.store).there == 3


def test_what_operators_do_is_no_run() -> None:
    """The record of operators' own acts is not graded as a run of an agent."""
    shop = Shop().work(1)
    shop.guard.pin("refund", "approve", by="dana", reason="quarter end")
    assert read_sample(shop.guard.store).there == 1


def test_a_run_that_waits_for_people_has_not_ended() -> None:
    """A run is counted among those that ended only when it came out one way or the other."""
    shop = Shop()
    shop.amount = lambda _number: 75
    shop.decide = lambda: None  # type: ignore[method-assign] # nobody comes
    shop.work(1)
    (run,) = read_sample(shop.guard.store).runs
    assert (run.outcome, run.ended, run.escalated, run.verified) == ("pending", False, True, None)


def test_a_run_without_a_verdict_is_not_verified() -> None:
    """A write that nobody confirms counts against the share of verified outcomes."""
    from agentguard import idempotent, tool_contract

    @tool_contract(effect="write")
    @idempotent(key="n:{number}")
    def note(number: int) -> int:
        return number

    shop = Shop()
    shop.refund = lambda ticket_id, amount_usd: note(int(ticket_id[2:]) + int(amount_usd))
    shop.work(2)
    assert [run.verified for run in read_sample(shop.guard.store).runs] == [False, False]


def test_what_was_put_right_is_verified() -> None:
    """A wrong refund that was undone, and made right in the same run, is a verified outcome."""
    shop = Shop()
    with shop.guard.run(run_id="r-1"):
        with pytest.raises(Exception, match="paid"):
            shop.refund(ticket_id="T-wrong-1", amount_usd=5)
        shop.refund(ticket_id="T-1", amount_usd=5)
    (run,) = read_sample(shop.guard.store).runs
    assert run.verified is True


def test_an_empty_record_is_a_record() -> None:
    """A store without runs makes signals unknown by their number, not by a store that is missing."""
    sample = read_sample(Shop().guard.store)
    report = grade(good(record=sample))
    (audit,) = [f for f in report.findings if f.id == "governance.audit"]
    assert audit.evidence.startswith("0 runs, and 30 are needed")
