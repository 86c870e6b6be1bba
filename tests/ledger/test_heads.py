"""A tenant's log: places are given once, proofs hold for what has one, and growth is proven."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentguard import Guard, Principal
from agentguard.ledger import heads, tree
from agentguard.protocols import Tx

T = "default"


@pytest.fixture(name="guard")
def guard_of_its_own(tmp_path: Path) -> Iterator[Guard]:
    """Give a guard on a new file."""
    guard = Guard(f"sqlite:///{tmp_path / 'store.db'}")
    yield guard
    guard.close()


def play(guard: Guard, *names: str, tenant: str = T) -> None:
    """Make runs, each with a beginning and an end: two leaves."""
    for name in names:
        with guard.run("work", run_id=name, principal=Principal(agent="a", tenant=tenant)):
            pass


def places(guard: Guard) -> list[tuple[str, int]]:
    """List run and event of each place."""
    sql = "SELECT run_id, seq, position FROM leaves WHERE tenant = ? ORDER BY position"
    rows = guard.store.read(lambda tx: list(tx.rows(sql, (T,))))
    found = [(run_id, seq) for run_id, seq, position in rows if position is not None]
    assert [row[2] for row in rows if row[2] is not None] == list(range(len(found)))
    return found


def test_a_leaf_has_no_place_until_it_is_given_one(guard: Guard) -> None:
    """Runs leave leaves without places; a pass gives all of them theirs, without a gap."""
    play(guard, "a", "b")
    assert places(guard) == []
    assert guard.store.transact(heads.place, T) == 4
    assert sorted(places(guard)) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert guard.store.transact(heads.place, T) == 0


def test_a_place_is_kept(guard: Guard) -> None:
    """Later leaves come behind: what has a place keeps it, also over passes cut short."""
    play(guard, "m", "n")
    assert guard.store.transact(heads.place, T, 3) == 3
    before = places(guard)
    play(guard, "a")
    assert [guard.store.transact(heads.place, T, 2) for _ in range(3)] == [2, 1, 0]
    assert places(guard)[:3] == before
    assert len(places(guard)) == 6


def test_tenants_have_logs_of_their_own(guard: Guard) -> None:
    """A leaf of one tenant takes no place in the log of another."""
    play(guard, "a")
    play(guard, "a", "b", tenant="acme")
    assert guard.store.transact(heads.place, T) == 2
    assert guard.store.read(heads.head, "acme").size == 0
    assert guard.store.transact(heads.place, "acme") == 4


def test_passes_at_once_give_each_place_once(tmp_path: Path, guard: Guard) -> None:
    """Several workers may place at the same moment: no gap, no place given twice."""
    play(guard, *(f"r-{number}" for number in range(12)))
    others = [Guard(f"sqlite:///{tmp_path / 'store.db'}") for _ in range(4)]

    def work(other: Guard) -> int:
        given = 0
        while more := other.store.transact(heads.place, T, 2):
            given += more
        return given

    with ThreadPoolExecutor(len(others)) as pool:
        assert sum(pool.map(work, others)) == 24
    assert len(set(places(guard))) == 24
    for other in others:
        other.close()


def test_a_leaf_is_proven_to_whoever_has_the_head(guard: Guard) -> None:
    """The end of a run, its proof and the head's root fit, and fit for no other size."""
    play(guard, "a", "b", "c")
    guard.store.transact(heads.place, T)
    head = guard.store.read(heads.head, T)
    index, proof = guard.store.read(heads.inclusion, T, "b", 2, head.size)
    digest = guard.store.read(leaf, "b", 2)
    assert tree.includes(digest, index, head.size, proof, head.root)
    assert not tree.includes(digest, index + 1, head.size, proof, head.root)


def leaf(tx: Tx, run_id: str, seq: int) -> bytes:
    """Look a leaf up."""
    row = tx.row("SELECT hash FROM leaves WHERE run_id = ? AND seq = ?", (run_id, seq))
    assert row is not None
    return bytes(row[0])


def test_what_has_no_place_yet_is_not_proven(guard: Guard) -> None:
    """A leaf that came later, or never, is refused by name."""
    play(guard, "a")
    guard.store.transact(heads.place, T)
    play(guard, "b")
    for run_id in ("b", "nobody"):
        with pytest.raises(LookupError, match=f"event 2 of run {run_id} is not among the first 2"):
            guard.store.read(heads.inclusion, T, run_id, 2, 2)


def test_a_log_proves_that_it_only_grew(guard: Guard) -> None:
    """Between any two heads there is a proof that the later one continues the earlier one."""
    kept = []
    for number in range(5):
        play(guard, f"r-{number}")
        guard.store.transact(heads.place, T)
        kept.append(guard.store.read(heads.head, T))
    for old in kept:
        for new in kept[kept.index(old) :]:
            proof = guard.store.read(heads.consistency, T, old.size, new.size)
            assert tree.continues((old.size, old.root), (new.size, new.root), proof)


def test_a_record_that_is_whole_has_no_contradictions(guard: Guard) -> None:
    """Whether its leaves have places or not, with every head that was kept of it."""
    anchors = [guard.store.read(heads.head, T)]
    for number in range(3):
        play(guard, f"r-{number}")
        guard.store.transact(heads.place, T)
        anchors.append(guard.store.read(heads.head, T))
    play(guard, "later")
    for anchor in [None, *anchors]:
        assert guard.store.read(lambda tx, at=anchor: list(heads.contradictions(tx, T, at))) == []
