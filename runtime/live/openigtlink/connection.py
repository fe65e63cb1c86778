"""A connection with a peer: what is put is sent, the newest of each type; what comes is handed on.

Two threads serve it, so a peer that does not read delays nobody else, and one that has gone costs
nothing. A peer that keeps up is sent to in the thread of whoever puts.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from ...support.errors import StreamError
from ..slot import Slot
from .message import HEADER_BYTES, MOST_BYTES, Message, read_header, unpack

log = logging.getLogger(__name__)

Received = Callable[[Message], None]
SEND_BUFFER = 1 << 16  # bytes: with the system's own size a slow peer falls seconds behind
# A peer has gone that takes nothing for so many milliseconds, or does not answer for 30 seconds.
_STALLED = {"TCP_USER_TIMEOUT": 30_000, "TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
_CHUNK = 96 << 10  # bytes: a grey picture of 256 x 256 and its texts at once
SAID = 3  # damaged messages of a connection that are logged


class Connection:
    """Serves a connected socket from `begin` until either side closes it.

    `sending.put(pack(message), type)` sends; `damaged` counts messages that came and could not be
    read.
    """

    def __init__(
        self, peer: socket.socket, received: Received, left: Callable[[Connection], None],
        most: int = MOST_BYTES,
    ) -> None:  # fmt: skip
        """
        Args:
            received: gets each message, in a thread of this connection. If it raises, that is
                logged, and the connection goes on.
            left: called once, when the peer has gone or `end` was called.
            most: bytes of a message from the peer.

        Raises:
            OSError: the peer has gone already; the socket is closed.
        """
        self.sending: Slot[bytes | memoryview] = Slot(self._send_at_once)
        self.damaged = 0
        self._peer, self._received, self._left, self._most = peer, received, left, most
        try:
            self.name = "{}:{}".format(*peer.getpeername()[:2])
            self._set_up(peer)
        except OSError:
            peer.close()
            raise
        jobs = self._send, self._receive
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]

    @staticmethod
    def _set_up(peer: socket.socket) -> None:
        peer.settimeout(None)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _STALLED.items():
            if hasattr(socket, option):  # Linux has all of them
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def begin(self) -> None:
        """Send and receive; after whoever gets messages knows this connection."""
        for thread in self._threads:
            thread.start()

    def serves_here(self) -> bool:
        """Whether the calling thread is one of its own, as in `received`."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """End the connection and wait for its threads; not from one of them."""
        self.end()
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        """End the connection, without waiting."""
        self.sending.close()
        with suppress(OSError):  # it has gone already
            self._peer.shutdown(socket.SHUT_RDWR)  # wakes the threads; closing alone does not

    def _send_at_once(self, data: bytes | memoryview) -> memoryview | None:
        """Send what the peer has room for; the rest, if there is one."""
        try:
            sent = self._peer.send(data, socket.MSG_DONTWAIT)
        except OSError:  # no room; or the peer has gone, which the thread will find
            sent = 0
        return memoryview(data)[sent:] if sent < len(data) else None

    def _send(self) -> None:
        try:
            for data in self.sending:
                self._peer.sendall(data)
        except OSError as error:
            log.info("%s: %s", self.name, error.strerror or error)
        self.end()

    def _receive(self) -> None:
        try:
            while (data := self._read(HEADER_BYTES)) is not None:
                header = read_header(data, self._most)
                if (body := self._read(header.size)) is None:
                    break
                try:
                    message = unpack(header, body)
                except StreamError as error:
                    self._complain(error)
                    continue
                self._hand_on(message)
        except StreamError as error:
            self._complain(error)
        except OSError as error:
            log.info("%s: %s", self.name, error.strerror or error)
        finally:
            self.end()
            self._threads[0].join()
            self._peer.close()
            self._left(self)

    def _complain(self, error: StreamError) -> None:
        self.damaged += 1
        if self.damaged <= SAID:  # a log that a peer can fill is no log
            log.warning("%s: %s", self.name, error)

    def _hand_on(self, message: Message) -> None:
        try:
            self._received(message)
        except Exception:  # the caller's own; the stream is sound
            log.exception("%s: a %s message could not be used", self.name, message.type)

    def _read(self, size: int) -> bytearray | None:
        """So many bytes; None if the peer has gone. Memory grows with what comes, not with what was
        announced."""
        data = bytearray()
        while len(data) < size:
            piece = bytearray(min(_CHUNK, size - len(data)))
            if not (got := self._peer.recv_into(piece, flags=socket.MSG_WAITALL)):
                return None
            del piece[got:]
            if data:
                data += piece
            else:
                data = piece  # nearly always the whole: not copied again
        return data
