"""Every test gets a guard with a store in a file."""

from tests.fixtures import guard

__all__ = ["guard"]
