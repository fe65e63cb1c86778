"""OpenIGTLink messages as bytes.

A message is a header of 58 bytes (version, type, device, time, size and CRC-64 of the body) and a
body. With header version 2 (protocol 3) the body is an extended header, the content and metadata;
with version 1 the content alone. Numbers are big-endian. What comes from a peer is not trusted:
every size is checked before it is used. Source: the protocol's description, Documents/Protocol in
OpenIGTLink's repository.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...support.errors import StreamError
from ...support.process import import_or_explain

HEADER_BYTES = 58
MOST_BYTES = 1 << 26  # of a body: more than an RGB picture of 4096 x 4096
_HEADER = struct.Struct(">H12s20sQQQ")
_EXTENDED = struct.Struct(">HHII")  # its size, that of metadata header and body, a number
_ENTRY = struct.Struct(">HHI")  # sizes of key and value, the value's encoding between them
_ENCODINGS = {3: "ascii", 4: "latin-1", 106: "utf-8"}  # by IANA's MIBenum
_UTF_8 = 106


@dataclass(frozen=True)
class Message:
    """type: at most 12 ASCII characters; device: at most 20; time: seconds since 1970, 0 if it is
    not known; metadata: texts by key, of header version 2 alone; number: the sender's, of header
    version 2."""

    type: str
    content: bytes | memoryview = b""
    device: str = ""
    time: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    version: int = 2


class Header(NamedTuple):
    version: int
    type: str
    device: str
    time: float
    size: int
    crc: int


def pack(message: Message) -> bytes:
    """The bytes of a message; metadata that header version 1 cannot hold is left out.

    Raises:
        StreamError: a type or device name that is too long or not ASCII, a body of over MOST_BYTES,
            a time, number or version out of its range.
    """
    parts: list[bytes | memoryview] = [message.content]
    if message.version >= 2:
        texts = [(_utf8(k), _utf8(v)) for k, v in message.metadata.items()]
        tail = b"".join(k + v for k, v in texts)
        try:
            entries = [_ENTRY.pack(len(k), _UTF_8, len(v)) for k, v in texts]
            head = b"".join([struct.pack(">H", len(texts)), *entries])
            extended = _EXTENDED.pack(_EXTENDED.size, len(head), len(tail), message.number)
        except struct.error as error:
            raise StreamError(f"metadata or number of a message do not fit: {error}") from error
        parts = [extended, message.content, head, tail]
    size = sum(map(len, parts))
    if size > MOST_BYTES:
        raise StreamError(f"a message of {size} bytes is too large: at most {MOST_BYTES}")
    names = _name(message.type, 12, "type"), _name(message.device, 20, "device name")
    if not _is_type(names[0]) or not 0 < message.version < 16:
        raise StreamError(f"no message has type {message.type!r} and version {message.version}")
    crc = 0
    for part in parts:
        crc = crc64(part, crc)
    try:
        stamp = round(message.time * 2**32)
        header = _HEADER.pack(message.version, *names, stamp, size, crc)
    except (struct.error, ValueError, OverflowError) as error:
        raise StreamError(f"time or version of a message cannot be written: {error}") from error
    return b"".join([header, *parts])


def read_header(data: bytes | bytearray, most: int = MOST_BYTES) -> Header:
    """The header in 58 bytes, of a message of at most so many.

    Raises:
        StreamError: this is no OpenIGTLink, or a body of over `most` bytes. Where one message ends
            and the next begins is then not known: the connection has to be closed.
    """
    version, kind, device, stamp, size, crc = _HEADER.unpack(data)
    names = [text.split(b"\0", 1)[0] for text in (kind, device)]
    if not (0 < version < 16 and _is_type(names[0])):
        raise StreamError("the peer does not speak OpenIGTLink")
    if size > most:
        raise StreamError(f"the peer announced {size} bytes: at most {most} are taken")
    kind, device = names[0].decode("ascii"), names[1].decode("ascii", "replace")
    return Header(version, kind, device, stamp / 2**32, size, crc)


def unpack(header: Header, body: bytes | bytearray) -> Message:
    """The message of a header and its whole body.

    Raises:
        StreamError: the checksum is wrong, or sizes inside of the body are. The next message can
            still be read.
    """
    if crc64(body) != header.crc:
        raise StreamError(f"a {header.type} message was damaged: its checksum is wrong")
    content, number = memoryview(body), 0
    texts: dict[str, str] = {}
    if header.version >= 2:
        content, texts, number = _opened(header.type, content)
    kept = header._asdict()
    del kept["size"], kept["crc"]
    return Message(content=content, metadata=texts, number=number, **kept)


def _opened(kind: str, body: memoryview) -> tuple[memoryview, dict[str, str], int]:
    """Content, metadata and number in a body of header version 2."""
    wrong = StreamError(f"a {kind} message is malformed: its parts do not fit its size")
    if len(body) < _EXTENDED.size:
        raise wrong
    extended, head, tail, number = _EXTENDED.unpack_from(body)
    begin, end = extended, len(body) - head - tail
    if extended < _EXTENDED.size or end < begin:
        raise wrong
    entries, texts = body[end : end + head], body[end + head :]
    count = struct.unpack_from(">H", entries)[0] if head >= 2 else 0
    if count * _ENTRY.size + 2 > head and count:
        raise wrong
    found, at = {}, 0
    for i in range(count):
        key, encoding, value = _ENTRY.unpack_from(entries, 2 + i * _ENTRY.size)
        if at + key + value > tail:
            raise wrong
        name = decoded(texts[at : at + key], _UTF_8)
        found[name] = decoded(texts[at + key : at + key + value], encoding)
        at += key + value
    return body[begin:end], found, number


def crc64(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """The checksum of a body, or of a part of one after parts with the checksum `before`: CRC-64 of
    ECMA-182."""
    fastcrc = import_or_explain("fastcrc.crc64", 'pip install "sonomime[live]"')
    return int(fastcrc.ecma_182(data, before))


def decoded(text: bytes | memoryview, encoding: int) -> str:
    """A peer's text; what is not of its encoding (a MIBenum) becomes a replacement character."""
    return bytes(text).decode(_ENCODINGS.get(encoding, "utf-8"), "replace")


def _utf8(text: str) -> bytes:
    """A name of a file may hold what is no text."""
    return text.encode("utf-8", "replace")


def _is_type(name: bytes) -> bool:
    return name.isascii() and name.decode("ascii").isprintable() and bool(name)


def _name(text: str, most: int, what: str) -> bytes:
    if not text.isascii() or len(text) > most:
        hint = f"give at most {most} ASCII characters"
        raise StreamError(f"the {what} {text!r} does not fit OpenIGTLink", hint)
    return text.encode("ascii")
