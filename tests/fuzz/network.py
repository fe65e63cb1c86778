"""Processes in which readers, a server and clients get damaged messages."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sonomime.runtime.live import retry
from sonomime.runtime.live.openigtlink.client import Client
from sonomime.runtime.live.openigtlink.content import (
    image_content,
    read_image,
    read_string,
    string_content,
)
from sonomime.runtime.live.openigtlink.message import (
    MOST_BYTES,
    Message,
    crc64,
)
from sonomime.runtime.live.openigtlink.outlet import IgtlOutlet
from sonomime.runtime.live.openigtlink.server import MOST_CLIENTS, MOST_RECEIVED, Server
from sonomime.runtime.live.opening import open_live
from sonomime.runtime.live.orders import parse_order
from sonomime.runtime.live.showing import Shown
from sonomime.runtime.readers.reading import AS_IS

from .findings import BATCH, LIMIT, Findings, announcement, held, mixed, play, reset, resident
from .messages import GREY, KINDS, damaged, pictures, read_all, sound, taken


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
        idle, begin, cases = held(), 0, mixed(count)
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
                peer.sendall(sound("grey 2")[:300])
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
        cases, threads, begin = mixed(count), [], 0
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
