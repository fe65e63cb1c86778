"""The page's server: what it answers, who may use it, and viewers that are slow or gone."""

from __future__ import annotations

import http.client
import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_feeds import HandFeed, until
from toy_bundle import blob

from sonomime.runtime import Animator, Bundle
from sonomime.runtime.landmarks import Picture
from sonomime.runtime.live import studio as studio_module
from sonomime.runtime.live.control import Control
from sonomime.runtime.live.pairs import Still
from sonomime.runtime.live.stream import Stream
from sonomime.runtime.live.studio import Studio
from sonomime.runtime.media.frames import png_bytes
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.errors import ConfigError, StreamError

aiohttp = pytest.importorskip("aiohttp")
from sonomime.runtime.live.web import guard, pictures, server  # noqa: E402 - only where aiohttp is
from sonomime.runtime.live.web.server import MOST_VIEWERS, Web  # noqa: E402


class Client:
    """Asks a server; `host` and `headers` for what browsers would send."""

    def __init__(self, web: Web, **headers: str) -> None:
        self.port, self.headers = web.port, headers

    def ask(
        self, method: str, path: str, data: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in (self.headers | headers).items()}
        if isinstance(data, dict):
            sent |= {"Content-Type": "application/json"}
            data = json.dumps(data)
        try:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            return reply.status, dict(reply.headers), reply.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, _, data = self.ask("GET", path)
        assert status == 200, data
        return json.loads(data)

    def post(self, path: str, data: Any, **headers: str) -> tuple[int, Any]:
        status, _, reply = self.ask("POST", path, data, **({"X_Sonomime": "1"} | headers))
        return status, json.loads(reply)

    def picture(self, name: str) -> Any:
        status, _, data = self.ask("GET", f"/picture/{name}.png")
        if status == 404:
            return None
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def studio(displacement_toy: Path, tmp_path: Path) -> Iterator[Studio]:
    """Two stills, a clip of twelve frames, and the folder for recordings."""
    for folder in ("stills", "driving/clip"):
        (tmp_path / folder).mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "stills" / "a.png"), blob(64, 0, 0))
    cv2.imwrite(str(tmp_path / "stills" / "b.png"), blob(64, 0.2, 0.2))
    with cv2_writer(tmp_path / "driving" / "clip.avi") as write:
        for i in range(12):
            write(blob(64, -0.2 + 0.03 * i, 0))
    bundle = Bundle.open(displacement_toy)
    opens = partial(Animator.open, bundle, "cpu", threads=1)
    made = Studio(bundle, opens, tmp_path / "stills", tmp_path / "driving", tmp_path / "recorded")
    yield made
    made.close()
    assert not made._uploads.exists()


class cv2_writer:
    """Writes grey frames, uncompressed."""

    def __init__(self, path: Path) -> None:
        self._writer = cv2.VideoWriter(str(path), 0, 25, (64, 64), False)

    def __enter__(self) -> Callable[[Any], None]:
        return self._writer.write

    def __exit__(self, *error: object) -> None:
        self._writer.release()


@pytest.fixture
def web(studio: Studio) -> Iterator[Web]:
    with Web(studio, "127.0.0.1", 0) as opened:
        studio.outlets.add(opened)
        yield opened
    assert not [t for t in threading.enumerate() if t.name == "page"]


@pytest.fixture
def client(web: Web) -> Client:
    return Client(web)


def start(client: Client, **more: Any) -> None:
    wanted = {"source": "a.png", "driving": "clip.avi", "size": "model"} | more
    assert client.post("/api/start", wanted) == (200, {"answer": "ok"})
    until(lambda: (client.get("/api/state")["metrics"] or {}).get("state") == "live")


