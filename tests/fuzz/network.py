"""Damaged OpenIGTLink messages, and processes in which readers, a server and clients get them.

A case is a name such as "colour 2 17": ``damaged`` makes its bytes, the same on any machine.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import logging
import os
import queue
import resource
import signal
import socket
import struct
import sys
import threading
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Self, TypeAlias

import numpy as np

from sonomime.runtime.live import retry
from sonomime.runtime.live.openigtlink.client import Client
from sonomime.runtime.live.openigtlink.content import (
    ReceivedImage,
    Status,
    image_content,
    read_image,
    read_status,
    read_string,
    status_content,
    string_content,
)
from sonomime.runtime.live.openigtlink.message import (
    HEADER_BYTES,
    MOST_BYTES,
    Message,
    crc64,
    pack,
    read_header,
    unpack,
)
from sonomime.runtime.live.openigtlink.outlet import IgtlOutlet
from sonomime.runtime.live.openigtlink.server import MOST_CLIENTS, MOST_RECEIVED, Server
from sonomime.runtime.live.opening import open_live
from sonomime.runtime.live.orders import ORDERS, parse_order
from sonomime.runtime.live.showing import Shown
from sonomime.runtime.readers.reading import AS_IS
from sonomime.runtime.support.errors import ConfigError, StreamError

from .mutations import mutated

LIMIT = 5.0  # seconds: what takes longer hangs
MEMORY = 32 << 20  # bytes that a process may have grown by
BATCH = 50  # cases between two looks at the whole

# -- what is sent ----------------------------------------------------------------------------------

_RANDOM = np.random.default_rng(3)
GREY = _RANDOM.integers(0, 256, (24, 32), np.uint8)
_COLOUR = _RANDOM.integers(0, 256, (12, 16, 3), np.uint8)
_CONTENTS = {
    "grey": ("IMAGE", image_content(GREY, (0.5, 0.25))),
    "colour": ("IMAGE", image_content(_COLOUR)),
    "order": ("STRING", string_content("scale 1.5")),
    "text": ("STRING", string_content("source Größe.png")),
    "status": ("STATUS", status_content(Status(13, "NOT_READY", "the model is being prepared"))),
    "transform": ("TRANSFORM", np.eye(4, 3, dtype=">f4").tobytes()),
}
_TEXTS = {"Synthetic": "YES", "FrameIndex": "12", "Größe": "5 × 7", "": ""}
_ORDERS = (
    "source newest", "source a.png", "reference", "pause", "resume", "scale 1.5", "scale 1e-3",
    "shading off", "shading full", "stop", "stop now", "scale", "scale 11", "scale nan",
    "scale 1_0",
)  # fmt: skip
_KINDS = [f"{kind} {version}" for kind in _CONTENTS for version in (1, 2)]
#: What a case's name begins with. "stream": up to four messages, most of them damaged.
KINDS = (*_KINDS, "stream")

Number: TypeAlias = tuple[str, int] | tuple[str, int, int]
"""Struct's code of a number in a message, and where it lies; some are there twice."""

