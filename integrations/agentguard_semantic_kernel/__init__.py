"""agentguard for Semantic Kernel: guard a kernel, its functions and its model calls from outside."""

from ._call import SemanticKernelHost
from ._history import questions
from ._kernel import guard_kernel
from ._routed import RoutedServiceSelector
from ._verifier import model_verifier

__all__ = [
    "RoutedServiceSelector", "SemanticKernelHost", "guard_kernel", "model_verifier", "questions",
]  # fmt: skip
