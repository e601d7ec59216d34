"""The gate as a pure function, and every way to a real server: page and websocket, with and without what they need."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest
import viser
from serving import PATIENCE_SECS, wait_for

from splat.viewer.serving import security
from splat.viewer.serving import server as ours
from splat.viewer.serving.security import Ask, Gate, is_loopback, own_names, page_headers
from splat.viewer.serving.server import MOST_UPLOAD_BYTES, SecureServer, ViewerError, _Uploads, open_server

TOKEN = "Zq3-right"
GATE = Gate(TOKEN, 8080, own_names("127.0.0.1"))
COOKIE = f"splat-8080={TOKEN}"


def status(ask: Ask, gate: Gate = GATE) -> int:
    """Of the answer; 0 for those who may come in."""
    answer = gate.answer(ask)
    return 0 if answer is None else answer.status


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8080", 0), ("localhost:8080", 0), ("LOCALHOST", 0), ("localhost:9000", 0), ("[::1]:8080", 0),
        ("192.168.1.7:8080", 0), ("evil.example:8080", 403), ("127.0.0.1.evil.example", 403), ("", 403),
        ("localhost@evil.example", 403), ("localhost:8080:80", 403), ("localhost, evil.example", 403),
        ("localhost.", 0), ("127.0.0.1.:8080", 0), ("[::ffff:127.0.0.1]:8080", 0), (".", 403), ("[]", 403),
        ("[127.0.0.1]:8080", 403), ("[localhost]", 403), ("[::1", 403), ("::1", 403), ("[fe80::1%25eth0]", 403),
        ("localho\u017ft", 403), ("2130706433", 403), ("0x7f.1", 403), ("localhost/", 403), ("localhost\t", 0),
    ],
)  # fmt: skip
def test_host_names(host: str, expected: int) -> None:
    assert status(Ask("/", [host], cookies=[COOKIE])) == expected


def test_one_host_exactly() -> None:
    assert status(Ask("/", [], cookies=[COOKIE])) == 403
    assert status(Ask("/", ["localhost", "localhost"], cookies=[COOKIE])) == 403


@pytest.mark.parametrize(
    ("target", "cookies", "expected"),
    [
        ("/", [], 403), ("/?token=wrong", [], 403), ("/?token=", [], 403), (f"/?token={TOKEN}x", [], 403),
        (f"/?token={TOKEN}", [], 200), (f"/?a=1&token={TOKEN}", [], 200), ("/", [COOKIE], 0),
        ("/", ["other=1; " + COOKIE], 0), ("/", ["other=1", COOKIE], 0), ("/", ["splat-8080=wrong"], 403),
        ("/", [f"splat-8081={TOKEN}"], 403), ("/", ["splat-8080="], 403), ("/?token=\udcff", [], 403),
        ("/assets/x.js", [], 403), ("//[", [], 403), (f"//[/?token={TOKEN}", [], 403), ("/?token=%ff%00", [], 403),
    ],
)  # fmt: skip
def test_tokens(target: str, cookies: list[str], expected: int) -> None:
    assert status(Ask(target, ["127.0.0.1:8080"], cookies=cookies)) == expected


def test_the_token_becomes_a_strict_cookie_and_leaves_the_address() -> None:
    answer = GATE.answer(Ask(f"/?initialCameraPosition=1,2,3&token={TOKEN}&x=%22%3E", ["localhost:8080"]))
    headers = dict(answer.headers)
    assert headers["Set-Cookie"] == f"splat-8080={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert TOKEN not in answer.body.decode()
    assert 'url=/?initialCameraPosition=1%2C2%2C3&amp;x=%22%3E"' in answer.body.decode()
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("origins", "cookies", "expected"),
    [
        (["http://127.0.0.1:8080"], [COOKIE], 0), (["https://127.0.0.1:8080"], [COOKIE], 0),
        (["http://127.0.0.1:8080"], [], 403), (["http://127.0.0.1:8081"], [COOKIE], 403),
        (["http://localhost:8080"], [COOKIE], 403), (["https://evil.example"], [COOKIE], 403),
        (["null"], [COOKIE], 403), ([], [COOKIE], 403), (["http://127.0.0.1:8080", "http://x"], [COOKIE], 403),
        (["HTTP://127.0.0.1:8080"], [COOKIE], 0), (["http://127.0.0.1.:8080"], [COOKIE], 403),
        (["http://127.0.0.1:8080@evil.example"], [COOKIE], 403), (["http://127.0.0.1"], [COOKIE], 403),
        (["file://127.0.0.1:8080"], [COOKIE], 403), (["http://["], [COOKIE], 403), ([""], [COOKIE], 403),
    ],
)  # fmt: skip
def test_origins_of_websockets(origins: list[str], cookies: list[str], expected: int) -> None:
    assert status(Ask("/", ["127.0.0.1:8080"], origins, cookies, upgrades=True)) == expected


def test_a_token_in_the_address_opens_no_websocket() -> None:
    ask = Ask(f"/?token={TOKEN}", ["127.0.0.1:8080"], ["http://127.0.0.1:8080"], upgrades=True)
    assert status(ask) == 403


def test_without_a_token_origin_and_host_still_count() -> None:
    gate = Gate(None, 8080, own_names("127.0.0.1"))
    assert status(Ask("/", ["localhost:8080"]), gate) == 0
    assert status(Ask("/", ["evil.example"]), gate) == 403
    assert status(Ask("/", ["localhost:8080"], ["http://localhost:8080"], upgrades=True), gate) == 0
    assert status(Ask("/", ["localhost:8080"], ["https://evil.example"], upgrades=True), gate) == 403


def test_names_of_an_open_server_are_those_of_the_machine() -> None:
    assert own_names("127.0.0.1") == {"localhost", "127.0.0.1"}
    assert socket.gethostname().lower() in own_names("0.0.0.0")
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "box")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_the_page_may_load_from_nowhere_else() -> None:
    policy = dict(page_headers("localhost:8080"))["Content-Security-Policy"]
    assert "http" not in policy and "connect-src 'self' data: blob: ws://localhost:8080 wss://localhost:8080" in policy
    assert "frame-ancestors 'none'" in policy


# --- the real server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[SecureServer]:
    opened = open_server("127.0.0.1", 0, TOKEN)
    yield opened
    opened.close()


def fetch(server: SecureServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECS) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def connects(server: SecureServer, **headers: str) -> bool:
    """Whether a websocket opens; its refusal must be a 403."""
    import viser
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    async def attempt() -> bool:
        origin = headers.pop("Origin", None)
        try:
            async with connect(
                f"ws://127.0.0.1:{server.port}", origin=origin, additional_headers=headers, proxy=None,
                subprotocols=[f"viser-v{viser.__version__}"],
            ) as opened:  # fmt: skip
                return len(await asyncio.wait_for(opened.recv(), PATIENCE_SECS)) > 0
        except InvalidStatus as error:
            assert error.response.status_code == 403
            return False

    return asyncio.run(attempt())


def test_the_page_of_a_real_server(server) -> None:
    cookie = f"splat-{server.port}={TOKEN}"
    assert fetch(server, "/")[0] == 403
    assert fetch(server, "/?token=wrong")[0] == 403
    assert fetch(server, "/", Host="evil.example", Cookie=cookie)[0] == 403
    code, headers, _ = fetch(server, f"/?token={TOKEN}")
    assert code == 200 and headers["Set-Cookie"].startswith(f"{cookie};")
    code, headers, body = fetch(server, "/", Cookie=cookie)
    assert code == 200 and b"<html" in body and headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", ["/../server.py", "/%2e%2e/server.py", "/..%2f..%2fserver.py", "/..\\..\\server.py",
                                  "/etc/passwd", "//etc/passwd", "/%00"])  # fmt: skip
def test_no_file_beside_the_page(server, path: str) -> None:
    """Asked over a plain socket: clients tidy such paths up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECS) as sock:
        cookie = f"splat-{server.port}={TOKEN}"
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n".encode())
        answer = sock.recv(4096)
    assert answer.split()[1] in (b"404", b"500") and b"root:" not in answer


