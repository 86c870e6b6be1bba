"""Whether a body may still begin whose start lies back, by the lease of its process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentguard.stores._pg_owner import LeasedOwner, awake

LEASE = 3600.0


@pytest.fixture(name="owner")
def owner_with_a_lease() -> Iterator[LeasedOwner]:
    """Give an owner whose commits hold for an hour."""
    owner = LeasedOwner(LEASE)
    yield owner
    owner.close()


def renew(owner: LeasedOwner, *ago: float) -> None:
    """Let *owner* have committed so many seconds ago."""
    now = awake()
    for seconds in ago:
        owner.renewed(now - seconds)


def test_a_start_may_begin_while_its_own_lease_runs(owner: LeasedOwner) -> None:
    """A process that was idle for long begins what it has just started."""
    renew(owner, 9 * LEASE, 1)
    assert owner.may_begin(awake() - 2)


def test_a_start_may_begin_late_if_no_lease_ran_out_since(owner: LeasedOwner) -> None:
    """A process that is slow, and was heard of all the time, was taken for lost by nobody."""
    renew(owner, 3000, 2000, 1000)
    assert owner.may_begin(awake() - 2500)
    renew(owner, *range(9000, 0, -1000))
    assert owner.may_begin(awake() - 2500)


def test_a_lease_renewed_too_late_lets_no_earlier_start_begin(owner: LeasedOwner) -> None:
    """Whoever was silent for too long may have been replaced, though it is heard of again."""
    renew(owner, 9000, 1)
    assert not owner.may_begin(awake() - 8999)


def test_a_lease_that_has_run_out_lets_nothing_begin(owner: LeasedOwner) -> None:
    """A process that stood still begins nothing that it had started before."""
    renew(owner, 9000)
    assert not owner.may_begin(awake() - 9000)