_IN_HEADER: list[Number] = [("H", 0), ("Q", 34), ("Q", 42), ("Q", 42), ("Q", 50)]
_IN_EXTENDED = "HHII"
_IN_CONTENT = {"IMAGE": "HBBBBHHH" + 12 * "f" + "HHHHHH", "STRING": "HH", "STATUS": "HQ"}
_SIZES = (0, 1, 2, MOST_RECEIVED, MOST_RECEIVED + 1, MOST_BYTES, MOST_BYTES + 1)
_FLOATS = (0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan"))


def damaged(case: str) -> bytes:
    """The bytes of a case. In most of them the checksums are right, or nothing behind them would
    ever be read."""
    kind, random = case.rpartition(" ")[0], Random(case)
    if kind != "stream":
        data = _message(kind, random)
    else:
        parts = []
        for _ in range(random.choice((1, 2, 2, 3, 4))):
            kind = random.choice(_KINDS)
            parts.append(_message(kind, random) if random.random() < 0.6 else _sound(kind))
            if random.random() < 0.1:  # no header, though the next one is where it would be
                parts.append(bytes(2) + random.randbytes(HEADER_BYTES - 2))
        data = b"".join(parts)
        if random.random() < 0.1:
            data = mutated(data, random)
    return _with_checksums(data) if random.random() < 0.75 else data


def _sound(kind: str) -> bytes:
    name, version = kind.split()
    type_, content = _CONTENTS[name]
    return pack(Message(type_, content, "Probe", 1.75e9, _TEXTS, 7, int(version)))


def _message(kind: str, random: Random) -> bytes:
    """One message with one kind of damage; its size is right again in most."""
    data, way = _sound(kind), random.random()
    if way < 0.15:
        return _refilled(kind, random)
    if way < 0.6:
        data = _renumbered(data, _numbers(kind), random)
    elif way < 0.7:
        other = _sound(random.choice(_KINDS))
        data = data[: random.randrange(len(data))] + other[random.randrange(len(other)) :]
    elif way < 0.85:
        data = data[:HEADER_BYTES] + mutated(data[HEADER_BYTES:], random)
    else:
        data = mutated(data, random)
    if len(data) >= HEADER_BYTES and random.random() < 0.6:
        data = data[:42] + struct.pack(">Q", len(data) - HEADER_BYTES) + data[50:]
    return data


def _refilled(kind: str, random: Random) -> bytes:
    """A message that is right in all but what it holds."""
    name, version = kind.split()
    type_, content = _CONTENTS[name]
    if name == "order":
        text = mutated(random.choice(_ORDERS).encode(), random)[:65535]
        content = struct.pack(">HH", random.choice((3, 4, 106, 106, 0, 1015)), len(text)) + text
    else:
        content = mutated(content, random)
    return pack(Message(type_, content, "Probe", 1.75e9, _TEXTS, 7, int(version)))


def _numbers(kind: str) -> list[Number]:
    """Those of a sound message."""
    name, version = kind.split()
    type_, content = _CONTENTS[name]
    found, begin = list(_IN_HEADER), HEADER_BYTES
    if version != "1":
        found += 3 * _places(begin, _IN_EXTENDED)  # they guard all others
        begin += struct.calcsize(f">{_IN_EXTENDED}")
        found += _places(begin + len(content), "H" + len(_TEXTS) * "HHI")
    if type_ == "IMAGE":  # its size is there twice, and has to be the same
        found += 3 * [("H", begin + at, begin + at + 60) for at in (6, 8, 10)]
    return found + _places(begin, _IN_CONTENT.get(type_, 12 * "f"))


def _places(begin: int, codes: str) -> list[Number]:
    return [(code, begin + struct.calcsize(f">{codes[:i]}")) for i, code in enumerate(codes)]


def _renumbered(data: bytes, numbers: Sequence[Number], random: Random) -> bytes:
    """With other values of some of the numbers: limits, and what nearly fits."""
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        code, *places = random.choice(numbers)
        (now,) = struct.unpack_from(f">{code}", result, places[0])
        if code == "f":
            value = random.choice(_FLOATS)
        else:
            bits = 8 * struct.calcsize(f">{code}")
            limits = 2**bits - 1, 2**bits - 2, 2 ** (bits - 1), 2 ** (bits - 1) - 1
            near = (*(now + i for i in (-1, 1, 2, -12, 12)), len(data), len(data) - HEADER_BYTES)
            any_ = (random.getrandbits(bits),)
            value = random.choice(random.choice((limits, near, _SIZES, any_))) % 2**bits
        for at in places:
            struct.pack_into(f">{code}", result, at, value)
    return bytes(result)


def _with_checksums(data: bytes) -> bytes:
    """With the right checksum in each message, as far as messages follow each other."""
    result, at = bytearray(data), 0
    while at + HEADER_BYTES <= len(data):
        end = at + HEADER_BYTES + struct.unpack_from(">Q", data, at + 42)[0]
        if end > len(data):
            break
        struct.pack_into(">Q", result, at + 50, crc64(data[at + HEADER_BYTES : end]))
        at = end
    return bytes(result)


# -- what is read ----------------------------------------------------------------------------------


def taken(data: bytes, most: int) -> Iterator[tuple[bytes, Message]]:
    """What a connection hands on of a stream: bodies, and the messages in them."""
    at = 0
    with suppress(StreamError):  # where messages begin is not known any more
        while len(data) - at >= HEADER_BYTES:
            header = read_header(data[at : at + HEADER_BYTES], most)
            begin, at = at + HEADER_BYTES, at + HEADER_BYTES + header.size
            if at > len(data):
                return
            body = data[begin:at]
            with suppress(StreamError):
                message = unpack(header, body)
                assert crc64(body) == struct.unpack_from(">Q", data, begin - 8)[0]
                yield body, message


def pictures(data: bytes, most: int = MOST_BYTES) -> list[ReceivedImage]:
    """Those of a stream that can be used."""
    found = []
    for _, message in taken(data, most):
        if message.type == "IMAGE":
            with suppress(StreamError):
                found.append(read_image(message.content))
    return found


def read_all(data: bytes, counts: Counter[str]) -> None:
    """Read a stream to its end, whatever its messages say they are. AssertionError, or any that is
    not ours, if something is taken that is not so."""
    for body, message in taken(data, MOST_BYTES):
        counts["messages"] += 1
        _check_message(body, message)
        counts["metadata"] += bool(message.metadata)
        _read_content(message.content, counts)
    for begin in (HEADER_BYTES, HEADER_BYTES + struct.calcsize(f">{_IN_EXTENDED}")):
        _read_content(data[begin:], Counter())


def _check_message(body: bytes, message: Message) -> None:
    """It holds nothing but what is in its body, and can be sent on."""
    content = bytes(message.content)
    assert content in body and (message.version > 1 or content == body)
    assert sum(len(k) + len(v) for k, v in message.metadata.items()) <= len(body)
    with suppress(StreamError):  # such as a device name that is not ASCII
        again = pack(message)
        found = unpack(read_header(again[:HEADER_BYTES]), again[HEADER_BYTES:])
        assert bytes(found.content) == content and found.type == message.type
        assert found.metadata == dict(message.metadata) and found.number == message.number


def _read_content(content: bytes | memoryview, counts: Counter[str]) -> None:
    with suppress(StreamError):
        image = read_image(content).image
        assert image.dtype == np.uint8 and image.size and image.ndim in (2, 3)
        assert image.tobytes() == bytes(content[-image.size :])
        counts["images"] += 1
    with suppress(StreamError):
        assert len(read_status(content).text) <= len(content)
        counts["states"] += 1
    with suppress(StreamError):
        text = read_string(content)
        assert len(text) <= len(content)
        counts["texts"] += 1
        with suppress(ConfigError):
            order = parse_order(text)
            assert order.name in ORDERS
            assert order.name != "scale" or 0 < float(order.value) <= 10
            counts["orders"] += 1


# -- what happens ----------------------------------------------------------------------------------


class Findings:
    """What went wrong in this process, for a test: ``failures.txt`` in a folder ends with "done" if
    all was tried; beside it are the bytes of cases that failed, and ``counts.json``.

    Errors that end a thread, or are only logged, are found too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts, self.case = folder, Counter[str](), ""
        self._file = open(folder / "failures.txt", "w", buffering=1)  # noqa: SIM115
        self._at = os.open(folder / "case.txt", os.O_WRONLY | os.O_CREAT)
        self._number = 0

    def __enter__(self) -> Self:
        faulthandler.register(signal.SIGALRM, chain=True)
        warnings.simplefilter("error")
        # Client leaves a socket that is reset at once to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        threading.excepthook = lambda hook: self.add(f"a thread has ended: {hook.exc_value!r}")
        sys.unraisablehook = lambda hook: self.add(f"{hook.err_msg}: {hook.exc_value!r}")
        handler = logging.Handler(logging.WARNING)
        handler.emit = self._logged  # type: ignore[method-assign]
        logger = logging.getLogger("sonomime")
        logger.propagate, logger.handlers = False, [handler]
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.add(f"the test itself: {error!r}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        (self.folder / "counts.json").write_text(json.dumps(self.counts))
        self._file.write("done")
        self._file.close()

    def at(self, case: str, seconds: float = LIMIT) -> None:
        """A case begins. If the next one does not within its time, the process ends and says where
        it hung, in native code too."""
        self.case = case
        os.pwrite(self._at, case.ljust(80).encode(), 0)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def add(self, what: str, case: str | None = None) -> None:
        case = self.case if case is None else case
        self._number += 1
        if self._number > 20:
            return
        told = what
        if case.rpartition(" ")[0] in KINDS:
            file = self.folder / f"{case.replace(' ', '-')}.bin"
            file.write_bytes(damaged(case))
            told += f"; its bytes are in {file}"
        self._file.write(f"{case}: {told}\n")

    def wait(self, what: str, true: Callable[[], object], case: str | None = None) -> None:
        """Until it is true; a finding if it is not within LIMIT."""
        end = time.monotonic() + LIMIT
        while not true():
            if time.monotonic() > end:
                return self.add(f"after {LIMIT} s not so: {what}", case)
            time.sleep(0.001)
        return None

    def grown_since(self, begin: int) -> None:
        """`begin`: what `resident` said."""
        self.counts["bytes grown"] = grown = resident() - begin
        if grown > MEMORY:
            self.add(f"the process has grown by {grown} bytes")

    def _logged(self, record: logging.LogRecord) -> None:
        self.counts[f"logged by {record.name}"] += 1
        if record.exc_info or record.levelno >= logging.ERROR:
            self.add(f"logged: {record.getMessage()}: {(record.exc_info or (None, None))[1]!r}")


def held() -> tuple[int, int]:
    """Threads, and open files, of this process."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Bytes in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# -- readers ---------------------------------------------------------------------------------------


def try_readers(count: int, folder: Path) -> None:
    """``count`` cases of each kind to the functions that read, one after the other. What one takes
    is bounded by what came, whatever that says."""
    with Findings(folder) as findings:
        begin = 0
        for number, kind in itertools.product(range(count), KINDS):
            case = f"{kind} {number}"
            data = damaged(case)
            if number == min(10, count - 1) and not begin:  # what is made once is there
                tracemalloc.start()
                begin = resident()
            findings.at(case)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                read_all(data, findings.counts)
            except Exception as error:
                findings.add(repr(error))
            most = tracemalloc.get_traced_memory()[1] - before
            findings.counts["cases"] += 1
            if most > (32 << 10) + 12 * len(data):
                findings.add(f"{most} bytes were taken to read {len(data)}")
        findings.grown_since(begin)


# -- connections -----------------------------------------------------------------------------------


def play(peer: socket.socket, case: str) -> tuple[bytes, bool]:
    """Send a case, all of it or a part, in pieces, and close in one of several ways.

    Returns:
        What was sent, and whether the other side has read it all and closed too.

    Raises:
        TimeoutError: it does not close.
    """
    random, data = Random(f"{case} ends"), damaged(case)
    way = random.choice(("whole", "whole", "whole", "cut", "cut", "reset", "stall"))
    if way != "whole":
        data = data[: random.randrange(len(data) + 1)]
    piece = random.choice((1, 57, 59, 1000, 1 << 20))
    peer.settimeout(LIMIT)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with peer:
        try:
            edges = [*range(0, min(len(data), 100 * piece), piece), len(data)]
            for first, last in itertools.pairwise(edges):
                peer.sendall(data[first:last])
            if way in ("whole", "cut"):
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass
            elif way == "stall":
                time.sleep(random.uniform(0, 0.03))
        except TimeoutError:
            raise
        except OSError:
            pass  # closed, for what came before
        if way == "reset":
            reset(peer)
    return data, way in ("whole", "cut")


def _mixed(count: int) -> list[str]:
    """Cases: half of them streams of several messages."""
    random = Random(0)
    kinds = (random.choice(("stream", random.choice(_KINDS))) for _ in range(count))
    return [f"{kind} {number}" for number, kind in enumerate(kinds)]


def reset(peer: socket.socket) -> None:
    """Close without a farewell."""
    with suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def announcement(size: int) -> bytes:
    """The first hundred bytes of a message of so many, or so it says."""
    whole = bytearray(_sound("grey 2")[:HEADER_BYTES])
    struct.pack_into(">Q", whole, 42, size)
    return bytes(whole) + bytes(100)


class Orders:
    """An outlet that obeys orders at once, what its peers sent, and a thread that shows frames."""

    def __init__(self, findings: Findings, connect: Callable[[Any], Any], most: int) -> None:
        self.findings, self._most = findings, most
        self.seen: list[int] = []
        self.sender: Any = None

        def connected(received: Callable[[Message], None]) -> Any:
            def both(message: Message) -> None:
                self.seen.append(_key(message))
                findings.counts["messages"] += 1
                received(message)

            self.sender = connect(both)
            return self.sender

        self.outlet = IgtlOutlet("fuzz", connected, self._order)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._show)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self.outlet.close()

    def check(self, case: str, sent: bytes, whole: bool) -> None:
        """What came of one peer's bytes; its connection has ended."""
        wanted, seen = self.wanted(sent), self.seen[:]
        self.seen.clear()
        if seen != wanted[: None if whole else len(seen)]:
            self.findings.add(f"{len(seen)} messages came, not {len(wanted)}, or others", case)

    def wanted(self, sent: bytes) -> list[int]:
        return [_key(message) for _, message in taken(sent, self._most)]

    def _order(self, text: str, answer: Callable[[str], None]) -> None:
        order = parse_order(text)
        self.findings.counts["orders"] += 1
        answer(f"ok {order.name} {order.value}")

    def _show(self) -> None:
        for number in itertools.count():
            begin = time.monotonic()
            state: Any = "live" if number % 50 < 25 else "held"
            self.outlet.show(Shown(number, GREY, number / 25, 1.75e9, state))
            if time.monotonic() - begin > LIMIT:
                self.findings.add("a frame was delayed")
            if self._closed.wait(0.005):
                return