def test_websockets_of_a_real_server(server) -> None:
    own, cookie = f"http://127.0.0.1:{server.port}", f"splat-{server.port}={TOKEN}"
    assert connects(server, Origin=own, Cookie=cookie)
    assert not connects(server, Origin=own)
    assert not connects(server, Origin=own, Cookie=f"splat-{server.port}=wrong")
    assert not connects(server, Origin="https://evil.example", Cookie=cookie)
    assert not connects(server, Cookie=cookie)


def test_a_taken_port_gives_the_next(server) -> None:
    other = open_server("127.0.0.1", server.port, TOKEN)
    try:
        assert other.port > server.port and other.asked_port == server.port
        assert other.url == f"http://127.0.0.1:{other.port}/?token={TOKEN}"
        assert other.tunnel.startswith(f"ssh -L {other.port}:127.0.0.1:{other.port} ")
    finally:
        other.close()


@pytest.mark.parametrize(("host", "port"), [("203.0.113.1", 0), ("no-such-host.invalid", 0), ("127.0.0.1", 70000)])
def test_an_address_that_is_not_ours_is_an_error_that_says_so(host: str, port: int) -> None:
    with pytest.raises(ViewerError, match=str(port) if port else host):
        open_server(host, port, TOKEN)


def test_nothing_is_told_on_stdout(capfd) -> None:
    open_server("127.0.0.1", 0, TOKEN).close()
    assert capfd.readouterr() == ("", "")


