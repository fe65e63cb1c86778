"""A stream's frames as OpenIGTLink: pictures, states and answers out, orders in."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from ...media.mark import metadata
from ...support.errors import SonomimeError
from ..screen import State
from ..showing import Shown
from .content import Status, image_content, read_string, status_content, string_content
from .message import Message

DEVICE = "Image"
#: OpenIGTLink's codes that come nearest: fine, an error, timed out, not ready, not there.
CODES: Mapping[State, int] = {
    "live": 1, "doubtful": 2, "held": 7, "warming up": 13, "no signal": 16,
}  # fmt: skip
STATUS_EVERY = 25  # frames
_ALWAYS = {"Synthetic": "YES", **metadata()}
MOST_ANSWERS = 64  # that wait for a peer; more replace the oldest


GiveOrder: TypeAlias = Callable[[str, Callable[[str], None]], None]
"""Takes an order and who wants the answer; as `Stream.order`."""


class Sender(Protocol):
    """A Server, or a Client."""

    def send(self, message: Message, keep: bool = True, kind: str = "") -> object: ...

    def dropped(self, kind: str) -> int: ...

    def close(self) -> None: ...


class IgtlOutlet:
    """Sends each frame at once as the IMAGE `Image`, and its state as STATUS: whenever it changes,
    and every STATUS_EVERY frames. Peers give orders as STRING messages; what came of them goes to
    all, as the STRING `Answer`, with the order in its metadata."""

    def __init__(
        self, name: str, connect: Callable[[Callable[[Message], None]], Sender],
        order: GiveOrder, version: int = 2,
    ) -> None:  # fmt: skip
        """
        Args:
            connect: makes a Server or Client that hands on what it receives.
            order: takes the orders.
            version: of the header; 1 for peers that know no other, which get no metadata.
        """
        self.name, self._order, self._version = name, order, version
        self._state: State | None = None
        self._answers = itertools.count()
        self._connected = threading.Event()
        self._sender = connect(self._received)
        self._connected.set()

    @property
    def port(self) -> int | None:
        """Where a Server listens."""
        return getattr(self._sender, "port", None)

    def show(self, shown: Shown) -> None:
        """Send a frame; never waits."""
        texts = {**_ALWAYS, **shown.texts()}
        spacing = shown.spacing or (1.0, 1.0)
        self._send("IMAGE", image_content(shown.image, spacing), DEVICE, shown, texts)
        if shown.state != self._state or shown.number % STATUS_EVERY == 0:
            self._state = shown.state
            name = shown.state.upper().replace(" ", "_")
            content = status_content(Status(CODES[shown.state], name, shown.why))
            self._send("STATUS", content, DEVICE, shown, {})

    def end(self, shown: Shown) -> None:
        """Send the last frame, which stays for those who connect later."""
        self.show(shown)

    def dropped(self) -> int:
        """Frames that slow peers did not get."""
        return self._sender.dropped("IMAGE")

    def close(self) -> None:
        self._sender.close()

    def _send(
        self, kind: str, content: bytes, device: str, shown: Shown, texts: Mapping[str, str]
    ) -> None:
        message = Message(
            kind, content, device, shown.made_at, texts, shown.number % 2**32, self._version
        )
        self._sender.send(message)

    def _received(self, message: Message) -> None:
        if message.type != "STRING":
            return
        self._connected.wait()  # orders may come before `connect` has returned

        order = ""

        def answer(text: str) -> None:
            content, texts = string_content(text[:1000]), {"Order": order[:1000]}
            answered = Message("STRING", content, "Answer", 0.0, texts, version=self._version)
            # Not for who comes later; and a second answer does not replace one that waits.
            kind = f"answer {next(self._answers) % MOST_ANSWERS}"
            self._sender.send(answered, keep=False, kind=kind)

        try:
            order = read_string(message.content)
            self._order(order, answer)
        except SonomimeError as error:
            answer(f"{error} ({error.hint})" if error.hint else str(error))