def _key(message: Message) -> int:
    return crc64(f"{message.type} {message.device}".encode() + message.content)


# -- a server --------------------------------------------------------------------------------------


def try_server(count: int, folder: Path) -> None:
    """``count`` connections to one server: one after the other, 8 at once, and twice as many at
    once as it takes. It goes on to serve others, and is left with nothing."""
    with Findings(folder) as findings:
        findings.at("before the first", 60)
        first = held()
        orders = Orders(findings, partial(Server, 0, "127.0.0.1"), MOST_RECEIVED)
        port = orders.sender.port
        _still_serves(findings, port)
        findings.wait("the first peer has left", lambda: not orders.sender.clients)
        idle, begin, cases = held(), 0, _mixed(count)
        for number, at in enumerate(range(0, count, BATCH)):
            _batch(findings, orders, cases[at : at + BATCH], (1, 8, 2 * MOST_CLIENTS)[number % 3])
            findings.wait(f"{idle} threads and files", lambda: held() == idle)
            begin = begin or resident()  # buffers and threads' memory are there
        findings.grown_since(begin)
        findings.at("announcements", 60)
        with ExitStack() as stack:
            tracemalloc.start()
            for _ in range(MOST_CLIENTS - 2):
                peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT))
                peer.sendall(announcement(MOST_RECEIVED))
            findings.wait("all are in", lambda: len(orders.sender.clients) == MOST_CLIENTS - 2)
            time.sleep(0.3)
            _check_announced(findings, (MOST_CLIENTS - 2) * MOST_RECEIVED)
            _still_serves(findings, port)
            orders.close()  # while they wait
        findings.wait(f"{first} threads and files", lambda: held() == first)


