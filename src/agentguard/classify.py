"""What an exception of an HTTP client or a socket says about the effect of a request.

Nothing is imported for this: clients are told by the shape of their exceptions. The premise is
one writing request per tool; a tool that makes two is two tools.
"""

from __future__ import annotations

from typing import Any

from .tool import DOUBT, Failure

_NOTHING_SENT = frozenset({
    "ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol",  # httpx, requests
    "NewConnectionError", "NameResolutionError", "ConnectTimeoutError",  # urllib3
    "ClientConnectorError", "ClientConnectorDNSError", "ConnectionTimeoutError",  # aiohttp
    "InvalidURL", "MissingSchema", "InvalidSchema",
    "ConnectionRefusedError", "gaierror", "SSLCertVerificationError",  # the standard library
})  # fmt: skip
"""Failures before the first byte of the request was sent, by class name."""

_REFUSED_FOR_GOOD = frozenset({400, 404, 422})
_REFUSED_FOR_NOW = frozenset({401, 403})
_CONFLICT, _TOO_MANY, _UNAVAILABLE = 409, 429, 503


def http_errors(error: BaseException) -> Failure:
    """Return what *error* says: nothing happened, something is there already, or nobody knows.

    4xx refusals and failures before anything was sent had no effect; 429, and 503 with
    Retry-After, may be tried again; 409 asks the reconcile hook; a timeout while reading, a reset
    and any other 5xx may have done it (RFC 9110 §15).
    """
    status = _status(error)
    if status is not None:
        return _by_status(status, error)
    return _by_class(error)


def _by_status(status: int, error: BaseException) -> Failure:
    if status in _REFUSED_FOR_GOOD:
        return Failure(no_effect=True, final=True)
    if status in _REFUSED_FOR_NOW:
        return Failure(no_effect=True)
    if status == _CONFLICT:
        return Failure(conflict=True)
    wait = _retry_after(error)
    if status == _TOO_MANY or (status == _UNAVAILABLE and wait is not None):
        return Failure(no_effect=True, retryable=True, retry_after=wait)
    return DOUBT


def _by_class(error: BaseException) -> Failure:
    for cause in _causes(error):
        names = {kind.__name__ for kind in type(cause).__mro__}
        if names & _NOTHING_SENT:
            return Failure(no_effect=True, retryable=True)
    return DOUBT


def _causes(error: BaseException) -> list[BaseException]:
    """Return *error* and what clients wrap in it: urllib's and urllib3's `reason`, the arguments."""
    found: list[BaseException] = [error]
    for item in found:
        inner = [getattr(item, "reason", None), *getattr(item, "args", ())]
        found += [e for e in inner if isinstance(e, BaseException) and e not in found]
        if len(found) > 10:  # noqa: PLR2004 - a bound, not a meaning
            break
    return found


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that httpx, requests, urllib or aiohttp attach to their errors."""
    response: Any = getattr(error, "response", None)
    urllib = "code" if type(error).__name__ == "HTTPError" else "status"
    for holder, name in ((response, "status_code"), (response, "status"), (error, urllib),
                         (error, "status_code")):  # fmt: skip
        value = getattr(holder, name, None) if holder is not None else None
        if isinstance(value, int) and 100 <= value < 600:  # noqa: PLR2004 - RFC 9110 §15
            return value
    return None


def _retry_after(error: BaseException) -> float | None:
    """Return Retry-After in seconds (RFC 9110 §10.2.3), a number or a date."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    headers = headers if headers is not None else getattr(error, "headers", None)
    text = headers.get("Retry-After") if hasattr(headers, "get") else None
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        return _until(str(text))


def _until(text: str) -> float | None:
    import datetime as dt
    from email.utils import parsedate_to_datetime

    try:
        then = parsedate_to_datetime(text)
        return max(0.0, (then - dt.datetime.now(then.tzinfo)).total_seconds())
    except (ValueError, TypeError):
        return None
