"""The example's world over real HTTP: what its services promise, and what they refuse."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.client import HTTPConnection, RemoteDisconnected
from itertools import count
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from examples.refund_and_close_ticket.faults import FaultSwitch
from examples.refund_and_close_ticket.ledger import Ledger
from examples.refund_and_close_ticket.service import Application, Route, Server
from examples.refund_and_close_ticket.world import Answer, ServiceName, World, WorldBroken, ask

from tests.support import ROOT

NUMBERS = count(1)
Fields = dict[str, object]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Keep one world for all tests here: each uses tickets and keys of its own."""
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """Give the shared world, and calm it down afterwards."""
    yield shared
    shared.calm()


@pytest.fixture
def ticket() -> str:
    """Name a ticket that payments has never heard of."""
    return f"N-{next(NUMBERS)}"


@pytest.fixture
def key() -> str:
    """Make an idempotency key that nobody has used."""
    return f'"key-{next(NUMBERS)}"'


def pay(world: World, ticket: str, usd: str = "20.00", **headers: str) -> Answer:
    """Ask for a refund; `Idempotency_Key="…"` becomes that header."""
    fields = {"ticket_id": ticket, "amount_usd": usd}
    return ask("POST", f"{world.payments_url}/refunds", fields, named(headers))


def void(world: World, refund_id: str, **headers: str) -> Answer:
    """Ask to take a refund back."""
    return ask("POST", f"{world.payments_url}/refunds/{refund_id}/void", {}, named(headers))


def say(world: World, ticket: str, text: str = "Done.", **headers: str) -> Answer:
    """Add a comment to a ticket."""
    url = f"{world.helpdesk_url}/tickets/{ticket}/comments"
    return ask("POST", url, {"text": text}, named(headers))


def close(world: World, ticket: str) -> Answer:
    """Close a ticket."""
    return ask("POST", f"{world.helpdesk_url}/tickets/{ticket}/close")


def named(headers: dict[str, str]) -> dict[str, str]:
    """Write header names with the dashes that Python's names cannot have."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


def happened(world: World, service: ServiceName, ticket: str) -> list[str]:
    """List the effects a ticket had in one service."""
    return [each["effect"] for each in world.journal(service) if each["ticket_id"] == ticket]


def raw(url: str, content: bytes, *headers: tuple[str, str], path: str = "/refunds") -> Answer:
    """Send bytes as they are, with no header added but the length, unless it is among them."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.putrequest("POST", path)
    for name, value in headers:
        connection.putheader(name, value)
    if not {"Content-Length", "Transfer-Encoding"} & dict(headers).keys():
        connection.putheader("Content-Length", str(len(content)))
    try:
        connection.endheaders(content)
        reply = connection.getresponse()
        return Answer(reply.status, dict(reply.getheaders()), reply.read())
    finally:
        connection.close()


JSON = ("Content-Type", "application/json")


