"""The contract of a store, as tests that the author of a store inherits.

```python
class TestMyStore(StoreContract):
    @pytest.fixture
    def store_url(self, tmp_path):
        return f"mystore:///{tmp_path}/store"

    def open(self, url, clock):
        return MyStore(url, clock=clock)
```
"""

import pytest

for _room in ("contract", "crowd", "ledger"):
    pytest.register_assert_rewrite(f"{__name__}.{_room}")  # so that a failure shows what was found

from .contract import StoreContract  # noqa: E402 - after it is to be rewritten

__all__ = ["StoreContract"]
