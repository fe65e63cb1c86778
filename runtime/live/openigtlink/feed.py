"""Pictures that an OpenIGTLink server sends, as frames."""

from __future__ import annotations

import logging

from ...support.errors import StreamError
from ..feed import Feed
from .client import Client
from .content import read_image
from .message import Message

log = logging.getLogger("sonomime")

NO_PICTURE = ("warming up", "no signal")
LOOK = 0.2  # seconds between two looks whether the stream has stopped


def fetch_igtl(feed: Feed, host: str, port: int) -> None:
    """Takes pictures of any device name until the feed is stopped; a server that has gone is waited
    for."""
    refused = set[str]()

    def received(message: Message) -> None:
        if message.type != "IMAGE":
            return
        if (state := message.metadata.get("State")) in NO_PICTURE:
            feed.problem = f"the sender says: {state}"  # one of ours: its picture is black
            return
        try:
            image = read_image(message.content).image
        except StreamError as error:
            feed.problem = str(error)
            if str(error) not in refused and len(refused) < 100:  # once each
                refused.add(str(error))
                log.warning("%s: %s", feed.name, error)
            return
        feed.arrived(image)

    with Client(host, port, received) as client:
        while not feed.stopped:
            if not client.connected:
                feed.problem = f"nothing answers at {host}:{port}"
            elif feed.problem.startswith("nothing answers"):
                feed.problem = f"{host}:{port} is connected and has sent no picture"
            feed.sleep(LOOK)
