"""Engine files that harm, are cut off or half made: each refused in words, none of it used."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_files import engines_of, manifest_of

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_file import read_engine_file, read_engine_manifest
from sonomime.runtime.engines.engine_store import cache_root, trust
from sonomime.runtime.support.dataclass_parser import plain
from sonomime.runtime.support.errors import BackendError


@pytest.fixture
def toy(toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Bundle.open(toy_bundle)


def archive_of(
    bundle: Bundle, compress: int = zipfile.ZIP_STORED, **changes: bytes | None
) -> bytes:
    """A sound file, but for members that are replaced, added or, by None, left out."""
    members: dict[str, bytes | None] = {"manifest": json.dumps(plain(manifest_of(bundle))).encode()}
    members |= engines_of(bundle)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        for name, content in (members | changes).items():
            if content is not None:
                kind = "json" if name == "manifest" else "engine"
                archive.writestr(f"{name}.{kind}", content)
    return file.getvalue()


def with_manifest(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> bytes:
    data = plain(manifest_of(bundle))
    change(data)
    return archive_of(bundle, manifest=json.dumps(data).encode())


def beyond_all(bundle: Bundle) -> bytes:
    """A member whose place, in the directory's 64-bit form, is more than any file has."""
    content = bytearray(archive_of(bundle))
    entry, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    size = int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)
    content[end + 12 : end + 16] = size.to_bytes(4, "little")
    content[entry + 30 : entry + 32] = len(extra).to_bytes(2, "little")
    content[entry + 42 : entry + 46] = b"\xff" * 4
    return bytes(content[:end] + extra + content[end:])


def bomb(bundle: Bundle) -> bytes:
    """Sizes in the directory that lie: the members would overlap, or be larger than the file."""
    content = bytearray(archive_of(bundle))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = (1 << 30).to_bytes(4, "little") * 2
    return bytes(content)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda b: archive_of(b)[:-30], "cut off"),
        (lambda b: b"", "not an engine file"),
        (lambda b: b"\x7fELF not a zip", "not an engine file"),
        (beyond_all, "edited"),
        (bomb, "more bytes than it has"),
        (lambda b: archive_of(b, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda b: archive_of(b, run=b"#!"), "'run.engine'"),
        (lambda b: archive_of(b, motion=None), "motion.engine"),
        (lambda b: archive_of(b, motion=b"engine of malic3"), "motion.engine"),
        (lambda b: archive_of(b, manifest=None), "manifest.json"),
        (lambda b: archive_of(b, manifest=b"[" * 100_000), "edited"),
        (lambda b: archive_of(b, manifest=bytes(2 << 20)), "larger than 1 MiB"),
        (lambda b: with_manifest(b, lambda d: d["stages"][0].update(name="../../p")), "../../p"),
        (lambda b: with_manifest(b, lambda d: d["stages"][0].update(size=1 << 40)), "size"),
        (lambda b: with_manifest(b, lambda d: d.update(format=2)), "format"),
        (lambda b: with_manifest(b, lambda d: d.update(flavor=1)), "'flavor'"),
    ],
)
def test_what_is_not_a_sound_engine_file(
    make: Callable[[Bundle], bytes], words: str, toy: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "a.engine"
    file.write_bytes(make(toy))
    with pytest.raises(BackendError) as caught:
        trust(file)
    assert str(file) in caught.value.message and words in caught.value.message
    assert "sonomime build" in caught.value.hint
    assert not cache_root().exists(), "nothing is kept of it"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.engine", tmp_path):
        for read in (read_engine_file, read_engine_manifest):
            with pytest.raises(BackendError, match="cannot be read"):
                read(path)
