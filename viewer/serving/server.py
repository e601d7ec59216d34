"""A viser server behind a gate.

viser 1.1 asks nobody who they are: no token, no Origin, every address by default. It offers no hook either, so the one
call it makes to open its port is caught while it is made. That seam is private to viser: its version is pinned and
``tests/viewer/test_seam.py`` watches it.
"""

from __future__ import annotations

import errno
import http
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import rich
import viser
from viser import _messages
from viser.infra import _infra

from splat.errors import UserError
from splat.viewer.serving.security import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Answer,
    Ask,
    Gate,
    is_loopback,
    own_names,
    page_headers,
)

PORTS_TRIED = 100
MOST_MESSAGE_BYTES = 32 << 20
"""Of one websocket message from a page; the largest we wait for is the picture of its own window (``get_render``)."""
MOST_UPLOAD_BYTES = 64 << 20
ASK_SECS, ANSWER_SECS = 5.0, 60.0
"""Within which a request has to be there, and the page (0.8 MB, over whatever tunnel) with whoever asked."""
CLOSE_SECS = 0.5
"""The end of a training waits so long for a page that does not answer any more."""
MOST_CONNECTIONS = 64
"""Open at once. A page takes one, and some threads here; a training shares its files and threads with them."""
MOST_UPLOADS = 2
"""At once, of one page."""
_SEAM = threading.Lock()
_log = logging.getLogger("splat.viewer")
_quiet = logging.getLogger("splat.viewer.websockets")
_quiet.propagate = False  # a port scanner's garbage is no news
_quiet.addHandler(logging.NullHandler())


class ViewerError(UserError):
    """The viewer cannot be opened."""


@dataclass(eq=False)
class SecureServer:
    """An open port."""

    viser: viser.ViserServer
    host: str
    port: int
    asked_port: int
    token: str | None
    _opened: _Opened

    @property
    def url(self) -> str:
        """What to open in a browser on this machine; with the token."""
        return self._url(self._name)

    @property
    def tunnel(self) -> str | None:
        """What to type on another machine to bring the page there; None where it can be reached as it is."""
        if not is_loopback(self.host):
            return None
        return f"ssh -L {self.port}:127.0.0.1:{self.port} {socket.gethostname()}"

    def _url(self, name: str) -> str:
        query = "" if self.token is None else "?" + urlencode({"token": self.token})
        return f"http://{name}:{self.port}/{query}"

    @property
    def _name(self) -> str:
        if self.host in ("", "0.0.0.0", "::"):
            return socket.gethostname()
        return f"[{self.host}]" if ":" in self.host else self.host

    def close(self) -> None:
        """Disconnect everybody and free the port."""
        with suppress(RuntimeError):  # its loop is over
            self.viser.get_event_loop().call_soon_threadsafe(self._opened.hang_up)
        self.viser.stop()


@dataclass(eq=False)
class _Opened:
    """What stands in place of the port that viser would have opened."""

    ports: list[int] = field(default_factory=list)
    serving: Any = None
    ending: bool = False

    def hang_up(self) -> None:
        """On those who have not asked for anything yet, or are still being answered: browsers open connections ahead
        of need, and the server would wait for them to ask."""
        self.ending = True
        for connection in tuple(self.serving.server.handlers):
            if connection.state.name == "CONNECTING":
                connection.transport.abort()

    def connection(self, *args: Any, **options: Any) -> _Connection:
        made = _Connection(*args, **options)
        made.opened = self
        return made


class _Connection(_infra.ServerConnection):
    """Dropped when it is one too many, or asks for nothing."""

    opened: _Opened

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.opened.ending or len(self.server.handlers) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self.loop.call_later(ASK_SECS, self._hurry)

    def _hurry(self) -> None:
        if self.request is None:
            self.transport.abort()


def open_server(host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, token: str | None = None) -> SecureServer:
    """Listen on ``host``, on ``port`` or the first free one after it (0: any). ViewerError when that cannot be."""
    check_version(viser.__version__)
    sock = bound_socket(host, port)
    bound = sock.getsockname()[1]
    gate = Gate(token, bound, own_names(host))
    rich.reconfigure(quiet=True)  # viser tells its address (without token) and its end on stdout
    try:
        with _gated(gate, sock) as opened:
            server = viser.ViserServer(host=host, port=bound, label="splat", verbose=False)
    except BaseException:
        sock.close()
        raise
    if opened.ports != [bound]:
        server.stop()
        sock.close()
        raise ViewerError(f"viser {viser.__version__} opened its port unseen; the viewer stays closed")
    _close_tunnels(server)
    return SecureServer(server, host, bound, port, token, opened)