class TestPaymentsKeys:
    """What an idempotency key does at the payments service."""

    def test_a_repeat_is_the_first_reply_again(self, world: World, ticket: str, key: str) -> None:
        """A repeated key gets the first reply, byte for byte, and no second refund."""
        first, second = (pay(world, ticket, Idempotency_Key=key) for _ in "ab")
        assert (first.status, second.status) == (201, 201)
        assert first.content == second.content
        assert happened(world, "payments", ticket) == ["refund.created"]

    def test_a_replay_says_so(self, world: World, ticket: str, key: str) -> None:
        """Only a replayed reply carries the header Idempotent-Replayed."""
        answers = [pay(world, ticket, Idempotency_Key=key) for _ in "ab"]
        assert [each.headers.get("Idempotent-Replayed") for each in answers] == [None, "true"]

    def test_without_a_key_each_request_pays(self, world: World, ticket: str) -> None:
        """Two requests without a key are two refunds."""
        assert [pay(world, ticket).status for _ in "ab"] == [201, 201]
        assert len(world.refunds(ticket)) == 2

    def test_another_payload_is_refused(self, world: World, ticket: str, key: str) -> None:
        """A key that comes back with another amount gets 422 and changes nothing."""
        pay(world, ticket, "20.00", Idempotency_Key=key)
        assert pay(world, ticket, "21.00", Idempotency_Key=key).status == 422
        assert [each["amount_usd"] for each in world.refunds(ticket)] == ["20.00"]

    def test_the_meaning_of_a_payload_counts(self, world: World, ticket: str, key: str) -> None:
        """20 and 20.00 are one payload, so the second is a replay."""
        pay(world, ticket, "20", Idempotency_Key=key)
        assert pay(world, ticket, "20.00", Idempotency_Key=key).status == 201
        assert len(world.refunds(ticket)) == 1

    def test_a_key_at_work_is_a_conflict(self, world: World, ticket: str, key: str) -> None:
        """While a key is at work, the same request gets 409; afterwards there is one refund."""
        world.fault("payments", hold=1)
        loser, winner = race(world, lambda _: pay(world, ticket, Idempotency_Key=key))
        assert (loser.status, winner.status) == (409, 201)
        assert len(world.refunds(ticket)) == 1

    def test_a_key_at_work_refuses_another_payload(
        self, world: World, ticket: str, key: str
    ) -> None:
        """While a key is at work, another payload under it gets 422, not 409."""
        world.fault("payments", hold=1)
        loser, _ = race(world, lambda n: pay(world, ticket, f"2{n}.00", Idempotency_Key=key))
        assert loser.body["error"] == "key_reused"

    def test_a_crowd_with_one_key_pays_once(self, world: World, ticket: str, key: str) -> None:
        """Of 32 simultaneous requests with one key exactly one pays; the others see it or 409."""
        with ThreadPoolExecutor(32) as pool:
            sent = [pool.submit(pay, world, ticket, Idempotency_Key=key) for _ in range(32)]
        assert {each.result().status for each in sent} <= {201, 409}
        assert happened(world, "payments", ticket) == ["refund.created"]

    def test_quoted_and_bare_are_one_key(self, world: World, ticket: str) -> None:
        """A key in the quotes of the IETF draft and the same key without them are equal."""
        pay(world, ticket, Idempotency_Key=f'"{ticket}"')
        pay(world, ticket, Idempotency_Key=ticket)
        assert [each["idempotency_key"] for each in world.refunds(ticket)] == [ticket]

    @pytest.mark.parametrize("bad", ['""', "", "a b", '"open', "é", "x" * 256, '"\\n"'])
    def test_a_malformed_key_is_refused(self, world: World, ticket: str, bad: str) -> None:
        """A key that is no single printable string gets 400 and pays nothing."""
        assert pay(world, ticket, Idempotency_Key=bad).body["error"] == "key_malformed"
        assert world.refunds(ticket) == []

    def test_a_refused_request_uses_up_no_key(self, world: World, ticket: str, key: str) -> None:
        """A key whose first request was invalid is still free for a valid one."""
        assert pay(world, ticket, "-1", Idempotency_Key=key).status == 400
        assert pay(world, ticket, "20.00", Idempotency_Key=key).status == 201

    def test_the_journal_names_the_key(self, world: World, ticket: str, key: str) -> None:
        """Each effect is journalled with the key it was sent with, or with none."""
        pay(world, ticket, Idempotency_Key=key)
        pay(world, ticket)
        effects = [each for each in world.journal("payments") if each["ticket_id"] == ticket]
        assert [each["idempotency_key"] for each in effects] == [key.strip('"'), None]

    def test_refunds_are_found_by_their_key(self, world: World, ticket: str, key: str) -> None:
        """A reconciling client can ask which refund a key has made."""
        made = pay(world, ticket, Idempotency_Key=key).body
        url = f"{world.payments_url}/refunds?idempotency_key={made['idempotency_key']}"
        assert ask("GET", url).body == {"refunds": [made]}

    def test_strict_payments_want_a_key(self, tmp_path: Path) -> None:
        """Payments configured to be strict answer 400 to a write without a key."""
        with World(tmp_path, strict_keys=True) as world:
            assert pay(world, "T-1").body["error"] == "key_missing"
            assert pay(world, "T-1", Idempotency_Key='"k"').status == 201


def race(world: World, send: Callable[[int], Answer]) -> tuple[Answer, Answer]:
    """Send two requests of which payments holds the first to arrive; release it at the end."""
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(send, number) for number in range(2)]
        loser = first_of(sent)
        world.release("payments")
        (winner,) = (each for each in sent if each is not loser)
        return loser.result(), winner.result()


def first_of(sent: list[Future[Answer]]) -> Future[Answer]:
    """Wait for the request that is answered first."""
    done, _ = wait(sent, return_when=FIRST_COMPLETED)
    return done.pop()