def _check_announced(findings: Findings, size: int) -> None:
    current = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    if current > size // 8:
        findings.add(f"{current} bytes were taken because {size} were announced")


def _batch(findings: Findings, orders: Orders, cases: list[str], at_once: int) -> None:
    server = orders.sender
    findings.at(f"{cases[0]} to {cases[-1]}", 120)
    orders.seen.clear()
    with ExitStack() as stack:
        if at_once == 1:
            for case in cases:
                findings.at(case, 30)
                sent, whole = _visit(findings, server.port, case)
                findings.wait("the peer has left", lambda: not server.clients, case)
                orders.check(case, sent, whole)
        else:
            for _ in range(3):  # stop in the middle of a message, and stay
                peer = socket.create_connection(("127.0.0.1", server.port), LIMIT)
                stack.callback(reset, peer)
                peer.sendall(_sound("grey 2")[:300])
            with ThreadPoolExecutor(at_once) as pool:
                visits = list(pool.map(partial(_visit, findings, server.port), cases))
            findings.wait("the peers have left", lambda: len(server.clients) == 3)
            seen = Counter(orders.seen)
            least, most = (
                Counter(
                    key for sent, whole in visits if whole >= some for key in orders.wanted(sent)
                )
                for some in (True, False)
            )
            if not least <= seen <= most:
                findings.add(f"came {seen}, of {least} to {most}")
        findings.at(f"after {cases[-1]}", 60)
        _still_serves(findings, server.port)
    findings.wait("all have left", lambda: not server.clients)
    findings.counts["cases"] += len(cases)


