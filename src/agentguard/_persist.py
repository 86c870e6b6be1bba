"""Writing down an outcome that the store would not take at once."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .errors import StoreUnavailable
from .ledger import settling

if TYPE_CHECKING:
    from .ledger.values import Settlement
    from .protocols import Store


def keep_trying(store: Store, settlement: Settlement) -> None:
    """Try to write an outcome until the process ends; the caller was told that it is in doubt."""

    def work() -> None:
        wait = 0.5
        while True:
            time.sleep(wait)
            try:
                store.transact(settling.settle, settlement)
            except StoreUnavailable:
                wait = min(wait * 2, 30.0)
            else:
                return

    threading.Thread(target=work, name="agentguard-record", daemon=True).start()
