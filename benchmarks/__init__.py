"""Agentguard beside its floors and its peers, measured in one run: `python -m benchmarks`."""
