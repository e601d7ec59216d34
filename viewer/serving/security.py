"""Who may see the page: a token in a cookie, the Origin of websockets, and host names that are ours.

A server on 127.0.0.1 can be reached by every page that is open in the user's browser, and by every user of the
machine. The token keeps others out; the Origin keeps foreign pages from using the cookie; the host names keep a foreign
name that was pointed at 127.0.0.1 (DNS rebinding) from counting as our origin.
"""

from __future__ import annotations

import hmac
import html
import ipaddress
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
TOKEN_BYTES = 24  # 192 bits: nothing to gain by guessing
_HOST = re.compile(r"(?:\[(?P<address>[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)\]|(?P<name>[a-zA-Z0-9._-]+))(?::[0-9]{1,5})?")
_NOT_OURS = b"This host name is not one of this server's: use its address, or name it by --host.\n"
_NO = b"<!doctype html><title>splat</title><p>This page opens with the address that splat printed, token included.\n"


@dataclass(frozen=True)
class Ask:
    """What a request says of itself; headers as often as they stand there."""

    target: str
    """Path and query."""
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    cookies: Sequence[str] = ()
    upgrades: bool = False
    """It wants to become a websocket."""


@dataclass(frozen=True)
class Answer:
    """A response that ends the request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Gate:
    """Decides over every request to one server."""

    token: str | None
    """None lets everybody in who passes the other checks."""
    port: int
    names: frozenset[str]
    """Host names that are ours, lower case. Plain addresses always are: no foreign name leads there."""

    @property
    def cookie(self) -> str:
        """Browsers share cookies between all ports of a host; the name keeps two servers apart."""
        return f"splat-{self.port}"

    def answer(self, ask: Ask) -> Answer | None:
        """None: come in."""
        try:
            return self._answer(ask)
        except ValueError:  # an address that is none, as "//["
            return _refused(_NO)

    def _answer(self, ask: Ask) -> Answer | None:
        if not self._is_ours(ask.hosts):
            return _refused(_NOT_OURS)
        if ask.upgrades:
            allowed = self._same_origin(ask) and self._has_cookie(ask)
            return None if allowed else _refused(_NO)
        given = [value for key, value in parse_qsl(urlsplit(ask.target).query) if key == "token"]
        if self.token is not None and any(same(value, self.token) for value in given):
            return self._welcome(ask)
        return None if self._has_cookie(ask) else _refused(_NO)

    def _is_ours(self, hosts: Sequence[str]) -> bool:
        if len(hosts) != 1 or (match := _HOST.fullmatch(hosts[0].strip())) is None:
            return False
        if match["address"] is not None:
            return _is_address(match["address"])
        name = match["name"].lower().rstrip(".")
        return name in self.names or _is_address(name)

    def _same_origin(self, ask: Ask) -> bool:
        if len(ask.origins) != 1:
            return False
        origin = urlsplit(ask.origins[0])
        return origin.scheme in ("http", "https") and origin.netloc.lower() == ask.hosts[0].strip().lower()

    def _has_cookie(self, ask: Ask) -> bool:
        if self.token is None:
            return True
        pairs = [pair.strip().partition("=") for line in ask.cookies for pair in line.split(";")]
        return any(name == self.cookie and same(value, self.token) for name, _, value in pairs)

    def _welcome(self, ask: Ask) -> Answer:
        """Leaves the cookie and goes on to the page without the token. Not by a redirect: after a click on a link in
        another page (a mail, a notebook) a redirected request would not carry a strict cookie."""
        rest = urlencode([pair for pair in parse_qsl(urlsplit(ask.target).query) if pair[0] != "token"])
        onward = html.escape(f"/?{rest}" if rest else "/", quote=True)
        body = f'<!doctype html><title>splat</title><meta http-equiv="refresh" content="0;url={onward}">\n'
        cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
        return Answer(200, (*_plain_headers(), ("Set-Cookie", cookie)), body.encode())


def new_token() -> str:
    return secrets.token_urlsafe(TOKEN_BYTES)


def same(given: str, right: str) -> bool:
    """In a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf8", "surrogateescape"), right.encode("utf8"))


def own_names(host: str) -> frozenset[str]:
    """Names under which a server bound to ``host`` may be asked for."""
    names = {"localhost", host.lower()}
    if not is_loopback(host):
        machine = socket.gethostname().lower()
        names |= {machine, machine.partition(".")[0], f"{machine.partition('.')[0]}.local"}
    return frozenset(names - {""})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host.lower() == "localhost":
        return True
    return _is_address(host) and ipaddress.ip_address(host).is_loopback


def page_headers(host: str) -> tuple[tuple[str, str], ...]:
    """For the page itself: it loads nothing from elsewhere and stands in no foreign frame. ``host`` is the request's
    Host header, which the gate has let through."""
    own = "'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
    policy = (
        f"default-src {own}; connect-src 'self' data: blob: ws://{host} wss://{host}; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'; object-src 'none'"
    )
    return (
        ("Content-Security-Policy", policy), ("X-Frame-Options", "DENY"), ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    )  # fmt: skip


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _plain_headers() -> tuple[tuple[str, str], ...]:
    return (
        ("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"), ("X-Frame-Options", "DENY"),
    )  # fmt: skip


def _refused(body: bytes) -> Answer:
    return Answer(403, _plain_headers(), body)