def test_a_stream_is_started_watched_controlled_and_stopped(client: Client, tmp_path: Path) -> None:
    idle = client.get("/api/state")
    assert not idle["running"] and idle["metrics"] is None and not idle["fixed"]
    assert idle["library"]["sources"] == ["a.png", "b.png"]
    assert idle["library"]["driving"] == ["clip.avi"]
    assert "breathing" in [each["name"] for each in idle["library"]["templates"]]
    start(client)
    state = client.get("/api/state")
    assert state["running"] and state["settings"]["source"] == "a.png" and state["picture"] >= 1
    assert np.array_equal(client.picture("source"), blob(64, 0, 0))
    assert client.picture("reference").shape == (64, 64)
    assert client.post("/api/order", {"order": "pause"}) == (200, {"answer": "ok"})
    until(lambda: client.get("/api/state")["paused"])
    until(lambda: client.get("/api/state")["metrics"]["state"] == "held")
    assert client.post("/api/order", {"order": "resume"})[1]["answer"] == "ok"
    assert client.post("/api/order", {"order": "source b.png"})[1]["answer"] == "ok"
    until(lambda: np.array_equal(client.picture("source"), blob(64, 0.2, 0.2)))
    assert client.post("/api/order", {"order": "scale 1.5"})[1]["answer"] == "ok"
    changed = client.get("/api/state")["settings"]
    assert (changed["source"], changed["scale"]) == ("b.png", 1.5)
    assert client.post("/api/order", {"order": "source ../a.png"})[1]["answer"] != "ok"
    assert client.post("/api/order", {"order": "dance"})[0] == 409
    assert client.post("/api/record", {"file": "lesson.mkv"})[0] == 200
    assert client.get("/api/state")["recording"] == "lesson.mkv"
    shown = client.get("/api/state")["metrics"]["frames"]
    until(lambda: client.get("/api/state")["metrics"]["frames"] > shown + 10)
    assert client.post("/api/record", {"file": None})[0] == 200
    assert sum(1 for _ in open_source(tmp_path / "recorded" / "lesson.mkv")) >= 8
    status, said = client.post("/api/record", {"file": "lesson.mkv"})
    assert status == 409 and "lesson.mkv" in said["error"] and said["hint"]
    assert client.post("/api/record", {"file": "../x.mkv"})[0] == 409
    assert client.post("/api/stop", {})[0] == 200
    assert not client.get("/api/state")["running"]
    assert client.post("/api/order", {"order": "pause"})[0] == 409


def test_a_clip_that_ends_and_settings_that_are_wrong(client: Client) -> None:
    start(client, loop=False)
    until(lambda: not client.get("/api/state")["running"])
    for wrong in (
        {"source": "c.png"}, {"driving": "none.mp4"}, {"driving": "/etc/passwd"}, {"loop": 1},
        {"scale": "2"}, {"scale": 99}, {"size": "huge"}, {"motion": "sideways"}, {"colour": 1},
        {"shading": "x"}, {"smooth": None}, {"driving": "../driving/clip.avi"},
    ):  # fmt: skip
        wanted = {"source": "a.png", "driving": "clip.avi"} | wrong
        status, said = client.post("/api/start", wanted)
        if ("scale" in wrong and wrong["scale"] == 99) or wrong.get("motion"):
            until(lambda: client.get("/api/state")["problem"])  # only the model knows
        else:
            assert status == 409 and said["error"], wrong
    assert client.post("/api/start", {"source": "a.png"})[0] == 409


def test_a_wrong_start_leaves_what_runs_alone(client: Client) -> None:
    start(client)
    for wrong in ({"source": "c.png"}, {"driving": "none.mp4"}, {"size": "huge"}):
        wanted = {"source": "a.png", "driving": "clip.avi"} | wrong
        assert client.post("/api/start", wanted)[0] == 409
        assert client.get("/api/state")["running"]


