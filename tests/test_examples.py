"""The scripts of examples/ do what they say."""

from __future__ import annotations

import queue
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.live.openigtlink.client import Client
from sonomime.runtime.live.openigtlink.content import read_image
from sonomime.runtime.live.openigtlink.message import Message
from sonomime.runtime.live.openigtlink.server import PORT, Server
from sonomime.runtime.still import SAMPLES


def test_a_simulator_loop_streams_marked_frames_that_move(repository: Path) -> None:
    pytest.importorskip("fastcrc")
    example = runpy.run_path(str(repository / "examples" / "simulator_loop.py"))
    inbox: queue.Queue[Message] = queue.Queue()
    with Server(0) as server, Client("127.0.0.1", server.port, inbox.put):
        example["run"](SAMPLES / "lung_still.png", Path("breathing"), 0.4, server)
        found = [inbox.get(timeout=30)]
        while found[-1].number < 9:
            found.append(inbox.get(timeout=30))
    numbers = [message.number for message in found]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 9
    assert {message.metadata["Synthetic"] for message in found} == {"YES"}
    first, last = (read_image(found[i].content).image.astype(int) for i in (0, -1))
    assert first.shape == last.shape and np.abs(first - last).mean() > 0.5


def test_plus_connects_to_our_usual_port(repository: Path) -> None:
    tree = ElementTree.parse(repository / "examples" / "PlusDeviceSet_sonomime.xml")
    device = tree.find("DataCollection/Device")
    assert device is not None and device.get("Type") == "OpenIGTLinkVideo"
    assert device.get("ServerPort") == str(PORT)
    channel = tree.find("DataCollection/Device/OutputChannels/OutputChannel")
    server = tree.find("PlusOpenIGTLinkServer")
    assert channel is not None and server is not None
    assert server.get("OutputChannelId") == channel.get("Id")
