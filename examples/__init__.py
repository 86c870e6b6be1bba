"""Examples that run: each folder answers one question."""
