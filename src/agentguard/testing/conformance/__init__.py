"""The conformance suite: one behaviour on every runtime, as tests that an adapter inherits.

```python
class TestMyRuntime(AdapterContract):
    runtime = MyRuntime  # a subclass of Runtime
```
"""

from .contract import AdapterContract
from .plain import PlainPython
from .runtime import Runtime
from .scene import (
    INPUT_TOKENS,
    MODEL,
    OUTPUT_TOKENS,
    QUESTION,
    Call,
    Outcome,
    Scene,
    Script,
    Shown,
    Turn,
)

__all__ = [
    "INPUT_TOKENS",
    "MODEL",
    "OUTPUT_TOKENS",
    "QUESTION",
    "AdapterContract",
    "Call",
    "Outcome",
    "PlainPython",
    "Runtime",
    "Scene",
    "Script",
    "Shown",
    "Turn",
]
