"""What `agentguard_llamaindex` builds on: who a call belongs to, and what a context keeps of it."""

from ._place import call, running_step
from ._session import KEPT

__all__ = ["KEPT", "call", "running_step"]
