"""What `agentguard_llamaindex` builds on: who a call belongs to, and what a context keeps of it."""

from ._place import running_step
from ._session import KEPT

__all__ = ["KEPT", "running_step"]
