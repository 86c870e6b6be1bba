"""What both services share: HTTP on a free port, routes, and a life that ends with its parent."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import signal
import socketserver
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .faults import KINDS, VERBS, FaultSwitch, ReplyLost, RequestFaults, checked_orders
from .ledger import Ledger
from .refusals import Refusal, only, read_fields

LARGEST_BODY = 64 * 1024
LARGEST_DRAINED = 16 * 1024 * 1024
LONGEST_WAIT_S = 60
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has been read and understood as HTTP.

    Attributes:
        fields: The members of its JSON object.
        query: The parameters behind the question mark.
        faults: What is to go wrong with it.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    fields: dict[str, object]
    faults: RequestFaults


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back, as JSON."""

    body: object
    status: int = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path such as `/refunds/{id}`, and the function that answers it.

    Attributes:
        plain: Never spoiled by faults, so that an experiment can always be watched.
    """

    method: str
    path: str
    answer: Callable[..., Reply]
    plain: bool = False

    def names(self, path: str) -> list[str] | None:
        """Return what stands for the `{…}` in *path*, or None if it is another path."""
        found = re.fullmatch(re.sub(r"\{\w+\}", "([^/]+)", self.path), path)
        return [unquote(name) for name in found.groups()] if found else None


class Application:
    """A service without its socket: its routes, its ledger and its failure switch."""

    def __init__(self, name: str, ledger: Ledger, routes: Sequence[Route]) -> None:
        self.name = name
        self.ledger = ledger
        self.switch = FaultSwitch()
        self._routes = (
            *routes,
            Route("GET", "/health", self._health, plain=True),
            Route("GET", "/journal", self._journal, plain=True),
            Route("GET", "/faults", self._faults, plain=True),
            Route("POST", "/faults", self._order_faults, plain=True),
        )

    def answer(self, request: Request) -> Reply:
        """Answer one request.

        Raises:
            Refusal: the answer is no.
            ReplyLost: there is to be no answer.
        """
        route, names = self._find(request)
        if route.plain:
            return route.answer(request, *names)
        request.faults.before()
        if request.method == "GET":  # a write takes its time itself, once it has claimed its key
            request.faults.work()
        reply = route.answer(request, *names)
        request.faults.after()
        return reply

    def _find(self, request: Request) -> tuple[Route, list[str]]:
        routes = [(route, route.names(request.path)) for route in self._routes]
        here = [(route, names) for route, names in routes if names is not None]
        if not here:
            raise Refusal.unknown(f"such address in {self.name}")
        for route, names in here:
            if route.method == request.method:
                return route, names
        allow = ", ".join(route.method for route, _ in here)
        sentence = f"This address answers {allow} only."
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "bad_method", sentence, {"Allow": allow})

    def _health(self, _: Request) -> Reply:
        return Reply({"service": self.name, "status": "ok"})

    def _journal(self, request: Request) -> Reply:
        only(request.query, optional=("at_least", "within"))
        at_least, within = (_whole(request.query, name) for name in ("at_least", "within"))
        return Reply({"effects": self.ledger.journal(at_least, min(within, LONGEST_WAIT_S))})

    def _faults(self, _: Request) -> Reply:
        return Reply(self.switch.standing())

    def _order_faults(self, request: Request) -> Reply:
        orders = dict(request.fields)
        kind, verb = orders.pop("on", "writes"), orders.pop("do", None)
        if kind not in KINDS or verb not in (None, *VERBS):
            raise Refusal.bad('"on" is "reads" or "writes"; "do" is "release" or "reset".')
        checked = checked_orders(orders)
        if verb is not None:
            VERBS[str(verb)](self.switch)
        self.switch.order(str(kind), checked)
        return Reply(self.switch.standing())


def _whole(query: dict[str, str], name: str) -> int:
    value = query.get(name, "0")
    if not re.fullmatch("[0-9]{1,9}", value):
        raise Refusal.bad(f"{name} must be a whole number.")
    return int(value)


class Server(ThreadingHTTPServer):
    """The socket of one application, a thread for each connection."""

    request_queue_size = 128

    def __init__(self, port: int, application: Application) -> None:
        self.application = application
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Bind without asking for the machine's full name: a broken DNS would cost seconds."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; a client that has gone away needs no traceback."""
        if isinstance(sys.exception(), ConnectionError):
            print("a client has gone away", file=sys.stderr)
        else:
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection: reads requests strictly, writes replies in one piece."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together, or delayed acknowledgements cost 40 ms a reply
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        """Answer a request of any method."""
        try:
            self._send(self._answer())
        except ReplyLost:
            self.close_connection = True

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server calls them so

    def _answer(self) -> Reply:
        try:
            return self.server.application.answer(self._request())
        except Refusal as refusal:
            return _refused(refusal)
        except ReplyLost:
            raise
        except (ConnectionError, TimeoutError):
            raise ReplyLost from None  # nobody is left to read it
        except Exception:  # noqa: BLE001 - the trace belongs in the log, never in a reply
            traceback.print_exc()
            sentence = "The service failed; its log says why."
            return _refused(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "failed", sentence))

    def _request(self) -> Request:
        address = urlsplit(self.path)
        kind = "reads" if self.command == "GET" else "writes"
        fault = self.headers.get("X-Fault")
        content = self._content()
        return Request(
            method=self.command,
            path=address.path,
            query=_query(address.query),
            headers=self.headers,
            fields=read_fields(content),
            faults=RequestFaults(self.server.application.switch, kind, fault),
        )

    def _content(self) -> bytes:
        length = self._length()
        if length > LARGEST_BODY:
            # Unread bytes would reset the connection before the client has read the refusal.
            self._drain(min(length, LARGEST_DRAINED))
            sentence = f"The body must not be larger than {LARGEST_BODY} bytes."
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", sentence)
        content = self.rfile.read(length)
        if len(content) < length:
            raise Refusal.bad("The body is shorter than its Content-Length.")
        if content and self.headers.get_content_type() != "application/json":
            sentence = "Send JSON, with Content-Type: application/json."
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not_json", sentence)
        return content

    def _length(self) -> int:
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        if "Transfer-Encoding" in self.headers or len(lengths) > 1:
            sentence = "Send the body in one piece, with one Content-Length."
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "no_length", sentence)
        if not re.fullmatch("[0-9]{1,15}", length := lengths.pop()):
            raise Refusal.bad("Content-Length must be a whole number.")
        return int(length)

    def _drain(self, length: int) -> None:
        while length > 0 and (read := len(self.rfile.read(min(length, LARGEST_BODY)))):
            length -= read

    def _send(self, reply: Reply) -> None:
        content = json.dumps(reply.body, ensure_ascii=False).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request at all, as JSON like everything else."""
        sentence = explain or message or HTTPStatus(code).phrase
        self._send(_refused(Refusal(code, "bad_http", f"{sentence.rstrip('.')}.")))


def _query(text: str) -> dict[str, str]:
    pairs = parse_qsl(text, keep_blank_values=True)
    if len(dict(pairs)) < len(pairs):
        raise Refusal.bad("The address names a parameter twice.")
    return dict(pairs)


def _refused(refusal: Refusal) -> Reply:
    # A refused request may have left unread bytes behind it, so its connection ends here.
    headers = {**refusal.headers, "Connection": "close"}
    return Reply({"error": refusal.code, "message": str(refusal)}, refusal.status, headers)


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Make the command line that both services have."""
    made = argparse.ArgumentParser(prog=name, description=description)
    made.add_argument("db", type=Path, help="the service's own SQLite file; made if missing")
    made.add_argument("--port", type=int, default=0, help="default: any free one; it is printed")
    made.add_argument("--attached", action="store_true", help="stop when standard input ends")
    made.add_argument("--parent", type=int, help="die with this process (Linux)")
    return made


def run(arguments: argparse.Namespace, build: Callable[[], Application]) -> int:
    """Run a service until it is stopped; print its address as one line of JSON when it answers."""
    try:
        server = Server(arguments.port, build())
    except (OSError, OverflowError, Refusal, sqlite3.Error) as error:
        print(f"cannot start with {arguments.db}: {error}", file=sys.stderr)
        return 1
    if arguments.parent is not None:
        _die_with(arguments.parent)
    if arguments.attached:
        threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    with _closing(server):
        print(json.dumps({"service": server.application.name, "url": server.url}), flush=True)
        server.serve_forever(poll_interval=0.05)
    return 0


@contextmanager
def _closing(server: Server) -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        server.server_close()
        server.application.ledger.close()


def _stop_at_end_of_input(server: Server) -> None:
    while sys.stdin.buffer.read(LARGEST_BODY):
        continue
    server.shutdown()


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when *parent* dies, however it dies."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)
