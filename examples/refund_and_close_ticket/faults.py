"""The failure switch: a service does on command what real services do on a bad day.

Orders come from `POST /faults`, for the requests to come, or from the request's own `X-Fault`
header, such as `X-Fault: drop_reply` or `X-Fault: fail_503, retry_after=2`.

| order        | what happens                                                                  |
|--------------|-------------------------------------------------------------------------------|
| `fail_503`   | answers 503 before anything happens, with Retry-After if `retry_after` is set |
| `latency_ms` | the work takes that much longer, until set to 0                               |
| `hold`       | waits before the effect until somebody releases it, or refuses after a minute |
| `hold_reply` | does the effect, then waits until somebody releases the reply                 |
| `drop_reply` | does the effect, then closes the connection without a word                    |
| `fail_500`   | does the effect, then answers 500 all the same                                |
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus

from .refusals import Refusal

COUNTED = ("fail_503", "hold", "hold_reply", "drop_reply", "fail_500")
SETTINGS = ("latency_ms", "retry_after")
KINDS = ("reads", "writes")
LARGEST = 1_000_000
LONGEST_HOLD_S = 60.0  # a forgotten release ends with its test, not with the machine


class ReplyLost(Exception):
    """The connection is to be closed without a reply."""


class FaultSwitch:
    """The orders for the requests to come, for reads and for writes.

    A counted order is used up by as many requests as it names; a setting holds until changed.
    """

    def __init__(self) -> None:
        self._orders: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self._changed = threading.Condition()
        self.releases = 0

    def order(self, kind: str, orders: Mapping[str, int]) -> None:
        """Take *orders*, already checked, for the requests of one *kind*."""
        with self._changed:
            self._orders[kind].update(orders)

    def take(self, kind: str, name: str) -> bool:
        """Use up one of a counted order; False if there is none left."""
        with self._changed:
            left = self._orders[kind].get(name, 0)
            self._orders[kind][name] = max(0, left - 1)
        return left > 0

    def setting(self, kind: str, name: str) -> int | None:
        """Return a setting, or None while nobody has ordered any."""
        with self._changed:
            return self._orders[kind].get(name)

    def hold(self, since: int) -> bool:
        """Wait until somebody releases, and return whether anybody did.

        A release after *since* counts, even if it came before the wait.
        """
        with self._changed:
            return self._changed.wait_for(lambda: self.releases > since, LONGEST_HOLD_S)

    def release(self) -> None:
        """Let everything go that is held now."""
        with self._changed:
            self.releases += 1
            self._changed.notify_all()

    def reset(self) -> None:
        """Forget every order, and let go what is held."""
        with self._changed:
            self._orders = {kind: {} for kind in KINDS}
        self.release()

    def standing(self) -> dict[str, dict[str, int]]:
        """Return the orders that are still to be carried out."""
        with self._changed:
            return {
                kind: {name: value for name, value in orders.items() if value}
                for kind, orders in self._orders.items()
            }


VERBS = {"release": FaultSwitch.release, "reset": FaultSwitch.reset}


class RequestFaults:
    """What is to go wrong with one request: its own header first, then the switch."""

    def __init__(self, switch: FaultSwitch, kind: str, header: str | None) -> None:
        self._switch = switch
        self._kind = kind
        self._own = _from_header(header) if header is not None else {}
        # Noted before the effect: a release between effect and hold must not be missed.
        self._since = switch.releases

    def before(self) -> None:
        """Refuse the request while nothing has happened, if so ordered."""
        if not self._take("fail_503"):
            return
        seconds = self._setting("retry_after")
        headers = {} if seconds is None else {"Retry-After": str(seconds)}
        sentence = "The service is out of order for a moment; nothing has happened."
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", sentence, headers)

    def work(self) -> None:
        """Take as long over the work as ordered."""
        time.sleep((self._setting("latency_ms") or 0) / 1000)
        if self._take("hold") and not self._switch.hold(self._since):
            sentence = "Nobody released this request; nothing has happened."
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "held_too_long", sentence)

    def after(self) -> None:
        """Spoil the reply of what has been done, if so ordered."""
        if self._take("hold_reply") and not self._switch.hold(self._since):
            raise ReplyLost
        if self._take("drop_reply"):
            raise ReplyLost
        if self._take("fail_500"):
            sentence = "The service failed while answering; what it did stays done."
            raise Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "failed_after_effect", sentence)

    def _take(self, name: str) -> bool:
        return self._own.pop(name, 0) > 0 or self._switch.take(self._kind, name)

    def _setting(self, name: str) -> int | None:
        return self._own.get(name, self._switch.setting(self._kind, name))


def checked_orders(orders: Mapping[str, object]) -> dict[str, int]:
    """Return *orders* as numbers by name.

    Raises:
        Refusal: an order is unknown, or its value is no whole number.
    """
    return {name: _checked(name, value) for name, value in orders.items()}


def _checked(name: str, value: object) -> int:
    if name not in (*COUNTED, *SETTINGS):
        known = ", ".join((*COUNTED, *SETTINGS))
        raise Refusal.bad(f"There is no fault {name!r}; there are {known}.")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise Refusal.bad(f"Fault {name} takes a whole number from 0 to {LARGEST}.")
    return value


def _from_header(header: str) -> dict[str, int]:
    pairs = (part.strip().partition("=") for part in header.split(","))
    return checked_orders({name: _number(value or "1") for name, _, value in pairs})


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None
