"""A page without a browser, for ``bench_viewer.py``: speaks viser's protocol, takes pictures as fast as they come, and
tells when they came. Prints one line ``ready``, and at its end one of JSON.

    python scripts/bench_viewer_client.py URL orbit --secs 5 --size 640x480

It answers the server's round trips as a page does, but unpacks no JPEG and draws nothing: on a machine where the page
runs elsewhere that is what the page costs the trainer. Whether a picture was made while moving is read from the
picture itself: its JPEG quantisation is coarser.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import re
import statistics
import struct
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlsplit

import msgspec
import zstandard
from websockets.sync.client import connect

SEND_SECS = 1 / 50
"""A page sends its camera at most this often."""
QUIET_SECS = 0.8
ANSWER_SECS = 5.0
FIRST_SECS = 30.0
"""For the first picture."""
COARSE = 20
"""Sum of the first three numbers of the luminance table: 12 at quality 85, 32 at 60."""


@dataclass
class Seen:
    """Pictures that came."""

    times: list[float] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    moving: list[bool] = field(default_factory=list)
    size_bytes: int = 0


class Client:
    """One connection."""

    def __init__(self, url: str, width: int, height: int) -> None:
        parts = urlsplit(url)
        self.width, self.height = width, height
        jar = CookieJar()
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        opener.open(url).read()
        cookie = "; ".join(f"{one.name}={one.value}" for one in jar)
        version = importlib.metadata.version("viser")
        self.socket = connect(
            f"ws://{parts.netloc}/", subprotocols=[f"viser-v{version}"], origin=f"http://{parts.netloc}", max_size=None,
            additional_headers={"Cookie": cookie} if cookie else {},
        )  # fmt: skip
        self.seen = Seen()
        self.pose: dict[str, Any] = {"position": (0.0, 0.0, -4.0), "look_at": (0.0, 0.0, 0.0), "up": (0.0, -1.0, 0.0)}
        self.fov = 0.9
        self.unpack = zstandard.ZstdDecompressor()

    def take(self, until: float) -> None:
        """Everything that comes before ``until`` (``perf_counter``)."""
        while (left := until - time.perf_counter()) > 0:
            try:
                data = self.socket.recv(timeout=left)
            except TimeoutError:
                return
            self._heard(data)

    def camera(self, angle: float) -> None:
        """Send the start view turned about its up axis."""
        eye, at, up = (list(map(float, self.pose[name])) for name in ("position", "look_at", "up"))
        place = [a + b for a, b in zip(at, turned([e - a for e, a in zip(eye, at, strict=True)], up, angle),
                                       strict=True)]  # fmt: skip
        message = {
            "type": "ViewerCameraMessage", "wxyz": facing(place, at, up), "position": place, "fov": self.fov,
            "near": 0.01, "far": 1000.0, "image_height": self.height, "image_width": self.width, "look_at": at,
            "up_direction": up,
        }  # fmt: skip
        self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        self.socket.send(msgspec.msgpack.encode(message))

    def _heard(self, data: bytes) -> None:
        now = time.perf_counter()
        packed = int.from_bytes(data[8:16], "little")
        inner = msgspec.msgpack.decode(self.unpack.decompress(data[16 : 16 + packed]))
        for message in inner["messages"]:
            kind = message["type"]
            if kind == "BackgroundImageMessage" and message["rgb_data"]:
                width, coarse = jpeg_facts(message["rgb_data"])
                self.seen.times.append(now)
                self.seen.widths.append(width)
                self.seen.moving.append(coarse)
                self.seen.size_bytes += len(message["rgb_data"])
            elif kind == "LocalStorageGetItemRequestMessage":
                self._send({"type": "LocalStorageGetItemResponseMessage", "value": None, "error": None,
                            "request_uuid": message["request_uuid"]})  # fmt: skip
            elif re.fullmatch(r"SetCamera(Position|LookAt|UpDirection|Fov)Message", kind):
                name = {"Position": "position", "LookAt": "look_at", "UpDirection": "up", "Fov": "fov"}[kind[9:-7]]
                value = next(value for key, value in message.items() if key not in ("type", "initial"))
                if name == "fov":
                    self.fov = float(value)
                else:
                    self.pose[name] = value


def turned(vector: list[float], axis: list[float], angle: float) -> list[float]:
    """Rodrigues."""
    cos, sin, dot = math.cos(angle), math.sin(angle), sum(a * v for a, v in zip(axis, vector, strict=True))
    across = cross(axis, vector)
    return [v * cos + c * sin + a * dot * (1 - cos) for v, c, a in zip(vector, across, axis, strict=True)]


def cross(a: list[float], b: list[float]) -> list[float]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


def facing(eye: list[float], at: list[float], up: list[float]) -> list[float]:
    """Quaternion wxyz of a camera (x right, y down, z ahead) at ``eye`` that looks ``at`` a point."""
    ahead = unit([a - e for a, e in zip(at, eye, strict=True)])
    right = unit(cross(ahead, up))
    down = cross(ahead, right)
    m = [[right[i], down[i], ahead[i]] for i in range(3)]
    trace = m[0][0] + m[1][1] + m[2][2]
    squares = [1 + trace, *(1 + 2 * m[i][i] - trace for i in range(3))]
    k = max(range(4), key=lambda i: squares[i])
    s = math.sqrt(squares[k])
    if k == 0:
        parts = [s * s, m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]]
    else:
        i, j, n = k - 1, k % 3, (k + 1) % 3
        parts = [m[n][j] - m[j][n], 0.0, 0.0, 0.0]
        parts[1 + i], parts[1 + j], parts[1 + n] = s * s, m[j][i] + m[i][j], m[n][i] + m[i][n]
    return [part / (2 * s) for part in parts]


def jpeg_facts(data: bytes) -> tuple[int, bool]:
    """Width, and whether the picture was packed coarsely."""
    at, coarse = 2, False
    while at + 4 <= len(data):
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker == 0xDB and data[at + 4] & 15 == 0:
            coarse = sum(data[at + 5 : at + 8]) > COARSE
        if 0xC0 <= marker <= 0xC2:
            return struct.unpack(">H", data[at + 7 : at + 9])[0], coarse
        at += 2 + length
    return 0, coarse


def orbit(client: Client, secs: float) -> dict[str, Any]:
    """Move without rest."""
    client.seen, start, angle = Seen(), time.perf_counter(), 0.0
    while time.perf_counter() - start < secs:
        angle += 0.02
        client.camera(angle)
        client.take(time.perf_counter() + SEND_SECS)
    return told(client, time.perf_counter() - start)


def idle(client: Client, secs: float) -> dict[str, Any]:
    client.seen, start = Seen(), time.perf_counter()
    client.take(start + secs)
    return told(client, time.perf_counter() - start)


def told(client: Client, secs: float) -> dict[str, Any]:
    seen = client.seen
    return {"frames_per_sec": len(seen.times) / secs, "width": statistics.median(seen.widths) if seen.widths else None,
            "kbytes_per_frame": seen.size_bytes / 1000 / max(len(seen.times), 1)}  # fmt: skip


def latency(client: Client, secs: float) -> dict[str, Any]:
    """Single moves after rests: until the first picture made for it, and until a sharp one."""
    first, sharp, unanswered, angle, end = [], [], 0, 0.0, time.perf_counter() + secs
    while time.perf_counter() < end:
        client.take(time.perf_counter() + QUIET_SECS)
        client.seen, angle, start = Seen(), angle + 0.05, time.perf_counter()
        client.camera(angle)
        while time.perf_counter() - start < ANSWER_SECS:
            client.take(time.perf_counter() + 0.005)
            came = list(zip(client.seen.times, client.seen.moving, strict=True))
            quick = next((at for at, moving in came if moving), math.inf)
            final = next((at for at, moving in came if not moving and at > quick), None)
            if final is not None:
                first.append(quick - start)
                sharp.append(final - start)
                break
        else:
            unanswered += 1
    return {"first_ms": [1000 * secs for secs in first], "sharp_ms": [1000 * secs for secs in sharp],
            "unanswered": unanswered}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("scenario", choices=("idle", "orbit", "latency"))
    parser.add_argument("--secs", type=float, default=5.0)
    parser.add_argument("--size", default="640x480")
    args = parser.parse_args()
    client = Client(args.url, *map(int, args.size.split("x")))
    client.take(time.perf_counter() + 0.3)  # the start view comes first
    client.camera(0.0)
    end = time.perf_counter() + FIRST_SECS
    while not client.seen.times:
        if time.perf_counter() > end:
            sys.exit(f"no picture came within {FIRST_SECS:g} s")
        client.take(time.perf_counter() + 0.05)
    print("ready", flush=True)
    client.take(time.perf_counter() + 1.0)
    cpu, wall = time.process_time(), time.perf_counter()
    result = {"idle": idle, "orbit": orbit, "latency": latency}[args.scenario](client, args.secs)
    result["client_cpu_share"] = (time.process_time() - cpu) / (time.perf_counter() - wall)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
