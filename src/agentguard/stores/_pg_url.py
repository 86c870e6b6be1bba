"""What a PostgreSQL URL says: to libpq, to us, and to people, who see no password."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode

from ..durations import seconds
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

LEASE_SECONDS = 30.0
_SECRET = ("password", "sslpassword")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_PREPARES = {"auto": None, "always": True, "never": False}
_OURS = ("schema", "prepare", "lease")
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is.

    Attributes:
        shown: the URL without its password.
        conninfo: what libpq is given.
        schema: the schema of our tables.
        prepares: whether statements are prepared; None to find out whether they can be.
        lease: seconds for which a process that says nothing is taken for alive.
        secrets: what no message may contain.
    """

    shown: str
    conninfo: str = field(repr=False)
    schema: str
    prepares: bool | None
    lease: float
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def plain(self, error: Exception) -> str:
        """Return an error as one line without a password."""
        text = " ".join(str(error).split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse(url: str) -> Address:
    """Return what *url* says.

    Raises:
        ConfigurationError: it is no URL, or an option of ours has a value that it cannot have.
    """
    import psycopg
    from psycopg import conninfo

    shown = redacted(url)
    try:
        place, _, query = url.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        theirs = urlencode([pair for pair in pairs if pair[0] not in _OURS], quote_via=quote)
        found = conninfo.conninfo_to_dict(f"{place}?{theirs}")
    except (psycopg.Error, ValueError):  # its text repeats the URL, with the password
        raise _no_url(shown) from None
    if "@" in str(found.get("dbname", "")):  # of a password with a / in it
        raise _no_url(shown)
    ours = {name: value for name, value in pairs if name in _OURS}
    chosen = {name: str(value) for name, value in found.items() if value is not None}
    return Address(
        shown=shown,
        conninfo=conninfo.make_conninfo(**{**_defaults(chosen, os.environ), **chosen}),
        schema=_schema(ours.get("schema", "agentguard"), shown),
        prepares=_prepares(ours.get("prepare", "auto"), shown),
        lease=_lease(ours.get("lease"), shown),
        secrets=tuple(chosen[name] for name in _SECRET if chosen.get(name)),
    )


def _no_url(shown: str) -> ConfigurationError:
    return ConfigurationError(
        f"{shown} is not a URL that PostgreSQL's own library understands: write"
        " postgresql://user@host:5432/database and percent-encode special characters"
    )


def redacted(url: str) -> str:
    """Return *url* with stars for its passwords, also if it is none."""
    shown = re.sub(r"^(\w+://[^/?#@:]*):.*@", r"\1:***@", url)
    return re.sub(rf"([?&](?:{'|'.join(_SECRET)})=)[^&]*", r"\1***", shown)


def _defaults(chosen: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return what is safer than libpq's own defaults, where neither URL nor environment speaks."""
    found = {"client_encoding": "UTF8"}
    if "PGAPPNAME" not in environment:
        found["application_name"] = "agentguard"
    if "PGCONNECT_TIMEOUT" not in environment:
        found["connect_timeout"] = "10"
    if "service" in chosen or "PGSERVICE" in environment:
        return found
    hosts = (chosen.get("host") or environment.get("PGHOST") or "").split(",")
    if len(hosts) > 1 and "PGTARGETSESSIONATTRS" not in environment:
        found["target_session_attrs"] = "read-write"
    if any(_is_remote(host) for host in hosts) and "PGSSLMODE" not in environment:
        found |= _verified(chosen, environment)
    return found


def _is_remote(host: str) -> bool:
    return bool(host) and not host.startswith(("/", "@")) and host not in _HERE


def _verified(chosen: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Who asks for nothing gets a server that proves who it is; certificates of the system count."""
    if "sslmode" in chosen:
        return {}
    own = Path("~/.postgresql/root.crt").expanduser()
    if "sslrootcert" in chosen or "PGSSLROOTCERT" in environment or own.exists():
        return {"sslmode": "verify-full"}
    return {"sslmode": "verify-full", "sslrootcert": "system"}


def _schema(name: str, shown: str) -> str:
    if not _NAME.match(name):
        raise ConfigurationError(
            f"{shown}: schema={name!r} is no plain name: use small letters, digits and _"
        )
    return name


def _prepares(word: str, shown: str) -> bool | None:
    if word not in _PREPARES:
        raise ConfigurationError(f"{shown}: prepare={word!r}: write auto, always or never")
    return _PREPARES[word]


def _lease(text: str | None, shown: str) -> float:
    return LEASE_SECONDS if text is None else seconds(text, f"{shown}: lease")
