"""Engine files made to harm, cut off or half made: each refused in words, none of it used."""

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
from hypothesis import given
from hypothesis import strategies as st

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_file import read_engine_file, read_engine_manifest
from sonomime.runtime.engines.engine_store import cache_root, trust
from sonomime.runtime.support.dataclass_parser import plain
from sonomime.runtime.support.errors import BackendError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def toy(toy_bundle: Path) -> Bundle:
    return Bundle.open(toy_bundle)


def sound(bundle: Bundle) -> bytes:
    file = io.BytesIO()
    engines = engines_of(bundle)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", json.dumps(plain(manifest_of(bundle))))
        for name, engine in engines.items():
            archive.writestr(f"{name}.engine", engine)
    return file.getvalue()


def rewritten(
    bundle: Bundle,
    change: Callable[[dict[str, Any]], None] = lambda data: None,
    extra: tuple[str, bytes] | None = None,
    compress: int = zipfile.ZIP_STORED,
    leave: str = "",
) -> bytes:
    data = plain(manifest_of(bundle))
    change(data)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compress) as archive:
        if leave != "manifest.json":
            archive.writestr("manifest.json", json.dumps(data))
        for name, engine in engines_of(bundle).items():
            if leave != name:
                archive.writestr(f"{name}.engine", engine)
        if extra:
            archive.writestr(*extra)
    return file.getvalue()


def twice(data: dict[str, Any]) -> None:
    data["stages"].append(data["stages"][0])


def climbing(data: dict[str, Any]) -> None:
    data["stages"][0]["name"] = "../../etc/passwd"


def longer(data: dict[str, Any]) -> None:
    data["stages"][0]["size"] = 1 << 40


def newer(data: dict[str, Any]) -> None:
    data["format"] = 2


def beyond_all(bundle: Bundle) -> bytes:
    """A member whose place, in the directory's 64-bit form, is more than any file has."""
    content = bytearray(sound(bundle))
    entry, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    size = int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)
    content[end + 12 : end + 16] = size.to_bytes(4, "little")
    content[entry + 30 : entry + 32] = len(extra).to_bytes(2, "little")
    content[entry + 42 : entry + 46] = b"\xff" * 4
    return bytes(content[:end] + extra + content[end:])


def misspelt(data: dict[str, Any]) -> None:
    data["flavor"] = data.pop("flavour")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda b: sound(b)[:-30], "cut off or no engine file"),
        (lambda b: b"", "cut off or no engine file"),
        (beyond_all, "is damaged|no engine file"),
        (lambda b: b"\x7fELF not a zip", "cut off or no engine file"),
        (lambda b: rewritten(b, compress=zipfile.ZIP_DEFLATED), "compressed"),
        (lambda b: rewritten(b, extra=("run.sh", b"#!")), "which its manifest does not name"),
        (lambda b: rewritten(b, leave="motion"), "stage 'motion' is missing"),
        (lambda b: rewritten(b, leave="manifest.json"), "no manifest.json"),
        (lambda b: rewritten(b, twice), "stages twice"),
        (lambda b: rewritten(b, climbing), "impossible names"),
        (lambda b: rewritten(b, longer), "the manifest 1099511627776"),
        (lambda b: rewritten(b, newer), "format 2"),
        (lambda b: rewritten(b, misspelt), "did you mean|unknown key 'flavor'"),
    ],
)
def test_what_is_no_sound_engine_file(
    make: Callable[[Bundle], bytes], said: str, toy: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "a.engine"
    file.write_bytes(make(toy))
    with pytest.raises(BackendError, match=said) as caught:
        trust(file)
    assert str(file) in caught.value.message and "sonomime build" in caught.value.hint
    assert not cache_root().exists(), "nothing is kept of it"


def test_a_bomb_is_refused_before_it_swells(toy: Bundle, tmp_path: Path) -> None:
    """Sizes in the directory that lie: the members would overlap, or be larger than the file."""
    content = bytearray(sound(toy))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = (1 << 30).to_bytes(4, "little") * 2
    file = tmp_path / "bomb.engine"
    file.write_bytes(content)
    with pytest.raises(BackendError, match="claim more bytes than it has"):
        read_engine_file(file)


def test_a_file_that_is_none(toy: Bundle, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.engine", tmp_path):
        with pytest.raises(BackendError, match="cannot be read"):
            read_engine_file(path)
        with pytest.raises(BackendError, match="cannot be read"):
            read_engine_manifest(path)


@given(st.data())
def test_no_damage_passes_unnoticed(
    toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bundle = Bundle.open(toy_bundle)
    content = bytearray(sound(bundle))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    file = tmp_path_factory.mktemp("damaged") / "a.engine"
    file.write_bytes(content)
    try:
        found = read_engine_file(file)
    except BackendError:
        return
    # Only what no digest covers may have changed, and that is never an engine.
    assert dict(found.engines) == engines_of(bundle)