class TestPaymentsVoid:
    """Taking a refund back."""

    def test_a_refund_can_be_voided(self, world: World, ticket: str) -> None:
        """A voided refund stays listed, as voided, and both effects are in the journal."""
        refund = pay(world, ticket).body
        assert void(world, refund["id"]).body["status"] == "voided"
        assert [each["status"] for each in world.refunds(ticket)] == ["voided"]
        assert happened(world, "payments", ticket) == ["refund.created", "refund.voided"]

    def test_voiding_twice_is_one_effect(self, world: World, ticket: str) -> None:
        """Voiding what is voided answers with the refund as it stands, and adds no effect."""
        refund = pay(world, ticket).body
        first, second = (void(world, refund["id"]) for _ in "ab")
        assert first.content == second.content
        assert happened(world, "payments", ticket) == ["refund.created", "refund.voided"]

    def test_a_key_belongs_to_its_operation(self, world: World, ticket: str, key: str) -> None:
        """The key of a refund may come again with its void, which is another operation."""
        refund = pay(world, ticket, Idempotency_Key=key).body
        assert void(world, refund["id"], Idempotency_Key=key).body["status"] == "voided"

    @pytest.mark.parametrize("refund_id", ["R-999999", "R-0", "x", "R-1%2F..", "R-" + "9" * 30])
    def test_an_unknown_refund_is_not_found(self, world: World, refund_id: str) -> None:
        """Asking for a refund that does not exist, or to void it, gets 404."""
        assert void(world, refund_id).status == 404
        assert ask("GET", f"{world.payments_url}/refunds/{refund_id}").status == 404


class TestHelpdesk:
    """A backend without idempotency keys."""

    def test_a_repeated_comment_is_there_twice(self, world: World, key: str) -> None:
        """The same comment with the same key is added as often as it is sent."""
        for _ in "ab":
            assert say(world, "T-1001", "Refunded.", Idempotency_Key=key).status == 201
        assert world.comments("T-1001") == ["Refunded.", "Refunded."]

    def test_its_journal_shows_the_ignored_key(self, world: World, key: str) -> None:
        """The journal tells which key a comment came with, although it did not matter."""
        say(world, "T-1002", Idempotency_Key=key)
        assert world.journal("helpdesk")[-1]["idempotency_key"] == key

    def test_closing_twice_mails_twice(self, world: World) -> None:
        """Each close is an effect of its own, because the customer is told each time."""
        assert [close(world, "T-1003").body["status"] for _ in "ab"] == ["closed", "closed"]
        assert happened(world, "helpdesk", "T-1003") == ["ticket.closed", "ticket.closed"]

    def test_a_ticket_shows_what_is_asked(self, world: World) -> None:
        """A ticket tells customer, order, subject and the amount asked, in two decimals."""
        ticket = world.ticket("T-1009")
        assert (ticket["customer"], ticket["order_id"]) == ("Samuel Okafor", "O-57860")
        assert (ticket["subject"], ticket["amount_usd"]) == ("Desk chair returned", "189.00")

    def test_tickets_can_be_listed_by_status(self, world: World) -> None:
        """The list of closed tickets holds those that are closed, and no other."""
        closed = {each["id"] for each in world.tickets() if each["status"] == "closed"}
        assert {each["id"] for each in world.tickets("closed")} == closed > set()

    @pytest.mark.parametrize("ticket", ["T-9999", "%00", "T-1001%2Fclose"])
    def test_an_unknown_ticket_is_not_found(self, world: World, ticket: str) -> None:
        """A comment on a ticket that does not exist gets 404 and happens nowhere."""
        before = world.journal("helpdesk")
        assert say(world, ticket).status == 404
        assert world.journal("helpdesk") == before

    def test_the_tickets_try_what_they_should(self, world: World) -> None:
        """Amounts lie below, at and above 50 USD, and one message gives orders of its own."""
        tickets = world.tickets()
        asked = {each["amount_usd"] for each in tickets}
        assert {"20.00", "50.00", "50.01", "75.50"} <= asked
        (trick,) = (each for each in tickets if "other account" in each["message"])
        assert trick["amount_usd"] not in trick["message"]


