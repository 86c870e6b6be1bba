"""How far one file, one server and several go: measured here, then simulated with 10,000 workers."""