def check_version(version: str) -> None:
    """ViewerError for a viser whose inside is not known here."""
    if version.split(".")[:2] != ["1", "1"]:
        raise ViewerError(f"the viewer needs viser 1.1.*, installed is {version}; pip install 'viser>=1.1,<1.2'")


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening socket. ViewerError when ``host`` is not ours or every port that was tried is taken."""
    if not 0 <= port < 65536:
        raise ViewerError(f"--port {port} does not fit: use 0 (any) to 65535")
    last = min(port + PORTS_TRIED, 65536) if port else 1
    for candidate in range(port, last):
        try:
            return _listening(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ViewerError(f"cannot listen on {host}:{candidate}: {error.strerror or error}") from error
    raise ViewerError(f"ports {port} to {last - 1} of {host} are all taken; name another with --port")


def bound_uploads(client: viser.ClientHandle) -> None:
    """Uploads of ``client`` larger than we read are dropped instead of kept in memory."""
    client.gui._current_file_upload_states = _Uploads()


def forgive_late_words(client: viser.ClientHandle) -> None:
    """A page may leave between the drawing of a picture and its sending: no warning in the terminal of a training."""
    client._websock_connection.get_message_buffer()._warned_push_after_done = True


def is_connected(client: Any) -> bool:
    """Whether the page of ``client`` (or of an event of its) is still there."""
    server = getattr(client, "_viser_server", None)
    return server is not None and client.client_id in server.get_clients()


def tell_failures(server: viser.ViserServer, told: Callable[[Any, Exception], None]) -> None:
    """Of plain callbacks of pages: ``told(client or None, error)`` instead of a traceback on stderr. Pages that come
    from here on."""
    server._thread_executor = _Telling(told)


def tell_failures_in_order(client: viser.ClientHandle, told: Callable[[Any, Exception], None]) -> None:
    """The same of the callbacks that run on the server's own thread, one after the other (drags, camera)."""
    connection = client._websock_connection
    inner = connection._handle_incoming_message

    async def handle(client_id: Any, message: Any) -> None:
        try:
            await inner(client_id, message)
        except Exception as error:
            told(client, error)

    connection._handle_incoming_message = handle


class _Telling(ThreadPoolExecutor):
    """What viser runs plain callbacks on."""

    def __init__(self, told: Callable[[Any, Exception], None]) -> None:
        super().__init__(max_workers=16, thread_name_prefix="splat-callbacks")
        self._told = told

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(self._run, function, *args, **kwargs)

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # the argument is the client, or an event that knows it
            self._told(getattr(args[0], "client", args[0]) if args else None, error)


def _listening(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # a port that was just left is free; elsewhere this would steal a taken one
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(100)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _gated(gate: Gate, sock: socket.socket) -> Iterator[_Opened]:
    """Within, a viser server listens on ``sock`` behind ``gate``."""
    home, opened = _infra.websockets.asyncio.server, _Opened()
    with _SEAM:
        before = home.serve

        def serve(handler: Any, host: str, port: int, *, process_request: Any, **options: Any) -> Any:
            opened.ports.append(port)
            options |= {"max_size": MOST_MESSAGE_BYTES, "logger": _quiet, "open_timeout": ANSWER_SECS,
                        "close_timeout": ANSWER_SECS, "create_connection": opened.connection}  # fmt: skip
            opened.serving = before(handler, sock=sock, process_request=_guarded(gate, process_request), **options)
            return opened.serving

        home.serve = serve
        try:
            yield opened
        finally:
            home.serve = before


def _guarded(gate: Gate, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def process_request(connection: Any, request: Any) -> Any:
        headers = request.headers
        hosts = headers.get_all("Host")
        upgrades = "Upgrade" in headers
        refused = gate.answer(Ask(
            request.path, hosts, headers.get_all("Origin"), headers.get_all("Cookie"), upgrades
        ))  # fmt: skip
        if refused is not None:
            return _response(refused)
        if upgrades:
            connection.close_timeout = CLOSE_SECS
        response = inner(connection, request)
        if response is not None:
            for name, value in page_headers(hosts[0].strip()):
                response.headers[name] = value
        return response

    return process_request


def _response(answer: Answer) -> Any:
    status = http.HTTPStatus(answer.status)
    length = ("Content-Length", str(len(answer.body)))
    headers = _infra.Headers([*answer.headers, length])
    return _infra.Response(status.value, status.phrase, headers, answer.body)


def _close_tunnels(server: viser.ViserServer) -> None:
    """A page must not be able to publish itself through viser's share server."""
    for message in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
        server._websock_server.unregister_handler(message)


class _Uploads(dict):
    """viser's uploads under way, by number; those beyond the limits are not taken in."""

    def __setitem__(self, number: str, state: dict[str, Any]) -> None:
        sized = 0 <= state["total_bytes"] <= MOST_UPLOAD_BYTES and state["part_count"] <= MOST_UPLOAD_BYTES >> 10
        if sized and len(self) < MOST_UPLOADS:
            super().__setitem__(number, state | {"parts": _Parts(state["total_bytes"])})
        else:
            _log.warning("an upload of %s bytes was refused (limit %s)", state["total_bytes"], MOST_UPLOAD_BYTES)


class _Parts(dict):
    """Parts of one upload; no more bytes than were announced are kept, so that a longer one does not add up."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def __setitem__(self, index: int, content: bytes) -> None:
        kept = content if len(content) <= self._left else b""
        self._left -= len(kept)
        super().__setitem__(index, kept)
