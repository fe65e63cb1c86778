"""A connection with a peer: what is put is sent, the newest only; what comes is handed on.

Two threads serve it, so a peer that does not read delays nobody else, and one that has gone costs
nothing.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from ...support.errors import StreamError
from ..slot import Slot
from .message import HEADER_BYTES, Message, pack, read_header, unpack

log = logging.getLogger(__name__)

Received = Callable[[Message], None]
SEND_BUFFER = 1 << 16  # bytes: with the system's own size a slow peer falls seconds behind
STALLED = 30.0  # seconds: a peer that takes nothing for so long has gone
_CHUNK = 1 << 16


class Connection:
    """Serves a connected socket until either side closes it.

    `sending.put(pack(message))` sends; `damaged` counts messages that came and could not be read.
    """

    def __init__(
        self, peer: socket.socket, received: Received, left: Callable[[Connection], None]
    ) -> None:
        """
        Args:
            received: gets each message, in a thread of this connection.
            left: called once, when the peer has gone or `close` was called.
        """
        self.sending: Slot[bytes] = Slot()
        self.damaged = 0
        self.name = "{}:{}".format(*peer.getpeername()[:2])
        self._peer, self._received, self._left = peer, received, left
        peer.settimeout(None)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * STALLED))
        jobs = self._send, self._receive
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def send(self, message: Message) -> None:
        """Send a message, unless a newer one comes before the last one has gone."""
        self.sending.put(pack(message))

    def close(self) -> None:
        """End the connection; waits for its threads, but not for the one that calls."""
        self._end()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _end(self) -> None:
        self.sending.close()
        with suppress(OSError):  # it has gone already
            self._peer.shutdown(socket.SHUT_RDWR)  # wakes the threads; closing alone does not

    def _send(self) -> None:
        try:
            for data in self.sending:
                self._peer.sendall(data)
        except OSError as error:
            log.info("%s: %s", self.name, error.strerror or error)
        self._end()

    def _receive(self) -> None:
        try:
            while (data := self._read(HEADER_BYTES)) is not None:
                header = read_header(bytes(data))
                if (body := self._read(header.size)) is None:
                    break
                try:
                    message = unpack(header, bytes(body))
                except StreamError as error:
                    self.damaged += 1
                    log.warning("%s: %s", self.name, error)
                    continue
                self._received(message)
        except StreamError as error:
            self.damaged += 1
            log.warning("%s: %s; the connection is closed", self.name, error)
        except OSError as error:
            log.info("%s: %s", self.name, error.strerror or error)
        finally:
            self._end()
            self._threads[0].join()
            self._peer.close()
            self._left(self)

    def _read(self, size: int) -> bytearray | None:
        """So many bytes; None if the peer has gone. Memory grows with what comes, not with what was
        announced."""
        data = bytearray()
        while len(data) < size:
            piece = self._peer.recv(min(_CHUNK, size - len(data)))
            if not piece:
                return None
            data += piece
        return data
