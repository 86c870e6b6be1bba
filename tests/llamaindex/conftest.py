"""Every test gets a world of its own, and a guard with a store in a file."""

from tests.fixtures import guard, world

__all__ = ["guard", "world"]
