"""An OpenIGTLink server: whoever connects gets the newest message."""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from contextlib import suppress
from typing import Self

from ...support.errors import StreamError
from .connection import Connection, Received
from .message import Message, crc64, pack

log = logging.getLogger(__name__)

PORT = 18944  # the usual one
MOST_CLIENTS = 16
MOST_RECEIVED = 1 << 20  # bytes of a message from a client


class Server:
    """Sends every message to all clients; each has its own place for the newest one of each kind.

    For example::

        with Server() as server:
            server.send(Message("IMAGE", image_content(frame), "Image"))
    """

    def __init__(
        self, port: int = PORT, host: str = "127.0.0.1", received: Received | None = None
    ) -> None:
        """Listen.

        Args:
            port: 0 for any that is free; see `port`.
            host: the address to listen at; "0.0.0.0" for all of this machine's.
            received: gets what clients send, in threads of theirs.

        Raises:
            StreamError: the address cannot be had.
        """
        crc64(b"")  # a missing package is reported here, not in a thread
        self._received = received or (lambda message: None)
        self._clients: list[Connection] = []
        self._last: dict[str, bytes] = {}  # by kind
        self._dropped: Counter[str] = Counter()  # of clients that have left
        self._lock = threading.Lock()
        self._closed = threading.Event()
        try:
            self._socket = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            hint = "give another port, or stop the program that has it"
            raise StreamError(f"cannot listen at {host}:{port}: {error}", hint) from error
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def clients(self) -> list[Connection]:
        """Those that are connected."""
        with self._lock:
            return list(self._clients)

    def dropped(self, kind: str) -> int:
        """Messages of a kind that were replaced by newer ones, of all clients."""
        with self._lock:
            left = [self._dropped, *(client.sending.dropped for client in self._clients)]
        return sum(counts[kind] for counts in left)

    def send(self, message: Message, keep: bool = True, kind: str = "") -> None:
        """Send a message to all clients; never waits.

        Args:
            keep: send it also to clients that connect before the next one of its kind.
            kind: of two that wait for a client, the newer one is sent; its type, if not given.

        Raises:
            StreamError: it does not fit the protocol.
        """
        data, kind = pack(message), kind or message.type
        with self._lock:
            if keep:
                self._last[kind] = data
            for client in self._clients:
                client.sending.put(data, kind)

    def close(self) -> None:
        """Stop listening and end all connections; waits for their threads, but not if one of them
        calls it."""
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()
        self._thread.join()
        clients = self.clients
        for client in clients:
            client.end()
        if not any(client.serves_here() for client in clients):
            for client in clients:
                client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                peer, _ = self._socket.accept()
            except OSError:
                self._closed.wait(0.1)  # the peer has gone, or this process has too many files open
                continue
            with self._lock:
                if self._closed.is_set() or len(self._clients) >= MOST_CLIENTS:
                    if not self._closed.is_set():
                        log.warning("a client was sent away: %d are connected", len(self._clients))
                    peer.close()
                    continue
                try:
                    client = Connection(peer, self._received, self._remove, MOST_RECEIVED)
                except OSError:
                    continue  # it has gone
                self._clients.append(client)
                for kind, data in self._last.items():
                    client.sending.put(data, kind)
                client.begin()
            log.info("%s is connected", client.name)

    def _remove(self, client: Connection) -> None:
        with self._lock:
            self._clients.remove(client)
            self._dropped += client.sending.dropped
        log.info("%s has left", client.name)