def test_a_recording_that_fails_is_said_and_one_ends_with_its_stream(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "recorded").write_text("in the way")
    start(client)
    status, said = client.post("/api/record", {"file": "x.mkv"})
    assert status == 409 and "recorded" in said["error"]
    assert client.get("/api/state")["recording"] is None
    (tmp_path / "recorded").unlink()
    assert client.post("/api/record", {"file": "y.mkv"})[0] == 200
    assert client.post("/api/record", {"file": "z.mkv"})[0] == 409  # y.mkv goes on
    assert client.get("/api/state")["recording"] == "y.mkv"
    shown = client.get("/api/state")["metrics"]["frames"]
    until(lambda: client.get("/api/state")["metrics"]["frames"] > shown + 3)
    assert client.post("/api/order", {"order": "stop"})[1]["answer"] == "ok"
    until(lambda: not client.get("/api/state")["running"])
    until(lambda: (tmp_path / "recorded" / "y.mkv").exists())
    assert client.get("/api/state")["recording"] is None
    assert client.get("/api/state")["metrics"]["state"] == "no signal"


def test_landmarks_align_and_are_drawn(client: Client) -> None:
    start(client)
    assert client.picture("alignment").shape[2] == 3
    both = {"source": {"1": [40, 30]}, "reference": {"1": [20, 30]}}
    assert client.post("/api/landmarks", both)[1] == {"answer": "ok"}
    until(lambda: "1" in client.get("/api/state")["alignment"])
    for wrong in (
        {"source": {"1": [40, 30]}, "reference": {}}, {"source": {"1": [400, 30]}, "reference": {}},
        {"source": {"1": [40]}, "reference": {}}, {"source": [], "reference": {}},
        {"source": {"1": [float("nan"), 1]}, "reference": {"1": [1, 1]}},
        {"source": {str(i): [1, 1] for i in range(101)}, "reference": {}},
    ):  # fmt: skip
        status, said = client.post("/api/landmarks", wrong)
        assert status == 409 or said["answer"] != "ok", wrong
    old = both | {"picture": client.get("/api/state")["picture"] - 1}
    assert client.post("/api/landmarks", old)[1]["answer"] != "ok", "placed in other pictures"
    assert client.post("/api/landmarks", {})[1] == {"answer": "ok"}
    until(lambda: "1" not in client.get("/api/state")["alignment"])


