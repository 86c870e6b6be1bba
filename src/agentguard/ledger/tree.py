"""Merkle trees as RFC 9162 has them: a root for all leaves, and proofs that need few of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..canonical import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

EMPTY = sha256(b"")
"""The root of a tree without leaves."""


def leaf(entry: bytes) -> bytes:
    """Return the hash of an entry; its first byte keeps it apart from those of nodes."""
    return sha256(b"\x00" + entry)


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of two hashes."""
    return sha256(b"\x01" + left + right)


def root(leaves: Iterable[bytes]) -> bytes:
    """Return the hash that stands for all *leaves* and their order."""
    peaks: list[bytes] = []  # the roots of full trees, each smaller than the one before
    for count, digest in enumerate(leaves):
        peak, full = digest, count
        while full & 1:
            peak, full = node(peaks.pop(), peak), full >> 1
        peaks.append(peak)
    return _joined(peaks)


def _joined(peaks: list[bytes]) -> bytes:
    if not peaks:
        return EMPTY
    digest = peaks.pop()
    while peaks:
        digest = node(peaks.pop(), digest)
    return digest


def inclusion(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the proof that the leaf at *index* is one of *leaves*: one hash for each level."""
    if len(leaves) == 1:
        return []
    half = _half(len(leaves))
    left, right = leaves[:half], leaves[half:]
    if index < half:
        return [*inclusion(left, index), root(right)]
    return [*inclusion(right, index - half), root(left)]


def consistency(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """Return the proof that the tree of *leaves* continues that of its first *size* ones."""
    return _common(leaves, size, is_whole=True) if 0 < size < len(leaves) else []


def _common(leaves: Sequence[bytes], size: int, *, is_whole: bool) -> list[bytes]:
    if size == len(leaves):
        return [] if is_whole else [root(leaves)]
    half = _half(len(leaves))
    left, right = leaves[:half], leaves[half:]
    if size <= half:
        return [*_common(left, size, is_whole=is_whole), root(right)]
    return [*_common(right, size - half, is_whole=False), root(left)]


def _half(count: int) -> int:
    """Return the largest power of two below *count*."""
    return 1 << ((count - 1).bit_length() - 1)


def includes(digest: bytes, index: int, size: int, proof: Iterable[bytes], whole: bytes) -> bool:
    """Tell whether *proof* shows *digest* at *index* in a tree of *size* leaves and root *whole*."""
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    for other in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            digest = node(other, digest)
            at, last = _up_to_a_right_child(at, last)
        else:
            digest = node(digest, other)
        at, last = at >> 1, last >> 1
    return last == 0 and digest == whole


def continues(old: tuple[int, bytes], new: tuple[int, bytes], proof: Iterable[bytes]) -> bool:
    """Tell whether *proof* shows that a tree only grew; *old* and *new* are sizes and roots."""
    (size, before), (grown, after), path = old, new, list(proof)
    if size > grown:
        return False
    if size in (0, grown):
        return not path and before == (EMPTY if size == 0 else after)
    if size & (size - 1) == 0:  # the old tree is a node of the new one
        path.insert(0, before)
    at, last = size - 1, grown - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    return bool(path) and _both(iter(path), at, last) == (before, after)


def _both(path: Iterator[bytes], at: int, last: int) -> tuple[bytes, bytes] | None:
    """Put the old root and the new one together from the same proof."""
    old = new = next(path)
    for other in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            old, new = node(other, old), node(other, new)
            at, last = _up_to_a_right_child(at, last)
        else:
            new = node(new, other)
        at, last = at >> 1, last >> 1
    return (old, new) if last == 0 else None


def _up_to_a_right_child(at: int, last: int) -> tuple[int, int]:
    while at and not at & 1:
        at, last = at >> 1, last >> 1
    return at, last
