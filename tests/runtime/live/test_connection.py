"""Server and client over this machine's loopback: who gets what, and peers that misbehave."""

from __future__ import annotations

import queue
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.live import retry
from sonomime.runtime.live.openigtlink.client import Client
from sonomime.runtime.live.openigtlink.content import image_content, read_image, string_content
from sonomime.runtime.live.openigtlink.message import HEADER_BYTES, Message, pack, read_header
from sonomime.runtime.live.openigtlink.server import MOST_CLIENTS, Server
from sonomime.runtime.live.slot import Slot
from sonomime.runtime.support.errors import StreamError

pytest.importorskip("fastcrc")


def until(true: Callable[[], object]) -> None:
    """Wait for it; fail after a time that no machine needs."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def numbered(number: int, side: int = 64) -> Message:
    content = image_content(np.full((side, side), number % 256, np.uint8))
    return Message("IMAGE", content, "Image", number=number)


@pytest.fixture()
def server() -> Iterator[Server]:
    with Server(port=0) as opened:
        yield opened
    assert opened.clients == []
    assert not [t for t in threading.enumerate() if "_send" in t.name or "_receive" in t.name]


@pytest.fixture()
def inbox() -> queue.Queue[Message]:
    return queue.Queue()


def raw(server: Server) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", server.port), 30)
    peer.settimeout(30)
    return peer


def read_number(peer: socket.socket) -> int:
    """Of the next message."""
    with peer.makefile("rb", buffering=0) as file:
        header = read_header(exactly(file, HEADER_BYTES))
        body = exactly(file, header.size)
    return int.from_bytes(body[8:12], "big")


def exactly(file: socket.SocketIO, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = file.read(size - len(data))
        assert piece, "the server has closed the connection"
        data += piece
    return data


def test_a_slot_holds_the_newest() -> None:
    slot: Slot[int] = Slot()
    assert slot.take(0) is None
    for item in range(5):
        slot.put(item)
    assert (slot.take(), slot.dropped[""]) == (4, 4)
    threading.Timer(0.01, slot.put, [7]).start()
    assert slot.take() == 7
    slot.put(8)
    slot.close()
    slot.put(9)
    assert list(slot) == [8] and slot.take() is None and slot.dropped[""] == 4


def test_a_slot_holds_one_of_each_kind_and_can_make_the_giver_wait() -> None:
    slot: Slot[int] = Slot()
    slot.put(1, "a")
    slot.put(2, "b")
    slot.put(3, "a")
    assert slot.dropped == {"a": 1, "b": 0}
    assert [slot.take(0), slot.take(0), slot.take(0)] == [3, 2, None]
    giver = threading.Thread(target=lambda: [slot.hand(number) for number in range(5)])
    giver.start()
    assert [slot.take(30) for _ in range(5)] == [0, 1, 2, 3, 4]
    giver.join()
    slot.put(6)
    late = threading.Thread(target=slot.hand, args=(7,))
    late.start()
    slot.close()
    late.join()
    assert slot.dropped.total() == 1 and list(slot) == [6]


def test_a_slot_whose_taker_waits_can_use_an_item_at_once() -> None:
    used: list[tuple[int, int]] = []  # the item, and the thread that used it

    def use(item: int) -> int | None:
        used.append((item, threading.get_ident()))
        return None if item < 10 else item - 10

    slot: Slot[int] = Slot(use)
    slot.put(1)  # nobody waits yet
    taken: queue.Queue[int] = queue.Queue()
    taker = threading.Thread(target=lambda: [taken.put(item) for item in slot], daemon=True)
    taker.start()
    assert taken.get(timeout=30) == 1 and not used
    until(lambda: slot._idle)
    slot.put(2)
    with slot._change:  # the taker cannot have awoken
        slot.put(13)
        slot.put(4)
        slot.put(5)
    assert [taken.get(timeout=30), taken.get(timeout=30)] == [3, 5]  # a rest is not replaced
    assert used == [(2, threading.get_ident()), (13, threading.get_ident())]
    assert slot.dropped[""] == slot.dropped.total() == 1
    slot.close()
    taker.join()
    assert taken.empty()


def test_clients_get_frames_and_the_server_their_texts(inbox: queue.Queue[Message]) -> None:
    said: queue.Queue[Message] = queue.Queue()
    with Server(0, received=said.put) as server:
        server.send(numbered(1))
        with Client("127.0.0.1", server.port, inbox.put) as client:
            assert inbox.get(timeout=30).number == 1  # the last frame, at once
            server.send(numbered(2))
            found = inbox.get(timeout=30)
            assert found.number == 2 and (read_image(found.content).image == 2).all()
            assert client.connected and client.send(Message("STRING", string_content("pause")))
            assert said.get(timeout=30).type == "STRING"
        until(lambda: not server.clients)


def test_a_client_that_does_not_read_delays_nobody_and_gets_the_newest(
    server: Server, inbox: queue.Queue[Message]
) -> None:
    with raw(server) as slow, Client("127.0.0.1", server.port, inbox.put):
        until(lambda: len(server.clients) == 2)
        for number in range(1, 41):  # more than the kernel's buffers hold
            server.send(numbered(number, 1024))
            assert inbox.get(timeout=30).number == number
        dropped = server.dropped("IMAGE")
        assert dropped > 20
        seen = [read_number(slow) for _ in range(40 - dropped)]
        assert seen == sorted(seen) and seen[-1] == 40


def test_clients_that_send_nonsense_are_ended_and_damaged_messages_passed_over(
    inbox: queue.Queue[Message],
) -> None:
    with Server(0, received=inbox.put) as server:
        for nonsense in (b"GET / HTTP/1.1\r\n" * 8, b"\xff" * 58, b"\0" * 58):
            with raw(server) as peer:
                peer.sendall(nonsense)
                assert peer.recv(1) == b""
        whole = bytearray(pack(numbered(1)))
        whole[-1] ^= 1
        with raw(server) as peer:
            peer.sendall(bytes(whole) + pack(numbered(2)))
            assert inbox.get(timeout=30).number == 2
            assert server.clients[0].damaged == 1
        with raw(server) as peer:  # announces much, sends little and leaves
            peer.sendall(pack(numbered(3, 1024))[:1000])
        until(lambda: not server.clients)
        assert inbox.empty()


def test_a_client_too_many_is_sent_away(server: Server) -> None:
    peers = [raw(server) for _ in range(MOST_CLIENTS)]
    until(lambda: len(server.clients) == MOST_CLIENTS)
    with raw(server) as one_more:
        assert one_more.recv(1) == b""
    server.send(numbered(5))
    assert [read_number(peer) for peer in peers] == [5] * MOST_CLIENTS
    for peer in peers:
        peer.close()
    until(lambda: not server.clients)


def test_a_port_that_is_taken_and_one_that_cannot_be(server: Server) -> None:
    for port in (server.port, 70000):
        with pytest.raises(StreamError) as error:
            Server(port)
        assert str(port) in error.value.message and error.value.hint


def test_a_client_comes_back_when_the_server_does(
    inbox: queue.Queue[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "SOONEST", 0.01)
    with Server(0) as first:
        port = first.port
        client = Client("127.0.0.1", port, inbox.put)
        until(lambda: first.clients)
    until(lambda: not client.connected)
    assert not client.send(numbered(1))
    with Server(port) as again:
        again.send(numbered(2))
        assert inbox.get(timeout=30).number == 2
        client.close()
    client.close()


def test_a_callback_may_raise_or_close(inbox: queue.Queue[Message]) -> None:
    clients: list[Client] = []

    def use(message: Message) -> None:
        inbox.put(message)
        if message.number == 1:
            raise RuntimeError("cannot use it")
        if message.number == 3:
            clients[0].close()

    with Server(0) as server:
        clients.append(Client("127.0.0.1", server.port, use))
        until(lambda: server.clients)
        for number in (1, 2, 3):
            server.send(numbered(number))
            assert inbox.get(timeout=30).number == number
        until(lambda: not server.clients)
        clients[0].close()

    stopped = threading.Event()

    def stop(message: Message) -> None:
        server.close()
        stopped.set()

    server = Server(0, received=stop)
    with raw(server) as one, raw(server) as other:
        until(lambda: len(server.clients) == 2)
        for peer in (one, other):
            peer.sendall(pack(numbered(1)))
        assert stopped.wait(30)
    until(lambda: not server.clients)
    server.close()


def test_a_server_that_sends_clients_away_is_not_stormed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as host:
        client = Client(*host.getsockname(), lambda message: None)
        for _ in range(3):
            host.accept()[0].close()
        begin = time.monotonic()
        host.accept()[0].close()
        assert time.monotonic() - begin > retry.SOONEST  # the third pause, doubled twice
        client.close()
    unknown = Client("a" * 70, 1, lambda message: None)  # no host can have that name
    time.sleep(0.05)
    assert not unknown.connected and unknown._thread.is_alive()
    unknown.close()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_reference_library_receives_what_we_send(
    server: Server, tmp_path: Path, channels: int
) -> None:
    """Debian's libopenigtlink-dev, which knows header version 1."""
    include = Path("/usr/include/openigtlink")
    if not (include.is_dir() and shutil.which("g++")):
        pytest.skip("libopenigtlink-dev or g++ is not installed")
    program, source = tmp_path / "receiver", Path(__file__).with_name("receiver.cxx")
    command = ["g++", f"-I{include}", str(source), "-o", str(program), "-lOpenIGTLink"]
    subprocess.run(command, check=True, timeout=300)
    command, found, sent = [str(program), str(server.port), "2"], [], []
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8).squeeze()
    wanted = ["IMAGE", "Image", "7", "5", "1", str(channels), "0.5", "0.25"]
    wanted += ["1.5", "0.5"]  # millimetres: its matrix leads to the middle of the image
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        stop = threading.Timer(60, receiver.kill)
        stop.start()
        until(lambda: server.clients)
        for level in (0, 1):
            shown = image + np.uint8(level)
            content = image_content(shown, (0.5, 0.25))
            server.send(Message("IMAGE", content, "Image", time.time(), version=1))
            found.append(receiver.stdout.readline().split())
            sent.append([*wanted, str(shown.flat[1]), str(shown.sum(dtype=int))])
        assert receiver.wait(60) == 0
        stop.cancel()
    assert found == sent


def test_pyigtl_receives_what_we_send(server: Server) -> None:
    pyigtl = pytest.importorskip("pyigtl")
    peer = pyigtl.OpenIGTLinkClient("127.0.0.1", server.port)
    try:
        server.send(Message("IMAGE", numbered(9).content, "Image", 1.5, {"Synthetic": "YES"}))
        found = peer.wait_for_message("Image", timeout=30)
        assert (found.image == 9).all() and found.metadata == {"Synthetic": "YES"}
    finally:
        peer.stop()
