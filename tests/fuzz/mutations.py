"""Seeded damage to a file's bytes: a bad disk, a cut connection, an ill-meaning sender."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from random import Random
from typing import Any

_PNG = b"\x89PNG\r\n\x1a\n"
# Values that are special to somebody: limits, signs, not-a-number, what opens and never closes.
_BYTES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\n", b",", b'"', b"\x1b[31m")
_WORDS = (
    b"-1", b"0", b"1e9", b"1" * 40, b"nan", b"-inf", b"null", b"{}", b"[[1]]", b"", b"a" * 300,
    b"[" * 3000, b'{"a":' * 3000, b"2020-01-01", b"../../x", b"\xff\xfe", b"true", b"1.5",
)  # fmt: skip
_VALUES = (None, True, -1, 0, 2**63, 1.5, float("nan"), "", "../x", "\x1b[2J", [], {}, [300])
_SIZES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_BOMB = 3 << 30  # bytes: more than a reader may take


def mutated(data: bytes, random: Random) -> bytes:
    """``data`` with one to four kinds of damage; inside its members or chunks, where it has any."""
    if zipfile.is_zipfile(io.BytesIO(data)) and random.random() < 0.6:
        return _in_a_member(data, random)
    damaged = data
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        damaged = _damaged(damaged, random)
    return _with_checksums(damaged) if random.random() < 0.7 else damaged


def _damaged(data: bytes, random: Random) -> bytes:
    """With one kind of damage. Half of what is done to JSON leaves it JSON."""
    if data.startswith(b"{") and random.random() < 0.5:
        try:
            return _restructured(data, random)
        except (ValueError, RecursionError):
            pass  # damaged before
    return random.choice(_DAMAGE)(data, random)


def _place(data: bytes, random: Random) -> int:
    # The beginning of a file decides most.
    return random.randrange(min(len(data), 200) if random.random() < 0.4 else len(data) + 1)


def _flipped(data: bytes, random: Random) -> bytes:
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 8, 64)) if data else 0):
        result[_place(data, random) % len(data)] ^= 1 << random.randrange(8)
    return bytes(result)


def _overwritten(data: bytes, random: Random) -> bytes:
    """With other bytes or words in place of some, or between them."""
    order, at = random.choice("<>"), _place(data, random) if data else 0
    sizes = tuple(struct.pack(f"{order}I", size) for size in _SIZES)
    new = random.choice(random.choice((_BYTES, _WORDS, sizes)))
    return data[:at] + new + data[random.choice((at, at + len(new))) :]


def _cut(data: bytes, random: Random) -> bytes:
    """Cut off, with a hole, or with a part that comes again."""
    first, last = sorted(random.randrange(len(data) + 1) for _ in range(2))
    again = data[:last] + data[first:last] * random.choice((1, 3)) + data[last:]
    return random.choice((data[:first], data[:first] + data[last:], data[first:], again, again))


def _reworded(data: bytes, random: Random) -> bytes:
    """Another word in place of a number or a name: what a person's typing error is in a table."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z_]\w*", data[:100_000]))
    if not found:
        return data
    word = random.choice(found)
    new = random.choice((*_WORDS, random.choice(found)[0]))
    return data[: word.start()] + new + data[word.end() :]


_DAMAGE = (_flipped, _overwritten, _overwritten, _cut, _cut, _reworded, _reworded)


def _restructured(data: bytes, random: Random) -> bytes:
    """JSON of which values are missing, odd, or those of another place."""
    tree = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        (parent, key), (elsewhere, other) = random.choice(places), random.choice(places)
        if random.random() < 0.3:
            del parent[key]
        else:
            # A copy, or the tree could come to hold itself.
            parent[key] = random.choice((*_VALUES, *[json.loads(json.dumps(elsewhere[other]))] * 9))
    return json.dumps(tree).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each value of plain data, as a table or list and a key of it."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def _in_a_member(data: bytes, random: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = random.choice(sorted(members))
    way = random.random()
    if way < 0.1:
        del members[chosen]
    elif way >= 0.2:
        members[chosen] = _damaged(members[chosen], random)
    kind = zipfile.ZIP_DEFLATED if 0.2 <= way < 0.4 else zipfile.ZIP_STORED
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", kind) as archive:
        for name, content in members.items():
            if 0.1 <= way < 0.2 and name == chosen:
                _write_bomb(archive, name)
            else:
                archive.writestr(name, content)
    return result.getvalue()


def _write_bomb(archive: zipfile.ZipFile, name: str) -> None:
    """A member of zeros that unpacks to a thousand times its size, made without packing all."""
    packer, part = zlib.compressobj(9, zlib.DEFLATED, -15), 1 << 24
    packed = packer.compress(bytes(part)) + packer.flush(zlib.Z_FULL_FLUSH)
    archive.writestr(name, packed * (_BOMB // part) + packer.flush())
    entry = archive.getinfo(name)
    entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, _BOMB


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