class TestFaults:
    """The failure switch."""

    def test_a_dropped_reply_comes_after_the_effect(
        self, world: World, ticket: str, key: str
    ) -> None:
        """A request whose reply is dropped sees a closed connection, and its refund is there."""
        world.fault("payments", drop_reply=1)
        with pytest.raises(RemoteDisconnected):
            pay(world, ticket, Idempotency_Key=key)
        assert len(world.refunds(ticket)) == 1
        assert pay(world, ticket, Idempotency_Key=key).headers["Idempotent-Replayed"] == "true"

    def test_a_dropped_reply_makes_the_helpdesk_repeat(self, world: World) -> None:
        """Whoever tries again after a lost reply has written two comments."""
        with pytest.raises(RemoteDisconnected):
            say(world, "T-1004", X_Fault="drop_reply")
        say(world, "T-1004")
        assert world.comments("T-1004") == ["Done.", "Done."]

    def test_a_replay_can_be_lost_too(self, world: World, ticket: str, key: str) -> None:
        """Two ordered drops lose the first reply and its replay; the third try hears it."""
        world.fault("payments", drop_reply=2)
        for _ in "ab":
            with pytest.raises(RemoteDisconnected):
                pay(world, ticket, Idempotency_Key=key)
        assert pay(world, ticket, Idempotency_Key=key).status == 201
        assert len(world.refunds(ticket)) == 1

    def test_a_503_comes_before_any_effect(self, world: World, ticket: str, key: str) -> None:
        """A 503 names the seconds to wait, has done nothing, and leaves the key free."""
        world.fault("payments", fail_503=1, retry_after=7)
        refused = pay(world, ticket, Idempotency_Key=key)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "7")
        assert world.refunds(ticket) == []
        assert pay(world, ticket, Idempotency_Key=key).status == 201

    def test_a_503_without_seconds_promises_nothing(self, world: World, ticket: str) -> None:
        """Without an ordered retry_after there is no Retry-After header."""
        assert "Retry-After" not in pay(world, ticket, X_Fault="fail_503").headers

    def test_a_500_hides_an_effect(self, world: World, ticket: str, key: str) -> None:
        """An ordered 500 comes after the effect; the key's repeat tells the truth."""
        assert pay(world, ticket, Idempotency_Key=key, X_Fault="fail_500").status == 500
        assert len(world.refunds(ticket)) == 1
        assert pay(world, ticket, Idempotency_Key=key).status == 201

    def test_a_held_reply_leaves_time_to_look(self, world: World, ticket: str) -> None:
        """While a reply is held its effect is in the journal already; released, it arrives."""
        before = len(world.journal("payments"))
        world.fault("payments", hold_reply=1)
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(pay, world, ticket)
            assert world.journal("payments", at_least=before + 1)[-1]["ticket_id"] == ticket
            assert not sent.done()
            world.release("payments")
        assert sent.result().status == 201

    def test_latency_delays_the_reply(self, world: World, ticket: str) -> None:
        """A request with latency takes at least that long."""
        began = time.monotonic()
        assert pay(world, ticket, X_Fault="latency_ms=120").status == 201
        assert time.monotonic() - began >= 0.12

    def test_reads_fail_only_when_asked(self, world: World, ticket: str) -> None:
        """Faults ordered for reads leave writes alone, and the other way round."""
        world.fault("payments", on="reads", fail_503=1)
        assert pay(world, ticket).status == 201
        with pytest.raises(WorldBroken, match="nothing has happened"):
            world.refunds(ticket)
        world.fault("payments", fail_503=1)
        assert len(world.refunds(ticket)) == 1

    def test_calm_forgets_every_order(self, world: World, ticket: str) -> None:
        """After calm, no order stands in any service."""
        world.fault("payments", fail_503=9, latency_ms=900)
        world.fault("helpdesk", on="reads", drop_reply=9)
        world.calm()
        urls = world.payments_url, world.helpdesk_url
        shown = [ask("GET", f"{url}/faults").body for url in urls]
        assert shown == [{"reads": {}, "writes": {}}] * 2
        assert pay(world, ticket).status == 201

    def test_a_release_just_before_the_hold_counts(self) -> None:
        """A request that began before a release is not held after it."""
        switch = FaultSwitch()
        since = switch.releases
        switch.release()
        assert switch.hold(since)

    @pytest.mark.parametrize(
        "orders",
        [
            {"explode": 1},
            {"fail_503": -1},
            {"fail_503": True},
            {"fail_503": "1"},
            {"latency_ms": 1.5},
            {"on": "sundays"},
            {"on": ["reads"]},
            {"do": "nothing"},
            {"do": {}},
        ],
    )
    def test_a_senseless_order_is_refused(self, world: World, orders: Fields) -> None:
        """An order that is unknown or no number gets 400 and stands nowhere."""
        assert ask("POST", f"{world.payments_url}/faults", orders).status == 400
        assert ask("GET", f"{world.payments_url}/faults").body == {"reads": {}, "writes": {}}

    def test_a_senseless_fault_header_is_refused(self, world: World, ticket: str) -> None:
        """A fault header that cannot be understood gets 400 and no effect."""
        assert pay(world, ticket, X_Fault="latency_ms=soon").status == 400
        assert world.refunds(ticket) == []


