"""Where a ticket goes when a run ends in one: a file, a webhook, or whatever has `file`.

A ticket is filed under its key, at most once: a backend that drops repeats of a key says so by
`idempotent`, and only there is filing ever repeated.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlsplit

from .errors import ConfigurationError
from .model import NoEffect

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

_LONGEST_REPLY = 64 * 1024
_REFERENCES = ("reference", "key", "number", "id")
"""What backends call the name of a ticket, the most speaking one first."""
_ELSEWHERE = (301, 302, 307, 308)
SIGNATURE = "X-Agentguard-Signature"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What somebody has to look at: the call that was not made, and why.

    Attributes:
        key: names it; the same however often it is filed.
        arguments: of the call, sensitive ones hidden; None if they could not be read.
        because: the kind of the error, such as `tool_timeout`; *message* is its sentence.
        effect_id: the effect that may or may not have happened, if there is one.
        at: when the call came, in UTC.
    """

    key: str
    run_id: str
    tenant: str
    workflow: str
    tool: str
    arguments: Mapping[str, Any] | None
    because: str
    message: str
    step: int | None = None
    effect_id: str | None = None
    agent: str | None = None
    on_behalf_of: str | None = None
    at: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return asdict(self)


class Tickets(Protocol):
    """A backend of tickets.

    Two attributes are looked for and may be missing: `idempotent`, True if filing a key again gives
    the first ticket, and `find(key)`, which returns the reference of a ticket or None.
    """

    def file(self, ticket: Ticket) -> str:
        """File *ticket* and return what names it there.

        Raises:
            NoEffect: it was not filed and will not be; whatever else is raised may have filed it.
        """
        ...


class FileTickets:
    """Tickets as lines of JSON in a file, each durable before it counts as filed.

    The file is read through for the key first, under its lock, so that a key has one line whoever
    files it, and how often.

    Args:
        path: the file; made if it is not there. Its folder must be.
    """

    idempotent = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"FileTickets({str(self.path)!r})"

    def file(self, ticket: Ticket) -> str:
        """Add a line, or find the one that is there, and return its reference."""
        with self._locked() as descriptor:
            there = self._reference(ticket.key)
            if there is not None:
                return there
            reference = f"T-{hashlib.sha256(ticket.key.encode()).hexdigest()[:12]}"
            line = json.dumps({"reference": reference, **ticket.as_json()}, ensure_ascii=False)
            _append(descriptor, line, torn=self._is_torn())
        return reference

    def find(self, key: str) -> str | None:
        """Return the reference of the ticket with this key, if there is one."""
        return self._reference(key) if self.path.exists() else None

    @contextmanager
    def _locked(self) -> Generator[int]:
        import fcntl

        new = not self.path.exists()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise NoEffect(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
            if new:
                _sync(self.path.absolute().parent)
        finally:
            os.close(descriptor)

    def _reference(self, key: str) -> str | None:
        with self.path.open(encoding="utf-8") as lines:
            for line in lines:
                found = _read(line) if key in line or "\\" in line else None
                if found is not None and found.get("key") == key:
                    return str(found.get("reference"))
        return None

    def _is_torn(self) -> bool:
        """A line whose writer was cut off by the end of the machine is closed by the next one."""
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"


def _append(descriptor: int, line: str, *, torn: bool) -> None:
    rest = memoryview(f"{chr(10) if torn else ''}{line}\n".encode())
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _sync(folder: Path) -> None:
    """Make the name of a new file in *folder* durable, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None  # torn, or a line of somebody else's
    return found if isinstance(found, dict) else None


class WebhookTickets:
    """Tickets as JSON that is posted to an address.

    The request carries the ticket's key as `Idempotency-Key` and, with a secret, an HMAC of its
    body. What the reply calls the ticket (`reference`, `key`, `number` or `id` in its JSON, or its
    `Location`) becomes the reference.

    Args:
        url: `https://…`, or `http://…` where nobody listens in.
        secret: signs each body: `X-Agentguard-Signature: sha256=…`.
        idempotent: the server gives the first ticket again when a key comes again. Only then a
            request whose reply is lost is repeated; otherwise the ticket is in doubt.
        timeout: seconds to wait for a reply.
        headers: more headers, such as `Authorization`.

    Raises:
        ConfigurationError: the address is none for a webhook.
    """

    def __init__(
        self, url: str, *, secret: str | bytes | None = None, idempotent: bool = False,
        timeout: float = 10.0, headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                f"WebhookTickets: {url!r} is no address of a webhook; give https://host/path"
            )
        if parts.username or parts.password:
            raise ConfigurationError(
                "WebhookTickets: no user and password in the address, where logs show them; give"
                " headers={'Authorization': …}"
            )
        self.url, self.idempotent, self.timeout = url, idempotent, timeout
        self._secret = secret.encode() if isinstance(secret, str) else secret
        self._headers = dict(headers or {})

    def __repr__(self) -> str:
        return f"WebhookTickets({self.url!r})"

    def file(self, ticket: Ticket) -> str:
        """Post *ticket* and return what the reply calls it, or its own key."""
        from urllib.error import HTTPError
        from urllib.request import Request

        body = json.dumps(ticket.as_json(), ensure_ascii=False, sort_keys=True).encode()
        headers = {
            **self._headers,
            "Content-Type": "application/json",
            "Idempotency-Key": quote(ticket.key, safe="/"),
        }
        if self._secret is not None:
            headers[SIGNATURE] = f"sha256={hmac.new(self._secret, body, 'sha256').hexdigest()}"
        request = Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310 - checked
        try:
            with _opener().open(request, timeout=self.timeout) as reply:
                named = _named(reply.headers.get("Location"), reply.read(_LONGEST_REPLY))
        except HTTPError as error:
            if error.code in _ELSEWHERE:
                raise NoEffect(f"{self.url} sends tickets elsewhere; give that address") from error
            raise
        return named or ticket.key


def _opener() -> Any:
    """Return what sends a request to its address and to no other: a redirect is an error."""
    from urllib.request import HTTPRedirectHandler, build_opener

    class Nowhere(HTTPRedirectHandler):
        def redirect_request(self, *_args: Any, **_more: Any) -> None:
            return None

    return build_opener(Nowhere)


def _named(location: str | None, body: bytes) -> str | None:
    found = _read(body.decode("utf-8", "replace")) or {}
    names = [found[name] for name in _REFERENCES if isinstance(found.get(name), str | int)]
    return str(names[0])[:500] if names else location
