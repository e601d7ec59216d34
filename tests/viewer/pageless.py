"""A page without a browser: speaks viser's protocol over a plain websocket, as well or as badly as a test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import serving
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

WIDTH, HEIGHT = 64, 48


class Pageless:
    """One connection; takes whatever comes on a thread of its own, and answers round trips."""

    def __init__(self, served: serving.Served) -> None:
        port = served.viewer.server.port
        self.socket: ClientConnection = connect(
            f"ws://127.0.0.1:{port}", subprotocols=[f"viser-v{viser.__version__}"], origin=f"http://127.0.0.1:{port}",
            additional_headers={"Cookie": f"splat-{port}={serving.TOKEN}"}, max_size=None, proxy=None,
            open_timeout=serving.PATIENCE_SECS,
        )  # fmt: skip
        self.pictures = 0
        self.notes: list[str] = []
        """Words in the corner of the page."""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def camera(self, **fields: Any) -> None:
        """A view onto the origin from four units away; ``fields`` as viser names them."""
        message = {
            "wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, -4.0), "fov": 0.9, "near": 0.01, "far": 1000.0,
            "image_height": HEIGHT, "image_width": WIDTH, "look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, -1.0, 0.0),
        }  # fmt: skip
        self.send("ViewerCameraMessage", **message | fields)

    def close(self) -> None:
        self.socket.close()
        self._thread.join(serving.PATIENCE_SECS)

    def _listen(self) -> None:
        unpack = zstandard.ZstdDecompressor()
        try:
            for data in self.socket:
                packed = int.from_bytes(data[8:16], "little")
                for message in msgspec.msgpack.decode(unpack.decompress(data[16 : 16 + packed]))["messages"]:
                    self._hear(message)
        except ConnectionClosed:
            return

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "BackgroundImageMessage" and message["rgb_data"]:
            self.pictures += 1
        elif message["type"] == "LocalStorageGetItemRequestMessage":
            self.send("LocalStorageGetItemResponseMessage", value=None, error=None,
                      request_uuid=message["request_uuid"])  # fmt: skip
        elif message["type"] == "NotificationShowMessage":
            self.notes.append(f"{message['props']['title']}: {message['props']['body']}")


@contextmanager
def visited(served: serving.Served, **first: Any) -> Iterator[tuple[Pageless, Any]]:
    """A page that has told its first view (``first`` changes it), and our ``Page`` behind it; gone at the end."""
    known = set(serving.known_pages(served))
    client = Pageless(served)
    try:
        client.camera(**first)
        ours = serving.wait_for(newcomer(served, known), why="a page")
        serving.wait_for(lambda: ours._worker.loop.thread.ident, why="its panels")
        yield client, ours
    finally:
        client.close()
        serving.wait_for(lambda: set(serving.known_pages(served)) <= known, why="the page to be gone")


def newcomer(served: serving.Served, known: set[int]) -> Callable[[], Any]:
    return lambda: next((page for number, page in serving.known_pages(served).items() if number not in known), None)