BAD_CONTENT = {
    "NaN": b'{"ticket_id": "T", "amount_usd": NaN}',
    "Infinity": b'{"ticket_id": "T", "amount_usd": -Infinity}',
    "a member twice": b'{"ticket_id": "T", "amount_usd": "1", "amount_usd": "2"}',
    "a number": b'{"ticket_id": "T", "amount_usd": 20.0}',
    "a boolean": b'{"ticket_id": "T", "amount_usd": true}',
    "zero": b'{"ticket_id": "T", "amount_usd": "0.00"}',
    "below zero": b'{"ticket_id": "T", "amount_usd": "-5"}',
    "tenths of a cent": b'{"ticket_id": "T", "amount_usd": "0.001"}',
    "an exponent": b'{"ticket_id": "T", "amount_usd": "1e3"}',
    "a blank": b'{"ticket_id": "T", "amount_usd": " 5"}',
    "other digits": '{"ticket_id": "T", "amount_usd": "٣"}'.encode(),
    "a fortune": b'{"ticket_id": "T", "amount_usd": "1000000000"}',
    "5,000 digits": b'{"ticket_id": "T", "amount_usd": ' + b"9" * 5000 + b"}",
    "too deep": b"[" * 60_000,
    "half a character": b'{"ticket_id": "\\ud800", "amount_usd": "1"}',
    "not UTF-8": b'{"ticket_id": "\xff", "amount_usd": "1"}',
    "a list": b"[]",
    "nothing": b"",
    "half": b'{"ticket_id": "T"',
    "a field too many": b'{"ticket_id": "T", "amount_usd": "1", "account": "other"}',
    "a field too few": b'{"ticket_id": "T"}',
    "an empty name": b'{"ticket_id": "", "amount_usd": "1"}',
    "a path for a name": b'{"ticket_id": "../T", "amount_usd": "1"}',
}
GOOD = b'{"ticket_id": "T", "amount_usd": "1"}'


