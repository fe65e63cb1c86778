"""An OpenIGTLink client: connects to a server, and again whenever it has gone."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter
from functools import partial
from typing import Self

from ..retry import Retry
from .connection import Connection, Received
from .message import Message, crc64, pack

log = logging.getLogger(__name__)

CONNECT = 5.0  # seconds to wait for an answer
LASTS = 8.0  # seconds after which a connection has worked


class Client:
    """Takes what a server sends, and sends to it, while there is one."""

    def __init__(self, host: str, port: int, received: Received) -> None:
        """Connect, in a thread: a server that is not there yet is waited for.

        Args:
            received: gets each message, in a thread of the connection.
        """
        crc64(b"")  # a missing package is reported here, not in a thread
        self.address = host, port
        self._received = received
        self._connection: Connection | None = None
        self._dropped: Counter[str] = Counter()  # of connections that have ended
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_connected, daemon=True)
        self._thread.start()

    def dropped(self, kind: str) -> int:
        """Messages of a kind that were replaced by newer ones before they were sent."""
        connection = self._connection
        return self._dropped[kind] + (connection.sending.dropped[kind] if connection else 0)

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def send(self, message: Message, keep: bool = False, kind: str = "") -> bool:
        """Send a message, the newest of its kind (its type, if not given) only; False if there is
        no server now. `keep` is for servers."""
        data, connection = pack(message), self._connection
        if connection is None:
            return False
        connection.sending.put(data, kind or message.type)
        return True

    def close(self) -> None:
        """End the connection; waits for its threads, but not if one of them calls it."""
        self._closed.set()
        if (connection := self._connection) is not None:
            connection.end()
            if connection.serves_here():
                return
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _keep_connected(self) -> None:
        retry = Retry()
        while not self._closed.is_set():
            began, gone = time.monotonic(), threading.Event()
            try:
                peer = socket.create_connection(self.address, CONNECT)
                connection = Connection(peer, self._received, partial(_set, gone))
            except (OSError, ValueError, OverflowError) as error:  # no such host, or port
                log.info("%s:%d: %s", *self.address, error)
            else:
                log.warning("%s:%d: connected", *self.address)
                self._connection = connection
                connection.begin()
                if not self._closed.is_set():
                    gone.wait()
                self._connection = None
                if not self._closed.is_set():
                    log.warning("%s:%d: the connection is lost", *self.address)
                connection.close()
                self._dropped += connection.sending.dropped
            if time.monotonic() - began > LASTS:
                retry.worked()
            self._closed.wait(retry.pause())


def _set(gone: threading.Event, _: Connection) -> None:
    gone.set()
