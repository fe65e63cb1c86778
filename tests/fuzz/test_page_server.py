"""Whatever is sent to the page's server, it answers or hangs up, and goes on serving.

Some hundred damaged requests; ``make fuzz`` tries ten thousand.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import cv2
import pytest
from fuzz.mutations import mutated
from toy_bundle import blob

from sonomime.runtime import Animator, Bundle
from sonomime.runtime.live.studio import Studio
from sonomime.runtime.media.frames import png_bytes

pytest.importorskip("aiohttp")
from sonomime.runtime.live.web.server import MOST_VIEWERS, Web

COUNT = int(os.environ.get("SONOMIME_FUZZ", "300"))
LIMIT = 5.0  # seconds: what takes longer hangs
MEMORY = 64 << 20  # bytes that the process may grow by in the second half
AT_ONCE = 8


def requests(port: int) -> list[bytes]:
    """Sound ones, of every kind."""
    host = f"Host: 127.0.0.1:{port}\r\n"
    mark = f"{host}X-Sonomime: 1\r\n"

    def post(path: str, body: bytes, kind: str = "application/json") -> bytes:
        head = f"POST {path} HTTP/1.1\r\n{mark}Content-Type: {kind}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def sent(**more: object) -> bytes:
        return json.dumps(more).encode()

    places = {"1": [10, 20], "2": [30.5, 40]}
    said = b"n" * 3
    frames = b"".join(
        bytes([0x80 | kind, 0x80 | len(data), 0, 0, 0, 0]) + data
        for kind, data in ((1, said[:1]), (1, said), (9, b"ping"), (8, struct.pack(">H", 1000)))
    )
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = f"Sec-WebSocket-Key: {'A' * 22}==\r\n\r\n"
    return [
        f"GET / HTTP/1.1\r\n{host}\r\n".encode(),
        f"GET /api/state HTTP/1.1\r\n{host}Cookie: a=b; sonomime-token=c\r\n\r\n".encode(),
        f"GET /picture/source.png?n=3 HTTP/1.1\r\n{host}\r\n".encode(),
        f"GET /stream.mjpg HTTP/1.1\r\n{host}\r\n".encode(),
        f"GET /ws?driving=1 HTTP/1.1\r\n{host}{upgrade}{key}".encode() + frames,
        post("/api/order", sent(order="scale 1.5")),
        post("/api/order", sent(order="source b.png")),
        post("/api/landmarks", sent(source=places, reference=places, picture=1)),
        post("/api/record", sent(file="x.mkv")),
        post("/api/start", sent(source="a.png", driving="breathing", scale=1.5, loop=True)),
        post("/api/upload?kind=source&name=c.png", png_bytes(blob(64, 0, 0)), "image/png"),
    ]


@pytest.fixture
def web(displacement_toy: Path, tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "stills").mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "stills" / name), blob(64, 0, 0))
    bundle = Bundle.open(displacement_toy)
    opens = partial(Animator.open, bundle, "cpu", threads=1)
    studio = Studio(bundle, opens, tmp_path / "stills", None, tmp_path / "recorded")
    with Web(studio, "127.0.0.1", 0) as opened:
        studio.outlets.add(opened)
        yield opened
    studio.close()


def send(port: int, data: bytes, random: Random, patience: float = 0.2) -> bytes:
    """The first of what is answered within so many seconds; the connection is closed or reset."""
    with socket.create_connection(("127.0.0.1", port), LIMIT) as peer:
        if random.random() < 0.2:
            linger = struct.pack("ii", 1, 0)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        try:
            peer.sendall(data)
            peer.settimeout(patience)
            return peer.recv(4096)
        except OSError:  # it hung up, or waits for more
            return b""


def still_serves(port: int) -> None:
    ask = f"GET /api/state HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    assert send(port, ask.encode(), Random(1), LIMIT).startswith(b"HTTP/1.1 200")


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_the_page_s_server_outlives_damaged_requests(
    web: Web, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    kinds, answers = requests(web.port), Counter[bytes]()
    lock = threading.Lock()

    def one(seed: int) -> None:
        random = Random(seed)
        data = random.choice(kinds)
        if random.random() < 0.9:
            data = mutated(data, random)
        answer = send(web.port, data, random)
        with lock:
            answers[answer[9:12] if answer.startswith(b"HTTP/") else b"none"] += 1

    with caplog.at_level(logging.ERROR), ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(50)))  # warm
        threads, halfway = threading.active_count(), 0
        for begin in range(50, 50 + COUNT, 100):
            if begin >= 50 + COUNT // 2:  # by then every thread has an arena of its own
                halfway = halfway or resident()
            list(pool.map(one, range(begin, min(begin + 100, 50 + COUNT))))
            still_serves(web.port)
    defects = [each for each in caplog.records if each.exc_info and each.name == "sonomime"]
    assert not defects, defects[0].exc_text
    assert not any(answers[code] for code in (b"500", b"502")), answers
    assert answers[b"200"] >= COUNT // 50 and answers[b"400"] >= COUNT // 50, answers
    assert resident() - halfway < MEMORY
    assert threading.active_count() <= threads + 40, "workers of the pools, and no more"
    assert web._viewers <= MOST_VIEWERS
    outside = [path.name for path in tmp_path.iterdir()]
    assert sorted(outside) in (["stills"], ["recorded", "stills"])
