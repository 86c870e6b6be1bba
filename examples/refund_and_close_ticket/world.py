"""The outside world of the demo and of tests: both services as processes, gone when you are.

with World(directory) as world:
    ...  # call world.payments_url and world.helpdesk_url, as an agent's tools would
    assert len(world.refunds("T-1001")) == 1
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal, NotRequired, Self, TypedDict
from urllib.parse import quote, urlencode, urlsplit

ServiceName = Literal["payments", "helpdesk"]
SECONDS_TO_START = 30.0
SECONDS_TO_STOP = 5.0
CLIENT_TIMEOUT_S = 90.0  # longer than a service ever holds a request


class Refund(TypedDict):
    """A refund as payments shows it; amounts are decimal strings."""

    id: str
    ticket_id: str
    amount_usd: str
    status: Literal["succeeded", "voided"]
    created_at: str
    voided_at: str | None
    idempotency_key: str | None


class Comment(TypedDict):
    """A comment as the helpdesk shows it."""

    id: str
    text: str
    at: str


class Ticket(TypedDict):
    """A ticket as the helpdesk shows it; *amount_usd* is what the customer asks for."""

    id: str
    customer: str
    order_id: str
    subject: str
    message: str
    amount_usd: str
    status: Literal["open", "closed"]
    comments: list[Comment]


class Effect(TypedDict):
    """One line of a journal: something that happened in the world."""

    seq: int
    at: str
    effect: Literal["refund.created", "refund.voided", "comment.added", "ticket.closed"]
    ticket_id: str
    idempotency_key: str | None
    refund_id: NotRequired[str]
    amount_usd: NotRequired[str]
    comment_id: NotRequired[str]
    text: NotRequired[str]
    mailed: NotRequired[str]


class WorldBroken(RuntimeError):
    """A service did not start, or refused what the world asked of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A service's reply, whatever its status."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """The reply's JSON."""
        return json.loads(self.content)


def ask(
    method: str,
    url: str,
    fields: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request and return the answer, good or bad.

    `http.client` because it does exactly this: no proxy from the environment, no second try.

    Raises:
        http.client.RemoteDisconnected: the connection was closed without a reply.
        OSError: nobody listens there.
    """
    address = urlsplit(url)
    content = b"" if fields is None else json.dumps(fields).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    connection = HTTPConnection(address.netloc, timeout=CLIENT_TIMEOUT_S)
    try:
        connection.request(method, url.partition(address.netloc)[2] or "/", content, sent)
        with connection.getresponse() as reply:
            return Answer(reply.status, dict(reply.getheaders()), reply.read())
    finally:
        connection.close()


