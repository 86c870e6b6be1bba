"""Seeded bugs."""

def install() -> None:
    """Nothing yet."""
