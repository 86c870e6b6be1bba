"""agentguard for Semantic Kernel: guard a kernel, its functions and its model calls from outside."""

from ._call import SemanticKernelHost
from ._history import questions
from ._kernel import guard_kernel
from ._verifier import model_verifier

__all__ = ["SemanticKernelHost", "guard_kernel", "model_verifier", "questions"]
