"""What adapters for agent runtimes build on: the port they implement and what they report to."""

from ._models import ModelCall
from ._signature import register_injected
from .protocols import CallRef, Host
from .run import Run, active_run

__all__ = ["CallRef", "Host", "ModelCall", "Run", "active_run", "register_injected"]