class TestBadInput:
    """One sentence each, and nothing half-done."""

    @pytest.mark.parametrize("content", BAD_CONTENT.values(), ids=BAD_CONTENT.keys())
    def test_bad_content_is_refused(self, world: World, content: bytes) -> None:
        """Content that is not exactly what the service takes gets 400 and has no effect."""
        before = world.journal("payments")
        refused(raw(world.payments_url, content, JSON), 400)
        assert world.journal("payments") == before

    @pytest.mark.parametrize(
        "content",
        [b'{"text": "half a \\ud83d smiley"}', b'{"text": " \\n"}', b'{"text": 7}', b"{}"],
    )
    def test_a_bad_comment_is_refused(self, world: World, content: bytes) -> None:
        """A comment that is no text, or holds half a character, gets 400 and is not added."""
        path = "/tickets/T-1005/comments"
        refused(raw(world.helpdesk_url, content, JSON, path=path), 400)
        assert world.comments("T-1005") == []

    @pytest.mark.parametrize("size", [64 * 1024 + 1, 10_000_000])
    def test_a_large_body_is_refused(self, world: World, size: int) -> None:
        """A body over 64 KB gets 413, and the client lives to read it."""
        refused(raw(world.payments_url, b"x" * size, JSON), 413)

    @pytest.mark.parametrize(
        ("status", "headers"),
        [
            (415, []),
            (415, [("Content-Type", "text/plain")]),
            (411, [JSON, ("Transfer-Encoding", "chunked")]),
            (411, [JSON, ("Content-Length", "37"), ("Content-Length", "38")]),
            (400, [JSON, ("Content-Length", "-1")]),
            (400, [JSON, ("Content-Length", "many")]),
            (400, [JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]),
        ],
    )
    def test_bad_headers_are_refused(
        self, world: World, status: int, headers: list[tuple[str, str]]
    ) -> None:
        """Content that is not said to be JSON of one known length has no effect."""
        before = world.journal("payments")
        refused(raw(world.payments_url, GOOD, *headers), status)
        assert world.journal("payments") == before

    def test_other_methods_are_refused(self, world: World) -> None:
        """A known address answers another method with 405 and the methods it takes."""
        answer = ask("DELETE", f"{world.payments_url}/refunds")
        refused(answer, 405)
        assert answer.headers["Allow"] == "POST, GET"

    @pytest.mark.parametrize(
        ("status", "path"),
        [
            (404, "/nothing"),
            (400, "/refunds?ticket=T-1"),
            (400, "/refunds?ticket_id=a&ticket_id=b"),
            (400, "/journal?at_least=-1"),
        ],
    )
    def test_a_bad_address_is_refused(self, world: World, status: int, path: str) -> None:
        """An unknown address gets 404; a misspelt parameter 400, instead of every refund."""
        refused(ask("GET", world.payments_url + path), status)

    def test_an_unfinished_request_has_no_effect(self, world: World, ticket: str) -> None:
        """A client that dies in the middle of its body has paid nothing."""
        connection = HTTPConnection(urlsplit(world.payments_url).netloc)
        connection.putrequest("POST", "/refunds")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "500")
        connection.endheaders(json.dumps({"ticket_id": ticket, "amount_usd": "1"}).encode())
        connection.close()
        assert pay(world, ticket).status == 201
        assert len(world.refunds(ticket)) == 1

    def test_no_trace_leaves_the_service(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """An error inside the service is a plain 500 outside, and a traceback in its log."""
        ledger = Ledger(tmp_path / "x.db", "")
        with Server(0, Application("x", ledger, [Route("GET", "/boom", boom)])) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            answer = ask("GET", f"{server.url}/boom")
            server.shutdown()
            thread.join()
        ledger.close()
        refused(answer, 500)
        assert b"secret" not in answer.content
        assert "RuntimeError: secret" in capfd.readouterr().err


def boom(_: object) -> NoReturn:
    """Fail the way programs fail."""
    raise RuntimeError("secret")


def refused(answer: Answer, status: int) -> None:
    """Check that *answer* refuses with *status*, a code and one plain sentence."""
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body.keys() == {"error", "message"}
    assert answer.body["message"].endswith(".")
    assert "Traceback" not in answer.body["message"]
    assert len(answer.body["message"]) < 200


class TestLasting:
    """What happened stays, and cannot be made not to have happened."""

    def test_an_acknowledged_refund_survives_a_kill(
        self, world: World, ticket: str, key: str
    ) -> None:
        """A killed service comes back at its address with its refunds and its keys."""
        pay(world, ticket, Idempotency_Key=key)
        before = world.payments_url
        world.kill("payments")
        world.start("payments")
        assert world.payments_url == before
        assert pay(world, ticket, Idempotency_Key=key).headers["Idempotent-Replayed"] == "true"
        assert len(world.refunds(ticket)) == 1

    def test_a_killed_service_leaves_no_key_at_work(
        self, world: World, ticket: str, key: str
    ) -> None:
        """A key that was at work when the service was killed is free, as nothing had happened."""
        world.fault("payments", hold=1)
        with ThreadPoolExecutor(2) as pool:
            sent = [pool.submit(pay, world, ticket, Idempotency_Key=key) for _ in "ab"]
            assert first_of(sent).result().status == 409
            world.kill("payments")
        world.start("payments")
        assert pay(world, ticket, Idempotency_Key=key).status == 201
        assert happened(world, "payments", ticket) == ["refund.created"]

    def test_a_world_remembers(self, tmp_path: Path) -> None:
        """A world entered again in its directory holds what happened, and resets no ticket."""
        with World(tmp_path) as world:
            close(world, "T-1001")
            say(world, "T-1001")
        with World(tmp_path) as again:
            assert again.ticket("T-1001")["status"] == "closed"
            assert again.comments("T-1001") == ["Done."]

    @pytest.mark.parametrize("order", ["DELETE FROM journal", "UPDATE journal SET effect = ''"])
    def test_the_journal_is_append_only(self, world: World, ticket: str, order: str) -> None:
        """Not even SQL on the service's file changes or removes a line of the journal."""
        pay(world, ticket)
        db = sqlite3.connect(world.directory / "payments.db")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(order)
        db.close()

    def test_a_commit_is_on_the_disk(self, tmp_path: Path) -> None:
        """The services' files are in WAL mode with full synchronisation."""
        ledger = Ledger(tmp_path / "x.db", "")
        with ledger.reading() as db:
            modes = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in MODES]
        ledger.close()
        assert modes == ["wal", 2]

    def test_waiting_for_the_journal_ends(self, world: World) -> None:
        """Whoever waits for more effects than come gets what there is when the time is over."""
        there = world.journal("payments")
        assert world.journal("payments", at_least=len(there) + 1, within=0) == there


