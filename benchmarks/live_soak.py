"""`sonomime stream` as a process: started, driven, watched, and led through hours of changes.

The other half of `live.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle, takewhile
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple, Self

from ..runtime.bundle.bundle import Bundle
from ..runtime.live.openigtlink.client import Client
from ..runtime.live.openigtlink.content import image_content, read_string, string_content
from ..runtime.live.openigtlink.message import HEADER_BYTES, Message
from ..runtime.live.openigtlink.server import Server
from ..runtime.still import SAMPLES
from ..runtime.support.errors import BackendError
from .inputs import inputs

HOST, PERIOD = "127.0.0.1", 1 / 25
PATIENCE = 20.0  # seconds within which whatever was asked for must be seen
MOVING = "live", "doubtful"  # the states of frames that follow the driving frames
TURN = 10.0  # seconds from one source to the next
SOURCES = "lung_still.png", "still.png"
SAMPLE_EVERY = 2.0  # seconds
SETTLED = 120.0  # seconds after which memory should grow no more
_READER = f"""import socket, sys, time
file = socket.create_connection(("{HOST}", int(sys.argv[1]))).makefile("rb")
while head := file.read({HEADER_BYTES}):
    file.read(int.from_bytes(head[42:50], "big"))
    time.sleep(float(sys.argv[2]))"""


class Usage(NamedTuple):
    """Of a process. cpu: seconds until now; rss_mb; how many descriptors and threads it has."""

    cpu: float
    rss_mb: float
    descriptors: int
    threads: int


LEVELS = "rss_mb", "descriptors", "threads"


class StreamProcess:
    """`sonomime stream` of the sample still for at most so many seconds, driven by a camera at a
    port of this machine. Its own port is `port`."""

    def __init__(self, folder: Path, camera: int, threads: int, seconds: float) -> None:
        with socket.create_server((HOST, 0)) as free:
            self.port: int = free.getsockname()[1]
        words = ["--source", str(SAMPLES / SOURCES[1]), "--driving", f"igtl://{HOST}:{camera}"]
        words += ["--size", "model", "--backend", "cpu", "--threads", str(threads), "--json"]
        words += ["--openigtlink", str(self.port), "--seconds", str(seconds)]
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sonomime.cli", "stream", *words],
                stdin=subprocess.PIPE, stdout=out, stderr=err, text=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        with suppress(OSError):  # an order that was not read
            self.process.communicate()

    def wait_for_port(self) -> int:
        """Its port, when clients may connect; BackendError if it has ended instead."""
        while self.process.poll() is None:
            with suppress(OSError), socket.create_connection((HOST, self.port)):
                return self.port
            time.sleep(0.1)
        raise BackendError("the stream has ended: " + " ".join(self.said()))

    def type(self, order: str) -> None:
        """Give an order by the standard input."""
        assert self.process.stdin is not None
        with suppress(OSError):  # it has ended
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()

    def said(self) -> list[str]:
        """Lines of its standard error, where such orders are answered too."""
        return self._err.read_text().splitlines()

    def accounts(self) -> list[dict[str, Any]]:
        """What it has said of itself, each second."""
        *whole, _ = self._out.read_text().split("\n")
        return [json.loads(line) for line in whole]

    def usage(self) -> Usage:
        folder = Path(f"/proc/{self.process.pid}")
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        rss = int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        return Usage(cpu, rss, len(list((folder / "fd").iterdir())), int(fields[17]))


class Camera(Server):
    """Sends the sample clip's frames, to and fro: one by one, or 25 a second while it is `running`
    and not `silent`. `sent`: how many."""

    def __init__(self) -> None:
        self.source, images = inputs(Bundle.open(None).manifest.image.channels)
        self.images = [*images, *images[-2:0:-1]]  # no scene cut
        self._contents = cycle([image_content(image) for image in self.images])
        self.sent, self.silent = 0, False
        super().__init__(0)

    def send_next(self) -> None:
        self.send(Message("IMAGE", next(self._contents), "Camera", time.time()))
        self.sent += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        def run(stop: threading.Event) -> None:
            due = time.perf_counter()
            while not stop.wait(max(0.0, due - time.perf_counter())):
                due += PERIOD
                if not self.silent:
                    self.send_next()

        with _beside(run):
            yield


class Seen(NamedTuple):
    """A frame that came. at: when, by time.perf_counter(); number: the stream's; made: when, in
    seconds since 1970; latency: in seconds, by the stream's own account, and what the model took
    of it; None where no new driving frame moved it."""

    at: float
    number: int
    state: str
    why: str
    source: str
    made: float
    latency: float | None
    model: float | None


class Viewer(Client):
    """A client that is always connected, counts frames and keeps the newest 500.

    Attributes:
        frames: how many came; `moved`: by a new driving frame; `missing`: numbers that were left
            out; `back`: numbers that did not rise; `first`, `number`: of the first and the newest.
        states: changes of state, by what it became.
        answers: to orders, by their text.
    """

    def __init__(self, port: int) -> None:
        self.frames = self.moved = self.missing = self.back = 0
        self.first = self.number = -1
        self.states, self.answers = Counter[str](), Counter[str]()
        self._newest: deque[Seen] = deque(maxlen=500)
        self._change = threading.Condition()
        super().__init__(HOST, port, self._note)

    def order(self, text: str) -> None:
        self.send(Message("STRING", string_content(text)))

    def wait(self, true: Callable[[Seen], bool], after: int, seconds: float) -> Seen | None:
        """A frame that is so, with a number above `after`; None after so many seconds."""

        def found() -> Seen | None:
            since = takewhile(lambda seen: seen.number > after, reversed(self._newest))
            return next(filter(true, since), None)

        with self._change:
            return self._change.wait_for(found, seconds)

    def wait_until_moving(self) -> None:
        """BackendError if that takes longer than to open a model."""
        if self.wait(is_moving, self.number, 3 * PATIENCE) is None:
            raise BackendError("the stream shows no driving frames")

    def _note(self, message: Message) -> None:
        at = time.perf_counter()
        if message.type == "STRING":
            self.answers[read_string(message.content)] += 1
        if message.type != "IMAGE":
            return
        texts = message.metadata
        said = texts.get("LatencyMilliseconds")
        latency = None if said is None else float(said) / 1000
        model = None if latency is None else float(texts["ModelMilliseconds"]) / 1000
        number, state = int(texts["FrameIndex"]), texts["State"]
        with self._change:
            if not self.frames:
                self.first = number
            elif number <= self.number:
                self.back += 1
            else:
                self.missing += number - self.number - 1
            self.states[state] += not self._newest or self._newest[-1].state != state
            self.frames, self.moved = self.frames + 1, self.moved + (latency is not None)
            self.number = number
            why, source = texts.get("Why", ""), texts["Source"]
            self._newest.append(Seen(at, number, state, why, source, message.time, latency, model))
            self._change.notify_all()


def is_moving(seen: Seen) -> bool:
    return seen.state in MOVING


class Guests:
    """Other clients, each a process."""

    def __init__(self, port: int) -> None:
        self._port, self._here = port, deque[subprocess.Popen[bytes]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave(0)

    def come(self, pause: float = 0.0, stands_still: bool = False) -> None:
        """One more, which reads for a second at least. pause: seconds after each message;
        stands_still: then it is stopped, as if its machine hung."""
        words = [sys.executable, "-c", _READER, str(self._port), str(pause)]
        self._here.append(subprocess.Popen(words, stderr=subprocess.DEVNULL))
        time.sleep(1.5)
        if stands_still:
            self._here[-1].send_signal(signal.SIGSTOP)

    def leave(self, most: int) -> None:
        """Kill those that have been here longest, until `most` are left."""
        while len(self._here) > most:
            with self._here.popleft() as guest:
                guest.kill()


class Turns:
    """What a stream goes through, TURN by TURN, and whether the viewer sees what follows from it.

    Attributes:
        changes: by name, how many were `expected` and `seen`.
        orders: how many were given, half of them by the standard input.
    """

    def __init__(
        self, stream: StreamProcess, camera: Camera, viewer: Viewer, guests: Guests
    ) -> None:
        self._stream, self._camera, self._viewer, self._guests = stream, camera, viewer, guests
        self.changes: dict[str, dict[str, int]] = {}
        self.orders = 0

    def run(self, end: float) -> None:
        """As many as fit in before `end`, by time.monotonic()."""
        turn, events = 0, [lambda: None, self._pause, self._silence]
        while (begin := time.monotonic()) + TURN < end and self._stream.process.poll() is None:
            now, name = self._viewer.number, SOURCES[turn % 2]
            self._order(f"source {name}")
            self._expect("new source", lambda s, name=name: is_moving(s) and s.source == name, now)
            self._guests.come(pause=float(turn % 3 == 1), stands_still=turn % 3 == 2)
            self._guests.leave(3)
            events[turn % 3]()
            turn += 1
            time.sleep(max(0.0, begin + TURN - time.monotonic()))

    def _pause(self) -> None:
        now = self._viewer.number
        self._order("pause")
        self._expect("held by pause", lambda s: (s.state, s.why) == ("held", "paused"), now)
        time.sleep(1.0)
        now = self._viewer.number
        self._order("resume")
        self._expect("live after pause", is_moving, now)

    def _silence(self) -> None:
        now, back = self._viewer.number, threading.Timer(3.0, setattr, (self._camera, "silent", 0))
        self._camera.silent = True
        back.start()
        now = self._expect("held by silence", lambda s: s.state == "held", now)
        now = self._expect("no signal", lambda s: s.state == "no signal", now)
        self._expect("live after silence", is_moving, now)
        back.join()

    def _order(self, text: str) -> None:
        self.orders += 1
        (self._stream.type if self.orders % 2 else self._viewer.order)(text)

    def _expect(self, change: str, true: Callable[[Seen], bool], after: int) -> int:
        """The number of a frame that shows the change, `after` if none came in time."""
        seen = self._viewer.wait(true, after, PATIENCE)
        count = self.changes.setdefault(change, {"expected": 0, "seen": 0})
        count["expected"] += 1
        count["seen"] += seen is not None
        return after if seen is None else seen.number


@contextmanager
def sampled(stream: StreamProcess) -> Iterator[list[tuple[float, Usage]]]:
    """(seconds from now, usage), every SAMPLE_EVERY seconds."""
    samples: list[tuple[float, Usage]] = []
    begin = time.monotonic()

    def run(stop: threading.Event) -> None:
        with suppress(OSError, IndexError):  # it ends meanwhile
            while not stop.is_set() and stream.process.poll() is None:
                samples.append((round(time.monotonic() - begin, 2), stream.usage()))
                stop.wait(SAMPLE_EVERY)

    with _beside(run):
        yield samples


def summary(samples: list[tuple[float, Usage]]) -> dict[str, Any]:
    """First, last and most of what was sampled; how memory grows, by least squares."""
    levels = {}
    for name in LEVELS:
        values = [getattr(usage, name) for _, usage in samples]
        levels[name] = {"first": values[0], "last": values[-1], "max": max(values)}
    since = min(SETTLED, samples[-1][0] / 3)
    later = [(at, usage.rss_mb) for at, usage in samples if at >= since]
    slope = linear_regression(*zip(*later, strict=True)).slope if len(later) > 1 else 0.0
    return {"levels": levels, "mb_per_hour": 3600 * slope, "since_s": since}


@contextmanager
def _beside(run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs it in a thread, which has to end when the event is set."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