def test_uploads_have_bounds() -> None:
    uploads = _Uploads()
    plain = {"total_bytes": 10, "part_count": 2, "parts": {}}
    uploads["large"] = plain | {"total_bytes": MOST_UPLOAD_BYTES + 1}
    uploads["many parts"] = plain | {"part_count": 10**9}
    uploads["negative"] = plain | {"total_bytes": -1}
    assert not uploads
    uploads["a"] = plain
    uploads["b"] = plain
    uploads["c"] = plain
    assert set(uploads) == {"a", "b"}
    parts = uploads["a"]["parts"]
    parts[0] = b"12345678"
    parts[1] = b"more than was announced"
    assert parts == {0: b"12345678", 1: b""}


def test_tokens_are_compared_in_constant_time(monkeypatch) -> None:
    asked: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(security.hmac, "compare_digest", lambda a, b: asked.append((a, b)) or a == b)
    status(Ask("/", ["localhost"], cookies=["splat-8080=x"]))
    status(Ask("/?token=y", ["localhost"]))
    assert asked == [(b"x", TOKEN.encode()), (b"y", TOKEN.encode())]


def test_origins_of_an_ipv6_address() -> None:
    ask = Ask("/", ["[::1]:8080"], ["http://[::1]:8080"], [COOKIE], upgrades=True)
    assert status(ask) == 0
    assert status(replace(ask, origins=["http://[::2]:8080"])) == 403
    assert status(replace(ask, origins=["http://::1:8080"])) == 403


def test_a_server_on_an_ipv6_address() -> None:
    try:
        opened = open_server("::1", 0, TOKEN)
    except ViewerError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    try:
        assert opened.url == f"http://[::1]:{opened.port}/?token={TOKEN}" and opened.tunnel is not None
        with urllib.request.urlopen(opened.url, timeout=PATIENCE_SECS) as answer:
            assert answer.status == 200
    finally:
        opened.close()


def said(server: SecureServer, request: str) -> bytes:
    """All that the server says to some bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECS) as sock:
        sock.sendall(request.encode())
        return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def test_whoever_wants_to_upgrade_to_whatever_needs_the_cookie_and_the_origin(server) -> None:
    for protocol in ("websocket", "WebSocket", "h2c"):
        asked = f"GET /?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        assert said(server, asked).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("request_line", ["POST / HTTP/1.1", "GET http://evil.example/ HTTP/1.1", "GET / HTTP/9", "\0"])
def test_other_words_get_no_page(server, request_line: str) -> None:
    asked = f"{request_line}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    assert b" 200 " not in said(server, asked).partition(b"\r\n")[0]


def test_headers_without_an_end_are_not_read_to_it(monkeypatch) -> None:
    monkeypatch.setattr(ours, "ASK_SECS", 1000.0)
    opened = open_server("127.0.0.1", 0, TOKEN)
    try:
        assert b" 200 " not in said(opened, "GET / HTTP/1.1\r\n" + "X: y\r\n" * 10_000)
    except ConnectionError:
        pass
    finally:
        opened.close()


def test_who_asks_for_nothing_is_hung_up_on(monkeypatch) -> None:
    """One byte now and then keeps nobody's place."""
    monkeypatch.setattr(ours, "ASK_SECS", 0.1)
    opened = open_server("127.0.0.1", 0, TOKEN)
    try:
        assert said(opened, "GET / HTTP/1.1\r\nHost: local") == b""
    except ConnectionResetError:
        pass
    finally:
        opened.close()


