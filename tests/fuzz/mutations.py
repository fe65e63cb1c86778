"""Seeded damage to a file's bytes: a bad disk, a cut connection, an ill-meaning sender."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from random import Random

_PNG = b"\x89PNG\r\n\x1a\n"
# Values that are special to somebody: limits, signs, not-a-number, what opens and never closes.
_BYTES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\n", b",", b'"', b"\x1b[31m")
_WORDS = (
    b"-1",
    b"0",
    b"1e9",
    b"1" * 40,
    b"nan",
    b"-inf",
    b"null",
    b"{}",
    b"[[1]]",
    b"",
    b"a" * 300,
)
_WORDS += (b"[" * 3000, b'{"a":' * 3000, b"2020-01-01", b"../../x", b"\xff\xfe", b"true", b"1.5")
_SIZES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutated(data: bytes, random: Random) -> bytes:
    """``data`` with one to four kinds of damage; inside its members or chunks, where it has any."""
    if zipfile.is_zipfile(io.BytesIO(data)) and random.random() < 0.6:
        return _in_a_member(data, random)
    damaged = data
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        damaged = random.choice(_DAMAGE)(damaged, random)
    return _with_checksums(damaged) if random.random() < 0.7 else damaged


def _place(data: bytes, random: Random) -> int:
    # The beginning of a file decides most.
    return random.randrange(min(len(data), 200) if random.random() < 0.4 else len(data))


def _flipped(data: bytes, random: Random) -> bytes:
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 8, 64))):
        if result:
            result[_place(data, random)] ^= 1 << random.randrange(8)
    return bytes(result)


def _overwritten(data: bytes, random: Random) -> bytes:
    if not data:
        return data
    at = _place(data, random)
    order = random.choice("<>")
    new = random.choice((*_BYTES, *(struct.pack(f"{order}I", size) for size in _SIZES)))
    return data[:at] + new + data[at + len(new) :]


def _inserted(data: bytes, random: Random) -> bytes:
    at = _place(data, random) if data else 0
    return data[:at] + random.choice((*_BYTES, *_WORDS)) + data[at:]


def _cut(data: bytes, random: Random) -> bytes:
    first, last = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return random.choice((data[:first], data[:first] + data[last:], data[first:]))


def _repeated(data: bytes, random: Random) -> bytes:
    first, last = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:last] + data[first:last] * random.choice((1, 3)) + data[last:]


def _reworded(data: bytes, random: Random) -> bytes:
    """Another word in place of a number or a name: what a person's typing error is in a table."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z_]\w*", data[:100_000]))
    if not found:
        return data
    word = random.choice(found)
    new = random.choice((*_WORDS, random.choice(found)[0]))
    return data[: word.start()] + new + data[word.end() :]


_DAMAGE = (_flipped, _overwritten, _inserted, _cut, _repeated, _reworded, _reworded)


def _in_a_member(data: bytes, random: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = random.choice(sorted(members))
    way = random.random()
    if way < 0.1:
        del members[chosen]
    elif way < 0.2:
        members[chosen] = bytes(300_000_000)  # deflated, this is a file of 300 kB
    else:
        members[chosen] = random.choice(_DAMAGE)(members[chosen], random)
    kind = zipfile.ZIP_DEFLATED if way < 0.4 else zipfile.ZIP_STORED
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return result.getvalue()


def _with_checksums(data: bytes) -> bytes:
    """A damaged PNG whose chunks all have the right checksum, so that what is in them is read."""
    if not data.startswith(_PNG):
        return data
    result, at = bytearray(data), len(_PNG)
    while at + 12 <= len(data):
        end = at + 8 + struct.unpack_from(">I", data, at)[0]
        if end + 4 > len(data):
            break
        struct.pack_into(">I", result, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(result)