MODES = ("journal_mode", "synchronous")

# A process that enters a world and then waits. In the thread's case only the end of the pipe can
# tell the services, in the fork's case only the kernel: the child keeps the pipe open.
PARENTS = {
    "plain": "enter()",
    "thread": "thread = threading.Thread(target=enter); thread.start(); thread.join()",
    "fork": "enter(); os.fork()",
}
PARENT = """
import os, sys, threading
from examples.refund_and_close_ticket.world import World

world = World(sys.argv[1])

def enter():
    world.__enter__()
    print(world.payments_url, world.helpdesk_url, flush=True)

{}
sys.stdin.read()
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's death")


class TestLives:
    """Services live as long as their world, and no longer."""

    @pytest.mark.parametrize("how", ["plain", "thread", pytest.param("fork", marks=LINUX)])
    def test_services_die_with_a_killed_parent(self, tmp_path: Path, how: str) -> None:
        """Services of a process that is SIGKILLed are gone soon after it."""
        words = [sys.executable, "-c", PARENT.format(PARENTS[how]), str(tmp_path)]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as parent:
            assert parent.stdout is not None
            urls = parent.stdout.readline().split()
            assert [ask("GET", f"{url}/health").status for url in urls] == [200, 200]
            parent.kill()
            parent.wait()
            assert [vanished(url) for url in urls] == [True, True]

    def test_services_outlive_the_thread_that_started_them(self, tmp_path: Path) -> None:
        """A world entered in a thread goes on when that thread has ended."""
        world = World(tmp_path)
        thread = threading.Thread(target=world.__enter__)
        thread.start()
        thread.join()
        assert [each["id"] for each in world.tickets("closed")] == ["T-1012"]
        world.stop()

    def test_leaving_a_world_ends_it(self, tmp_path: Path) -> None:
        """After the `with` nobody listens any more."""
        with World(tmp_path) as world:
            urls = world.payments_url, world.helpdesk_url
        assert [listens(url) for url in urls] == [False, False]

    @pytest.mark.parametrize(
        ("content", "sentence"),
        [
            ("[{}]", r"tickets.json, ticket 1: id is missing\."),
            ("{}", "must hold a list of tickets"),
            ('[{"id": "T", "id": "T"}]', "names a member twice"),
            ("", "not valid JSON"),
        ],
    )
    def test_a_bad_tickets_file_is_named(self, tmp_path: Path, content: str, sentence: str) -> None:
        """A world with a bad tickets file does not start and says what is wrong with it."""
        tickets = tmp_path / "tickets.json"
        tickets.write_text(content)
        with pytest.raises(WorldBroken, match=sentence), World(tmp_path, tickets=tickets):
            pytest.fail("the world has started")

    def test_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        """A world does not start on a file that is no SQLite file, and leaves it alone."""
        (tmp_path / "payments.db").write_text("my diary, " * 100)
        with pytest.raises(WorldBroken, match="not a database"), World(tmp_path):
            pytest.fail("the world has started")
        assert (tmp_path / "payments.db").read_text() == "my diary, " * 100


def vanished(url: str) -> bool:
    """Wait until nobody listens at *url* any more, but not for ever."""
    deadline = time.monotonic() + 15
    while listens(url) and time.monotonic() < deadline:
        continue
    return not listens(url)


def listens(url: str) -> bool:
    """Tell whether somebody accepts connections at *url*; only a refusal says no for sure."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=0.2)
    try:
        connection.connect()
    except ConnectionRefusedError:
        return False
    except OSError:  # caught in the act of closing
        return True
    connection.close()
    return True