def test_connections_have_a_number(monkeypatch) -> None:
    monkeypatch.setattr(ours, "MOST_CONNECTIONS", 3)
    opened = open_server("127.0.0.1", 0, TOKEN)
    held = [socket.create_connection(("127.0.0.1", opened.port), timeout=PATIENCE_SECS) for _ in range(3)]
    try:
        wait_for(lambda: len(opened._opened.serving.server.handlers) == 3)
        with pytest.raises((ConnectionError, IndexError)):
            said(opened, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").split()[1]
        held.pop().close()
        wait_for(lambda: len(opened._opened.serving.server.handlers) == 2)
        assert fetch(opened, f"/?token={TOKEN}")[0] == 200
    finally:
        for sock in held:
            sock.close()
        opened.close()


def test_a_message_that_is_too_large_ends_its_connection(monkeypatch) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    monkeypatch.setattr(ours, "MOST_MESSAGE_BYTES", 1000)
    opened = open_server("127.0.0.1", 0, TOKEN)
    try:
        with connect(
            f"ws://127.0.0.1:{opened.port}", origin=f"http://127.0.0.1:{opened.port}", proxy=None,
            additional_headers={"Cookie": f"splat-{opened.port}={TOKEN}"}, subprotocols=[f"viser-v{viser.__version__}"],
        ) as page:  # fmt: skip
            page.send(bytes(1001))
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    page.recv(timeout=PATIENCE_SECS)
        assert closed.value.rcvd.code == 1009
    finally:
        opened.close()


def test_the_page_arrives_whole_over_a_slow_line(monkeypatch) -> None:
    """What ends a silent websocket soon must not cut off a page that is still on its way."""
    monkeypatch.setattr(ours, "CLOSE_SECS", 0.02)
    listening = ours._listening

    def narrow(host: str, port: int) -> socket.socket:
        sock = listening(host, port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
        return sock

    monkeypatch.setattr(ours, "_listening", narrow)
    opened = open_server("127.0.0.1", 0, TOKEN)
    try:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8000)
            sock.settimeout(PATIENCE_SECS)
            sock.connect(("127.0.0.1", opened.port))
            sock.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: splat-{opened.port}={TOKEN}\r\n\r\n".encode())
            got = sock.recv(2000)
            length = int(re.search(rb"Content-Length: (\d+)", got)[1]) + got.index(b"\r\n\r\n") + 4
            while len(got) < length and (more := sock.recv(20_000)):
                got += more
                if length - len(got) < 150_000:
                    time.sleep(0.02)
        assert len(got) == length
    finally:
        opened.close()


def test_a_page_that_answers_nothing_does_not_hold_up_the_end() -> None:
    # once in four, on a busy machine
    assert any(ends_soon(PAGE, b"HTTP/1.1 101") for _ in range(4)), "viser itself gives up after 5 s"


def test_a_connection_that_a_browser_opened_ahead_of_need_does_not_hold_up_the_end() -> None:
    assert any(ends_soon("GET /", b"") for _ in range(4)), "a request has 5 s to come"


PAGE = (
    f"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nCookie: splat-{{port}}={TOKEN}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: viser-v1.1.1\r\n\r\n"
)


def ends_soon(request: str, answer: bytes) -> bool:
    """Whether a server with such a page ends before anybody gives up."""
    opened = open_server("127.0.0.1", 0, TOKEN)
    with socket.create_connection(("127.0.0.1", opened.port), timeout=PATIENCE_SECS) as sock:
        sock.sendall(request.format(port=opened.port).encode())
        assert answer == b"" or sock.recv(100).startswith(answer)
        wait_for(lambda: opened._opened.serving.server.handlers)
        ending = threading.Thread(target=opened.close)
        ending.start()
        ending.join(4.0)
        in_time = not ending.is_alive()
        ending.join()
        return in_time
