"""OpenIGTLink's bytes: against the reference library's own test data, pyigtl, and damage."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonomime.runtime.live.openigtlink.content import (
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
from sonomime.runtime.support.errors import StreamError

pytest.importorskip("fastcrc")

# Messages of the reference library's tests, igtl_test_data_string.h and igtl_test_data_status.h.
STAMP = 0x499602D4 / 2**32
STRING = (
    bytes.fromhex(
        "0001 535452494e47000000000000 4465766963654e616d6500000000000000000000"
        "00000000499602d4 000000000000001a cef1b42a701104d4"
    )
    + b"\0\x03\0\x16Welcome to OpenIGTLink"
)
STATUS = (
    bytes.fromhex(
        "0001 535441545553000000000000 4465766963654e616d6500000000000000000000"
        "00000000499602d4 0000000000000036 98ee43eed8e431cf 000f 000000000000000a"
    )
    + b"ACTUATOR_DISABLED\0\0\0Actuator A is disabled.\0"
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (4, 6, 3), np.uint8)


def opened(data: bytes) -> Message:
    return unpack(read_header(data[:HEADER_BYTES]), data[HEADER_BYTES:])


def test_the_reference_librarys_messages() -> None:
    text = opened(STRING)
    assert (text.type, text.device, text.time, text.version) == ("STRING", "DeviceName", STAMP, 1)
    assert read_string(text.content) == "Welcome to OpenIGTLink"
    assert pack(replace(text, content=string_content("Welcome to OpenIGTLink"))) == STRING
    state = read_status(opened(STATUS).content)
    assert state == Status(15, "ACTUATOR_DISABLED", "Actuator A is disabled.")
    written = status_content(state)  # its sub-code is 0, not 10
    assert written[:2] + written[10:] == STATUS[58:60] + STATUS[68:]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("image", [GREY, COLOUR])
def test_a_picture_comes_back_with_its_spacing_time_and_metadata(version: int, image: Any) -> None:
    content = image_content(image, (0.5, 0.25))
    texts = {"Synthetic": "YES", "Größe": "5 \u00d7 7", "": ""}
    sent = Message("IMAGE", content, "Image", 1.75e9 + 1 / 3, texts, 9, version)
    found = opened(pack(sent))
    assert found.time == pytest.approx(sent.time, abs=1e-6)
    assert found.metadata == (texts if version == 2 else {})
    assert found.number == (9 if version == 2 else 0)
    picture = read_image(found.content)
    assert np.array_equal(picture.image, image) and picture.spacing == (0.5, 0.25)


def test_pyigtl_reads_ours_and_we_read_its() -> None:
    messages = pytest.importorskip("pyigtl").messages
    texts = {"Synthetic": "YES", "frame": "12"}
    ours = pack(Message("IMAGE", image_content(GREY, (0.5, 0.25)), "Image", 12.5, texts, 3))
    head = messages.MessageBase.parse_header(ours[:HEADER_BYTES])
    theirs = messages.ImageMessage()
    theirs.unpack(head, ours[HEADER_BYTES:])
    assert np.array_equal(theirs.image[0], GREY) and theirs.metadata == texts
    assert theirs.timestamp == 12.5 and theirs.device_name == "Image"
    wanted = np.diag([0.5, 0.25, 1, 1])  # its first pixel is at the origin
    assert np.allclose(theirs.ijk_to_world_matrix, wanted)

    for image in (GREY, COLOUR):
        sent = messages.ImageMessage(image[None], wanted, "lps", timestamp=3.5, device_name="Probe")
        sent.header_version, sent.metadata = 2, {"a": "b"}
        found = opened(sent.pack())
        assert (found.type, found.device, found.time) == ("IMAGE", "Probe", 3.5)
        assert found.metadata == {"a": "b"}
        assert np.array_equal(read_image(found.content).image, image)
        assert read_image(found.content).spacing == (0.5, 0.25)
    text = messages.StringMessage("network")
    assert read_string(opened(text.pack()).content) == "network"


def altered(content: bytes, at: int, kind: str, *values: float) -> bytes:
    data = bytearray(content)
    struct.pack_into(">" + kind, data, at, *values)
    return bytes(data)


IMAGE = image_content(GREY)


@pytest.mark.parametrize(
    "content",
    [
        IMAGE[:71], IMAGE[:-1], IMAGE + b"\0", b"",
        altered(IMAGE, 2, "B", 2), altered(IMAGE, 2, "B", 4),  # components
        altered(IMAGE, 3, "B", 5), altered(IMAGE, 3, "B", 99),  # 16 bits; unknown
        altered(IMAGE, 6, "3H", 7, 5, 2), altered(IMAGE, 6, "3H", 0, 5, 1),  # a volume; nothing
        altered(IMAGE, 6, "3H", 65535, 65535, 1), altered(IMAGE, 60, "H", 1),  # too large; a part
        altered(IMAGE, 66, "H", 6),
    ],
)  # fmt: skip
def test_pictures_that_are_not_taken(content: bytes) -> None:
    with pytest.raises(StreamError):
        read_image(content)


@pytest.mark.parametrize("content", [b"", b"\0\x03\0", b"\0\x03\0\x05abcd"])
def test_texts_that_are_malformed(content: bytes) -> None:
    with pytest.raises(StreamError):
        read_string(content)
    with pytest.raises(StreamError):
        read_status(content)


def test_names_and_sizes_have_limits() -> None:
    for wrong in (
        Message("THIRTEEN_LONG"), Message("IMAGE", device="twenty-one characters"),
        Message("IMAGE", device="ä"), Message("IMAGE", bytes(MOST_BYTES + 1)), Message(""),
        Message("A\nB"), Message("IMAGE", time=-1), Message("IMAGE", time=float("nan")),
        Message("IMAGE", number=2**32), Message("IMAGE", version=0),
        Message("IMAGE", metadata={"a" * 65536: ""}),
    ):  # fmt: skip
        with pytest.raises(StreamError):
            pack(wrong)
    with pytest.raises(StreamError):
        string_content("a" * 65536)
    header = bytearray(pack(Message("IMAGE")))[:HEADER_BYTES]
    with pytest.raises(StreamError):
        read_header(pack(Message("IMAGE", bytes(9)))[:HEADER_BYTES], most=20)
    for wrong in (
        altered(header, 0, "H", 0), altered(header, 2, "B", 0), altered(header, 2, "B", 0xE4),
        altered(header, 42, "Q", MOST_BYTES + 1), b"GET / HTTP/1.1\r\nHost: localhost".ljust(58),
    ):  # fmt: skip
        with pytest.raises(StreamError):
            read_header(wrong)


def body_of(data: bytes) -> Message:
    """A body with a right checksum, as a peer that means it would send it."""
    header = read_header(pack(Message("IMAGE"))[:HEADER_BYTES])
    return unpack(header._replace(size=len(data), crc=crc64(data)), data)


WHOLE = pack(Message("IMAGE", IMAGE, "Image", 1.0, {"Synthetic": "YES", "frame": "1"}))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255), st.integers(0, len(WHOLE)))
def test_damage_is_an_error_or_noticed(at: int, flip: int, end: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= flip
    if at >= 50:
        with pytest.raises(StreamError):
            opened(bytes(data))  # the checksum, or what it is of
    try:
        message = body_of(bytes(data[HEADER_BYTES:end]))
        assert isinstance(message.metadata, dict)
        read_image(message.content)
    except StreamError:
        pass