class World:
    """Both services, each a process with its own file in *directory*; use it in a `with`.

    Entered again in the same directory, it finds what happened before. Its processes die with
    this one, even by SIGKILL.
    """

    def __init__(
        self, directory: Path | str, *, tickets: Path | None = None, strict_keys: bool = False
    ) -> None:
        self.directory = Path(directory).resolve()
        self._options = {
            "payments": ["--strict-keys"] * strict_keys,
            "helpdesk": ["--tickets", str(tickets.resolve())] if tickets else [],
        }
        self._running: dict[ServiceName, _Process] = {}

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            undo.callback(self.stop)
            self.start("payments")
            self.start("helpdesk")
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, service: ServiceName) -> None:
        """Start a service; one that ran before comes back at the address it had."""
        options = self._options[service]
        if before := self._running.get(service):
            before.kill()
            options = [*options, "--port", str(urlsplit(before.url).port)]
        self._running[service] = _Process(service, self.directory, options)

    def kill(self, service: ServiceName) -> None:
        """End a service as a power cut would."""
        self._running[service].kill()

    def stop(self) -> None:
        """End both services in good order; what happened stays in the directory."""
        processes = list(self._running.values())
        self._running.clear()
        for process in processes:
            process.ask_to_stop()
        for process in processes:
            process.wait()

    @property
    def payments_url(self) -> str:
        """Where payments answers."""
        return self._running["payments"].url

    @property
    def helpdesk_url(self) -> str:
        """Where the helpdesk answers."""
        return self._running["helpdesk"].url

    def refunds(self, ticket_id: str | None = None) -> list[Refund]:
        """List the refunds, of one ticket or of all."""
        query = "" if ticket_id is None else "?" + urlencode({"ticket_id": ticket_id})
        listed: list[Refund] = self._get("payments", f"/refunds{query}")["refunds"]
        return listed

    def tickets(self, status: Literal["open", "closed"] | None = None) -> list[Ticket]:
        """List the tickets, of one status or all."""
        query = "" if status is None else f"?status={status}"
        listed: list[Ticket] = self._get("helpdesk", f"/tickets{query}")["tickets"]
        return listed

    def ticket(self, ticket_id: str) -> Ticket:
        """Show one ticket."""
        shown: Ticket = self._get("helpdesk", f"/tickets/{quote(ticket_id, safe='')}")
        return shown

    def comments(self, ticket_id: str) -> list[str]:
        """List what was said on a ticket."""
        return [comment["text"] for comment in self.ticket(ticket_id)["comments"]]

    def journal(self, service: ServiceName, *, at_least: int = 0, within: int = 20) -> list[Effect]:
        """List every effect a service ever had, in order: the oracle outside of agentguard.

        Waits until there are *at_least* so many, but no longer than *within* seconds.
        """
        query = urlencode({"at_least": at_least, "within": within})
        effects: list[Effect] = self._get(service, f"/journal?{query}")["effects"]
        return effects

    def fault(
        self, service: ServiceName, *, on: Literal["reads", "writes"] = "writes", **orders: int
    ) -> None:
        """Order what goes wrong with the requests to come; `faults.py` lists the orders."""
        self._order(service, {"on": on, **orders})

    def release(self, service: ServiceName) -> None:
        """Let go the requests and replies that a fault holds."""
        self._order(service, {"do": "release"})

    def calm(self) -> None:
        """Forget all orders, and let go what is held."""
        for service in self._running:
            self._order(service, {"do": "reset"})

    def _order(self, service: ServiceName, fields: Mapping[str, object]) -> None:
        _expect_good(ask("POST", f"{self._running[service].url}/faults", fields))

    def _get(self, service: ServiceName, path: str) -> Any:
        return _expect_good(ask("GET", self._running[service].url + path))


def _expect_good(answer: Answer) -> Any:
    if answer.status >= 400:
        raise WorldBroken(answer.body["message"])
    return answer.body


class _Process:
    """One service as a child of this process."""

    def __init__(self, name: ServiceName, directory: Path, options: list[str]) -> None:
        assert __package__ is not None
        self._log = directory / f"{name}.log"
        words = [sys.executable, "-m", f"{__package__}.{name}", str(directory / f"{name}.db")]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [*words, *options, "--attached", *_parent()],
                cwd=Path(__file__).resolve().parents[__package__.count(".") + 1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its services
            )
        self.url = self._address()

    def _address(self) -> str:
        assert self._child.stdout is not None
        with _killed_after(SECONDS_TO_START, self._child):
            line = self._child.stdout.readline()  # ends with the process at the latest
        if not line:
            self.kill()
            raise WorldBroken(f"{self._last_words()} (all of it: {self._log})")
        return str(json.loads(line)["url"])

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else f"{self._log.stem} ended without a word"

    def kill(self) -> None:
        self._child.kill()
        self._reap()

    def ask_to_stop(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()

    def wait(self) -> None:
        with _killed_after(SECONDS_TO_STOP, self._child):
            self._reap()

    def _reap(self) -> None:
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            pipe.close()


def _parent() -> list[str]:
    # The kernel's "parent" is the thread that started the child. Only the main thread is sure to
    # live as long as the process; for others the end of standard input must do.
    in_main_thread = threading.current_thread() is threading.main_thread()
    return ["--parent", str(os.getpid())] if in_main_thread else []


@contextmanager
def _killed_after(seconds: float, child: subprocess.Popen[bytes]) -> Generator[None]:
    timer = threading.Timer(seconds, child.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
