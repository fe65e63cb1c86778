"""Damaged OpenIGTLink messages, and what reading them may give.

A case is a name such as "colour 2 17": ``damaged`` makes its bytes, the same on any machine.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import TypeAlias

import numpy as np

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
from sonomime.runtime.live.openigtlink.server import MOST_RECEIVED
from sonomime.runtime.live.orders import ORDERS, parse_order
from sonomime.runtime.support.errors import ConfigError, StreamError

from .mutations import mutated

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
MESSAGES = [f"{kind} {version}" for kind in _CONTENTS for version in (1, 2)]
#: What a case's name begins with. "stream": up to four messages, most of them damaged.
KINDS = (*MESSAGES, "stream")

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
            kind = random.choice(MESSAGES)
            parts.append(_message(kind, random) if random.random() < 0.6 else sound(kind))
            if random.random() < 0.1:  # no header, though the next one is where it would be
                parts.append(bytes(2) + random.randbytes(HEADER_BYTES - 2))
        data = b"".join(parts)
        if random.random() < 0.1:
            data = mutated(data, random)
    return _with_checksums(data) if random.random() < 0.75 else data


def sound(kind: str) -> bytes:
    name, version = kind.split()
    type_, content = _CONTENTS[name]
    return pack(Message(type_, content, "Probe", 1.75e9, _TEXTS, 7, int(version)))


def _message(kind: str, random: Random) -> bytes:
    """One message with one kind of damage; its size is right again in most."""
    data, way = sound(kind), random.random()
    if way < 0.15:
        return _refilled(kind, random)
    if way < 0.6:
        data = _renumbered(data, _numbers(kind), random)
    elif way < 0.7:
        other = sound(random.choice(MESSAGES))
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