def test_uploads_become_sources_and_clips(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def upload(kind: str, name: str, data: bytes) -> int:
        return client.post(f"/api/upload?kind={kind}&name={name}", data)[0]

    png = png_bytes(blob(64, 0.1, 0.1))
    assert upload("source", "mine.png", png) == 200
    assert "mine.png" in client.get("/api/state")["library"]["sources"]
    start(client, source="mine.png")
    template = Path(studio_module.__file__).parents[1] / "templates" / "breathing.npz"
    assert upload("driving", "mine.npz", template.read_bytes()) == 200
    for kind, name, data in (
        ("source", "text.png", b"no picture"), ("driving", "text.npz", b"no template"),
        ("source", "..%2Fup.png", png), ("source", ".hidden", png), ("model", "a.png", png),
        ("source", "a%00.png", png), ("source", "", png), ("source", "cut.png", png[:60]),
    ):  # fmt: skip
        assert upload(kind, name, data) == 409, name
    monkeypatch.setattr(studio_module, "MOST_UPLOAD", len(png) - 1)
    assert upload("source", "large.png", png) == 409
    library = client.get("/api/state")["library"]
    assert library["sources"] == ["a.png", "b.png", "mine.png"]
    assert library["driving"] == ["clip.avi", "mine.npz"]


def test_only_this_machine_s_own_page_may_change_anything(client: Client) -> None:
    order = {"order": "pause"}
    here = f"127.0.0.1:{client.port}"
    refused = [
        client.ask("POST", "/api/order", order),
        client.ask("POST", "/api/order", order, X_Sonomime="1", Origin="http://evil.example"),
        client.ask("POST", "/api/order", order, X_Sonomime="1", Origin="null"),
        client.ask("GET", "/api/state", Host="evil.example"),
        client.ask("GET", "/ws", Host="evil.example"),
        client.ask("GET", "/ws", Upgrade="websocket", Origin="http://evil.example"),
        client.ask("POST", "/api/upload?kind=source&name=a.png", b"x", Origin=f"http://{here}"),
    ]
    assert [status for status, _, _ in refused] == [403] * len(refused)
    own = {"X_Sonomime": "1", "Origin": f"http://{here}"}
    assert client.ask("POST", "/api/order", order, **own)[0] == 409  # nothing runs
    for name in (f"localhost:{client.port}", "127.0.0.2", f"[::1]:{client.port}"):
        assert client.ask("GET", "/api/state", Host=name)[0] == 200
    _, headers, _ = client.ask("GET", "/")
    for name, value in guard.HEADERS.items():
        assert headers[name] == value


def test_requests_are_bounded_and_malformed_ones_answered(client: Client) -> None:
    def status(data: Any, kind: str = "application/json") -> int:
        headers = {"X_Sonomime": "1", "Content_Type": kind}
        return client.ask("POST", "/api/order", data, **headers)[0]

    assert status(b"{") == status(b"[]") == status(b"\xff\xfe") == 400
    assert status(b"[" * 50_000) == 400
    assert status(b"{}", "text/plain") == 415
    assert status(b" " * (server.MOST_JSON + 1)) == 413
    assert client.ask("GET", "/nothing")[0] == client.ask("GET", "/picture/x.png")[0] == 404
    assert client.ask("GET", "/picture/source.png")[0] == 404, "nothing runs"
    assert client.ask("GET", "/..%2f..%2fpyproject.toml")[0] == 404
    assert client.ask("PUT", "/api/order", b"", X_Sonomime="1")[0] == 405
    status_code, headers, text = client.ask("GET", "/metrics")
    assert status_code == 200 and headers["Content-Type"].startswith("text/plain")
    assert "sonomime_running 0" in text.decode()


def test_others_need_the_token(studio: Studio) -> None:
    with Web(studio, "0.0.0.0", 0) as web:
        client, token = Client(web), web.url.partition("token=")[2]
        assert len(token) > 16
        assert client.ask("GET", "/api/state")[0] == 401
        assert client.ask("GET", "/api/state?token=wrong")[0] == 401
        status, headers, _ = client.ask("GET", f"/?token={token}")
        assert status == 302 and headers["Location"] == "/" and "HttpOnly" in headers["Set-Cookie"]
        cookie = headers["Set-Cookie"].split(";")[0]
        assert client.ask("GET", "/api/state", Cookie=cookie)[0] == 200
        assert client.ask("GET", "/api/state", Authorization=f"Bearer {token}")[0] == 200


def test_a_token_can_stay_the_same(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMIME_TOKEN", "0123456789abcdef")
    with Web(studio, "0.0.0.0", 0) as web:
        assert web.url.endswith("?token=0123456789abcdef")
    with Web(studio, "127.0.0.1", 0) as web:
        assert "token" not in web.url
    for wrong in ("short", "with space, and long enough", "0123456789abcde\u00e9"):
        monkeypatch.setenv("SONOMIME_TOKEN", wrong)
        with pytest.raises(ConfigError):
            Web(studio, "0.0.0.0", 0)


def test_a_port_that_is_taken_is_an_error(web: Web, studio: Studio) -> None:
    with pytest.raises(StreamError):
        Web(studio, "127.0.0.1", web.port)


# -- frames ----------------------------------------------------------------------------------------


class Viewer:
    """A WebSocket, by hand: it takes messages only when the test does."""

    def __init__(self, port: int, query: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(
            f"GET /ws{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass

    def send(self, data: bytes, kind: int = 1) -> None:
        mask = b"\1\2\3\4"
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        head = bytes([0x80 | kind, 0x80 | min(len(data), 126)])
        size = struct.pack(">H", len(data)) if len(data) > 125 else b""
        self._socket.sendall(head + size + mask + masked)

    def take(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next message of frames."""
        kind, size = self._file.read(2)
        if size == 126:
            (size,) = struct.unpack(">H", self._file.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._file.read(8))
        data = self._file.read(size)
        if kind & 15 == 9:  # a ping
            return self.take()
        assert kind & 15 == 2, (kind, data)
        (length,) = struct.unpack("<I", data[:4])
        head = json.loads(data[4 : 4 + length])
        parts, at = [], 4 + length
        for count in head["parts"]:
            parts.append(data[at : at + count])
            at += count
        assert at == len(data)
        return head, parts

    def silent(self, seconds: float) -> None:
        """Nothing comes for so long."""
        assert select.select([self._socket], [], [], seconds) == ([], [], [])

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_viewers_take_the_newest_frame_when_they_ask(client: Client) -> None:
    start(client)
    viewer = Viewer(client.port, "?driving=1")
    slow = Viewer(client.port, "?format=raw")
    numbers = []
    for _ in range(10):
        head, (made, driving) = viewer.take()
        numbers.append(head["number"])
        viewer.send(b"n")
    assert numbers == sorted(set(numbers)) and head["state"] == "live" and head["why"] == ""
    assert head["latency_ms"] > 0 and head["shape"] == [64, 64]
    for data in (made, driving):
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape == (64, 64)
    first, (raw,) = slow.take()
    assert len(raw) == 64 * 64 and first["number"] <= numbers[1]
    slow.send(b"n")
    second, _ = slow.take()
    assert second["number"] >= numbers[-1] - 1, "not the one after the first"
    assert client.get("/api/state")["viewers"] == 2
    viewer.close()
    slow.close()
    until(lambda: client.get("/api/state")["viewers"] == 0)


def test_a_viewer_gets_no_frame_of_a_stream_that_has_ended(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "OLD", 0.1)
    start(client)
    assert client.post("/api/stop", {})[0] == 200
    time.sleep(0.2)
    viewer = Viewer(client.port)
    viewer.silent(0.3)
    start(client, source="b.png")
    assert viewer.take()[0]["number"] < 20


def test_mjpeg_goes_on(client: Client) -> None:
    start(client)
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    connection.request("GET", "/stream.mjpg")
    reply = connection.getresponse()
    assert reply.headers["Content-Type"].startswith("multipart/x-mixed-replace")
    for _ in range(5):
        assert reply.readline() == b"--frame\r\n"
        assert reply.readline() == b"Content-Type: image/jpeg\r\n"
        size = int(reply.readline().split()[1])
        reply.readline()
        data = np.frombuffer(reply.read(size), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_UNCHANGED).shape == (64, 64)
        reply.readline()
    connection.close()
    until(lambda: client.get("/api/state")["viewers"] == 0)


def test_viewers_that_misbehave_are_let_go(client: Client) -> None:
    start(client)
    viewers = [Viewer(client.port) for _ in range(MOST_VIEWERS)]
    assert {viewer.status for viewer in viewers} == {101}
    assert Viewer(client.port).status == 503
    viewers[0].send(b"x" * 5000)  # more than a viewer has to say
    viewers[1].send(b"\0\1", kind=2)
    for viewer in viewers[2:]:
        viewer.close()  # without a word
    until(lambda: client.get("/api/state")["viewers"] <= 1)
    again = Viewer(client.port)
    assert again.take()[0]["state"] == "live"


def test_a_stream_of_a_terminal_can_be_watched_but_not_replaced(toy_bundle: Path) -> None:
    bundle, feed = Bundle.open(toy_bundle), HandFeed()
    still = Still(Picture(blob(64, 0, 0)), "still")
    opens = partial(Animator.open, bundle, "cpu", threads=1)
    stream = Stream(bundle.manifest, opens, still, feed)
    with stream, Web(Control(stream, {"source": "still"}), "127.0.0.1", 0) as web:
        stream.start(web.show)
        client = Client(web)
        feed.give(blob(64, 0, 0))
        until(lambda: client.get("/api/state")["metrics"]["frames"] > 0)
        state = client.get("/api/state")
        assert state["fixed"] and state["running"] and state["library"]["templates"] == []
        for path, data in (
            ("start", {"source": "a", "driving": "b"}), ("stop", {}), ("record", {"file": "a"}),
        ):  # fmt: skip
            assert client.post(f"/api/{path}", data)[0] == 409
        assert client.post("/api/upload?kind=source&name=a.png", b"x")[0] == 409
        assert client.post("/api/order", {"order": "stop"})[1]["answer"] == "ok"
        assert stream.wait(60)
