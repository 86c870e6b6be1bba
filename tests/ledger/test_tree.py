"""Merkle trees: known roots, and proofs that hold for what is there and for nothing else."""

from __future__ import annotations

import pytest

from agentguard.ledger import tree

ENTRIES = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
ROOTS = (  # of the first 0, 1, 2 … entries, as the logs of Certificate Transparency know them
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
LEAVES = [tree.leaf(bytes.fromhex(entry)) for entry in ENTRIES]
MANY = [tree.leaf(str(number).encode()) for number in range(70)]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_that_everybody_computes(size: int) -> None:
    """The known entries of Certificate Transparency have the known roots."""
    assert tree.root(LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(
    ("index", "neighbour", "pair", "half"),
    [
        (0, 1, "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", LEAVES[4:]),
        (5, 4, "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0", LEAVES[:4]),
    ],
)
def test_a_proof_has_the_hashes_that_the_standard_gives_it(
    index: int, neighbour: int, pair: str, half: list[bytes]
) -> None:
    """Known proofs: the neighbour, the pair beside it, the other half."""
    expected = [LEAVES[neighbour], bytes.fromhex(pair), tree.root(half)]
    assert tree.inclusion(LEAVES, index) == expected


def test_every_leaf_is_proven_in_a_tree_of_every_size() -> None:
    """A proof of inclusion holds for its leaf, place, size and root."""
    for size in range(1, len(MANY) + 1):
        whole = tree.root(MANY[:size])
        for index in range(size):
            proof = tree.inclusion(MANY[:size], index)
            assert tree.includes(MANY[index], index, size, proof, whole)


def test_no_proof_holds_for_anything_else() -> None:
    """Another leaf, place, size or root, or a proof that is longer, shorter or bent: refused."""
    for size in range(2, 20):
        whole = tree.root(MANY[:size])
        for index in range(size):
            proof = tree.inclusion(MANY[:size], index)
            bent = [*proof[:-1], MANY[40]]
            assert not tree.includes(MANY[41], index, size, proof, whole)
            assert not tree.includes(MANY[index], size, size, proof, whole)
            assert not tree.includes(MANY[index], -1, size, proof, whole)
            assert not tree.includes(MANY[index], index, size, proof, tree.root(MANY[: size + 1]))
            for wrong in ([*proof, MANY[0]], proof[:-1], bent):
                assert not tree.includes(MANY[index], index, size, wrong, whole)


def test_every_growth_is_proven() -> None:
    """A proof of consistency holds for every pair of sizes of one log."""
    for grown in range(len(MANY) + 1):
        new = (grown, tree.root(MANY[:grown]))
        for size in range(grown + 1):
            old = (size, tree.root(MANY[:size]))
            assert tree.continues(old, new, tree.consistency(MANY[:grown], size))


def test_no_growth_is_proven_that_changed_what_was_there() -> None:
    """Another old root or another new one, a log that shrank, a proof that is bent: refused."""
    other = [MANY[60], *MANY[1:]]
    for grown in range(2, 20):
        new = (grown, tree.root(MANY[:grown]))
        for size in range(1, grown):
            proof = tree.consistency(MANY[:grown], size)
            old = (size, tree.root(MANY[:size]))
            changed = (size, tree.root(other[:size]))
            assert not tree.continues(changed, new, proof)
            assert not tree.continues(changed, new, tree.consistency(other[:grown], size))
            assert not tree.continues(old, (grown, tree.root(other[:grown])), proof)
            assert not tree.continues(new, old, proof)
            for wrong in ([*proof, MANY[0]], proof[:-1], [MANY[50], *proof[1:]]):
                assert not tree.continues(old, new, wrong)