def _visit(findings: Findings, port: int, case: str) -> tuple[bytes, bool]:
    """One connection. Who wants to send all waits until the server has taken it in."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        peer = socket.create_connection(("127.0.0.1", port), LIMIT)
        with suppress(ConnectionError):
            if peer.recv(1):
                try:
                    return play(peer, case)
                except TimeoutError:
                    findings.add(f"the connection is still open after {LIMIT} s", case)
                    return damaged(case), False
        peer.close()  # it was one too many
        time.sleep(0.003)
    findings.add("the server takes nobody in", case)
    return b"", False


_CALLS = itertools.count()


def _still_serves(findings: Findings, port: int) -> None:
    """A peer that behaves gets a frame, and an answer to its order."""
    inbox: queue.Queue[Message] = queue.Queue()
    order = f"scale 1.{next(_CALLS):06}"
    missing = {"an image", f"ok {order}"}
    end = time.monotonic() + LIMIT
    with Client("127.0.0.1", port, inbox.put) as client:
        findings.wait("connected", lambda: client.connected)
        client.send(Message("STRING", string_content(order)))
        while missing and time.monotonic() < end:
            with suppress(queue.Empty):
                message = inbox.get(timeout=0.1)
                if message.type == "IMAGE":
                    assert np.array_equal(read_image(message.content).image, GREY)
                    missing.discard("an image")
                elif message.type == "STRING":
                    missing.discard(read_string(message.content))
    if missing:
        findings.add(f"a peer that behaves has waited {LIMIT} s for {' and '.join(missing)}")


# -- clients ---------------------------------------------------------------------------------------


class Pictures:
    """A driving feed that connects to a port."""

    def __init__(self, findings: Findings, port: int) -> None:
        feed = open_live(f"igtl://127.0.0.1:{port}", AS_IS)
        assert feed is not None
        self.feed, self.findings = feed, findings
        self.feed.start()

    def check(self, case: str, sent: bytes, whole: bool) -> None:
        """The newest picture is the last one that was sent; a connection that was cut may have lost
        some."""
        wanted: list[Any] = [found.image for found in pictures(sent)]
        arrival = self.feed.arrivals.take(0)
        self.findings.counts["images"] += arrival is not None
        if arrival is None:
            right = not (wanted and whole)
        else:
            images = wanted[-1:] if whole else wanted
            right = any(np.array_equal(arrival.image, image) for image in images)
        if not right:
            self.findings.add("another picture arrived than was sent", case)
        if self.feed.ended:
            self.findings.add(f"the feed has ended: {self.feed.error!r}", case)

    def still_works(self, server: Server, _: queue.Queue[Message]) -> None:
        server.send(Message("IMAGE", image_content(GREY), "Image"))
        arrival = self.feed.arrivals.take(LIMIT)
        if arrival is None or not np.array_equal(arrival.image, GREY):
            self.findings.add("the feed got no frame of a server that behaves")

    def close(self) -> None:
        self.feed.stop()


class Obeyed(Orders):
    """An outlet that connects to a port, and takes orders from there."""

    def __init__(self, findings: Findings, port: int) -> None:
        super().__init__(findings, partial(Client, "127.0.0.1", port), MOST_BYTES)

    def still_works(self, server: Server, inbox: queue.Queue[Message]) -> None:
        order, found = "scale 2.25", set[str]()
        self.findings.wait("connected", lambda: self.sender.connected)
        server.send(Message("STRING", string_content(order)))
        end = time.monotonic() + LIMIT
        while len(found) < 2 and time.monotonic() < end:
            with suppress(queue.Empty):
                message = inbox.get(timeout=0.1)
                if message.type == "IMAGE":
                    found.add("image")
                elif message.type == "STRING" and read_string(message.content) == f"ok {order}":
                    found.add("answer")
        if len(found) < 2:
            self.findings.add(f"the outlet sent to a server that behaves only {found}")


def try_clients(count: int, folder: Path) -> None:
    """``count`` connections of three feeds and of an outlet that connects, at once, to servers that
    send damage. They go on to take what a sound server sends, and end while one is silent."""
    retry.SOONEST, retry.LATEST = 0.002, 0.01
    with Findings(folder) as findings:
        findings.at("before the first", 60)
        first = held()
        cases, threads, begin = _mixed(count), [], 0
        hosts = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
        ports = [host.getsockname()[1] for host in hosts]
        peers = [(Obeyed if i == 0 else Pictures)(findings, port) for i, port in enumerate(ports)]
        with ThreadPoolExecutor(len(hosts)) as pool:
            for at in range(0, count, BATCH):
                findings.at(f"{cases[at]} and after", 120)
                shares = [cases[at : at + BATCH][i :: len(hosts)] for i in range(len(hosts))]
                threads = [*pool.map(partial(_host, findings), hosts, peers, shares)]
                begin = begin or resident()
                if not all(threads):
                    break
        findings.counts["cases"] += len(cases)
        findings.at("a sound server", 60)
        findings.grown_since(begin)
        for host, port, peer in zip(hosts, ports, peers, strict=True):
            host.close()
            inbox: queue.Queue[Message] = queue.Queue()
            with Server(port, received=inbox.put) as server:
                peer.still_works(server, inbox)
        tracemalloc.start()
        with ExitStack() as stack:
            for port in ports:
                host = stack.enter_context(socket.create_server(("127.0.0.1", port)))
                host.settimeout(LIMIT)
                silent = stack.enter_context(host.accept()[0])
                silent.sendall(announcement(MOST_BYTES))
            time.sleep(0.3)
            _check_announced(findings, len(ports) * MOST_BYTES)
            for peer in peers:
                begun = time.monotonic()
                peer.close()
                if time.monotonic() - begun > LIMIT:
                    findings.add("it could not be closed while a server was silent")
        findings.wait(f"{first} threads and files", lambda: held() == first)


def _host(
    findings: Findings, host: socket.socket, receiver: Pictures | Obeyed, cases: list[str]
) -> bool:
    """Send a case to each connection that comes; whether one came for each."""
    host.settimeout(LIMIT)
    before = None
    for case in [*cases, None]:
        try:
            peer, _ = host.accept()
            # The connection before has ended in all its threads, or there would be no other.
            if before is not None:
                receiver.check(*before)
            if case is None:
                peer.close()
            else:
                before = case, *play(peer, case)
        except TimeoutError:
            told = before[0] if before else ""
            findings.add(
                f"after {LIMIT} s the connection has not ended, or none came", case or told
            )
            return False
    return True
