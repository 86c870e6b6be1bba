"""For tests of agents: time and people that obey, questions to the record, and real kills.

It needs no pytest; with pytest installed, the plugin `agentguard_pytest` brings the fixtures.
"""

from ..guard import override
from .assertions import assert_waiting, assert_within_budget, assert_wrote_once
from .check import check_idempotent
from .clock import FakeClock
from .people import Person
from .report import Case, Report

__all__ = [
    "Case",
    "FakeClock",
    "Person",
    "Report",
    "assert_waiting",
    "assert_within_budget",
    "assert_wrote_once",
    "check_idempotent",
    "override",
]
