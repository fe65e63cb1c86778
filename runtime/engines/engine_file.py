"""One file that holds the engines of a whole bundle, and says what they were built from and for.

A zip archive, stored and not compressed, of `manifest.json` (the classes below) and one engine per
stage. An engine is machine code: what a file says of itself is checked before a byte of it is given
to TensorRT, and reading trusts nothing: sizes are bounded by the file's own size, digests by the
manifest. Whether the file itself may be used is `engine_store`'s question.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..support.atomic_files import atomic_path
from ..support.dataclass_parser import StrictError, parse, plain
from ..support.errors import BackendError, BundleError
from ..support.plain_file import read_plain_file

MANIFEST = "manifest.json"
MAX_FILE_BYTES = 8 << 30
MAX_MANIFEST_BYTES = 1 << 20
_BUILD = "build the engines again: sonomime build BUNDLE"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Precision:
    """How many layers of the parsed network compute in a type."""

    dtype: str
    layers: int


@dataclass(frozen=True)
class StageEngine:
    """One stage's engine. `onnx_sha256`: what it was built from; `seconds`: how long that took.

    `layers`, `precisions` and `plugin_layers` are the parsed network's; `engine_layers` (after
    fusing) and `device_memory_bytes` (activations) are the built engine's, None where there was no
    GPU to ask.
    """

    name: str
    onnx_sha256: str
    size: int
    sha256: str
    seconds: float
    layers: int
    precisions: tuple[Precision, ...]
    plugin_layers: int = 0
    engine_layers: int | None = None
    device_memory_bytes: int | None = None

    @property
    def file(self) -> str:
        """Its name in the archive."""
        return f"{self.name}.engine"


@dataclass(frozen=True)
class EngineManifest:
    """What the engines are: of which bundle, for which TensorRT and which GPUs.

    `targets`: compute capabilities (rtx) or name and compute capability of the one GPU (tensorrt);
    `plugin_sha256`: the plugin they call, or empty; `recipe`: what the builder was told.
    """

    bundle: str
    bundle_digest: str
    flavour: Literal["tensorrt", "rtx"]
    version: str
    targets: tuple[str, ...]
    stages: tuple[StageEngine, ...]
    plugin_sha256: str = ""
    recipe: str = ""
    format: Literal[1] = 1

    @property
    def size(self) -> int:
        """Bytes of all engines."""
        return sum(stage.size for stage in self.stages)


@dataclass(frozen=True)
class EngineFile:
    """A file's content, read once: its digest, its manifest and the engines by stage."""

    path: Path
    sha256: str
    manifest: EngineManifest
    engines: Mapping[str, bytes]


def write_engine_file(
    path: Path, manifest: EngineManifest, engines: Mapping[str, bytes], private: bool = False
) -> str:
    """Write a file, whole or not at all, and return its SHA-256; `private`: for its owner alone.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        if private:
            temporary.chmod(0o600)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            text = json.dumps(plain(manifest), indent=1) + "\n"
            _add(archive, MANIFEST, text.encode("utf-8"))
            for stage in manifest.stages:
                _add(archive, stage.file, engines[stage.name])
        with temporary.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_engine_file(path: Path) -> EngineFile:
    """Read and check a whole file: what is returned is what was checked.

    Raises:
        BackendError: missing, no engine file, cut off, edited, or not what it says of itself.
    """
    content = _content(path)
    with _open(path, io.BytesIO(content)) as archive:
        entries = _entries(path, archive, len(content))
        manifest = _manifest(path, archive, entries)
        engines = {}
        for stage in manifest.stages:
            entry = entries.pop(stage.file, None)
            if entry is None:
                raise _broken(path, f"the engine of stage {stage.name!r} is missing")
            if entry.file_size != stage.size:
                raise _broken(
                    path, f"{stage.file} has {entry.file_size} bytes, the manifest {stage.size}"
                )
            engine = _member(path, archive, entry)
            if hashlib.sha256(engine).hexdigest() != stage.sha256:
                raise _broken(path, f"{stage.file} differs from its SHA-256, so it was edited")
            engines[stage.name] = engine
        if entries:
            raise _broken(path, f"it holds {min(entries)!r}, which its manifest does not name")
    return EngineFile(path, hashlib.sha256(content).hexdigest(), manifest, engines)


def read_engine_manifest(path: Path) -> EngineManifest:
    """The manifest alone: neither engines nor digests are looked at.

    Raises:
        BackendError: the file is missing or none of ours.
    """
    try:
        with path.open("rb") as file, _open(path, file) as archive:
            size = os.fstat(file.fileno()).st_size
            return _manifest(path, archive, _entries(path, archive, size))
    except OSError as error:
        raise _unreadable(path, (error.strerror or str(error)).lower()) from None


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # No dates: the same engines make the same file.
    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_STORED)


def _content(path: Path) -> bytes:
    try:
        # A link is followed on purpose: it is the content that is trusted, whatever leads to it.
        return read_plain_file(Path(os.path.realpath(path)), MAX_FILE_BYTES)
    except BundleError as error:
        raise _unreadable(path, error.message) from None


def _open(path: Path, file: io.BufferedIOBase) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (
        zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError, OverflowError
    ) as error:  # fmt: skip
        raise _broken(path, f"it is cut off or no engine file ({error})") from None


def _entries(path: Path, archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Members by name. Stored members cannot be larger than the file, so none can swell."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise _broken(path, f"{entry.filename!r} is compressed or encrypted")
        if entry.filename in entries:
            raise _broken(path, f"it holds {entry.filename!r} twice")
        entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > size:
        raise _broken(path, "its members claim more bytes than it has")
    return entries


def _manifest(
    path: Path, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]
) -> EngineManifest:
    """Parse the manifest and take it out of the entries."""
    entry = entries.pop(MANIFEST, None)
    if entry is None:
        raise _broken(path, f"it has no {MANIFEST}")
    if entry.file_size > MAX_MANIFEST_BYTES:
        raise _broken(path, f"its {MANIFEST} is larger than 1 MiB")
    try:
        data = json.loads(_member(path, archive, entry))
        if isinstance(data, dict) and type(data.get("format")) is int and data["format"] != 1:
            raise BackendError(
                f"{path}: engine file of format {data['format']}, this sonomime reads 1", _BUILD
            )
        manifest = parse(EngineManifest, data)
    except StrictError as error:
        raise _broken(path, f"{MANIFEST}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"{MANIFEST} is no JSON: {str(error)[:100]}") from None
    names = [stage.name for stage in manifest.stages]
    if not names or len(set(names)) != len(names) or not all(map(_NAME.fullmatch, names)):
        raise _broken(path, f"{MANIFEST} names stages twice, none, or by impossible names")
    for stage in manifest.stages:
        if not _SHA256.fullmatch(stage.sha256) or not _SHA256.fullmatch(stage.onnx_sha256):
            raise _broken(path, f"{MANIFEST}: a digest of {stage.name!r} is none")
    return manifest


def _member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(entry) as file:
            content = file.read(entry.file_size + 1)
    except (
        zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError, OverflowError
    ) as error:  # fmt: skip
        raise _broken(path, f"{entry.filename} is damaged ({error})") from None
    if len(content) != entry.file_size:
        raise _broken(path, f"{entry.filename} is cut off")
    return content


def _broken(path: Path, reason: str) -> BackendError:
    return BackendError(f"{path} cannot be used: {reason}", f"copy it again, or {_BUILD}")


def _unreadable(path: Path, reason: str) -> BackendError:
    return BackendError(f"engine file {path} cannot be read: {reason}", _BUILD)
