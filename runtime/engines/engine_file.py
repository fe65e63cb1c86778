"""One file that holds the engines of a whole bundle, and says what they were built from and for.

A zip archive, stored and not compressed, of `manifest.json` (the classes below) and one engine per
stage. An engine is machine code: a file is checked before a byte of it is given to TensorRT.
`engine_store` decides whether the file may be used at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from ..support.atomic_files import atomic_path
from ..support.dataclass_parser import parse, plain
from ..support.errors import BackendError, BundleError
from ..support.plain_file import read_plain_file, sha256_file

MANIFEST = "manifest.json"
MAX_FILE_BYTES = 8 << 30
MAX_MANIFEST_BYTES = 1 << 20
_BUILD = "build the engines again: sonomime build BUNDLE"


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
    `plugin_sha256`: the plugin they call, or empty; `recipe`: the builder's options.
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


class EngineFile(NamedTuple):
    """A file's content, read once: its digest, its manifest and the engines by stage."""

    sha256: str
    manifest: EngineManifest
    engines: Mapping[str, bytes]


def write_engine_file(path: Path, manifest: EngineManifest, engines: Mapping[str, bytes]) -> str:
    """Write a file for its owner alone, whole or not at all, and return its SHA-256.

    Raises:
        OutputError: it cannot be written.
    """
    members = {MANIFEST: (json.dumps(plain(manifest), indent=1) + "\n").encode()}
    members |= {stage.file: engines[stage.name] for stage in manifest.stages}
    with atomic_path(path) as temporary:
        temporary.chmod(0o600)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                # ZipInfo has no date: the same engines make the same file.
                archive.writestr(zipfile.ZipInfo(name), content)
        return sha256_file(temporary)


def _manifest(archive: zipfile.ZipFile) -> EngineManifest:
    if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
        raise ValueError(f"its {MANIFEST} is larger than 1 MiB")
    return parse(EngineManifest, json.loads(archive.read(MANIFEST)), MANIFEST)


def peek(path: Path) -> EngineManifest | None:
    """What a file says of its engines, which may be large and are not read; None if nothing sound.
    Whether it is true, `read_engine_file` says."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = archive.getinfo(MANIFEST).compress_type == zipfile.ZIP_STORED
            return _manifest(archive) if stored else None
    except Exception:  # zipfile raises many kinds of errors on a damaged file
        return None


def read_engine_file(path: Path) -> EngineFile:
    """Read and check a whole file: what is returned is what was checked.

    Raises:
        BackendError: missing, not an engine file, cut off, edited, or not what its manifest says.
    """
    try:
        # A link is followed on purpose: the content is trusted, not the name.
        content = read_plain_file(Path(os.path.realpath(path)), MAX_FILE_BYTES)
    except BundleError as error:
        raise BackendError(f"engine file {path} cannot be read: {error.message}", _BUILD) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()  # nothing in it can swell
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("a part of it is compressed")
            if sum(member.file_size for member in members) > len(content):
                raise ValueError("its parts claim more bytes than it has")
            manifest = _manifest(archive)
            files = {stage.name: stage.file for stage in manifest.stages}
            if extra := {member.filename for member in members} - {MANIFEST, *files.values()}:
                raise ValueError(f"it holds {min(extra)!r}, which its manifest does not name")
            engines = {name: archive.read(file) for name, file in files.items()}
        for stage in manifest.stages:
            engine = engines[stage.name]
            if (len(engine), hashlib.sha256(engine).hexdigest()) != (stage.size, stage.sha256):
                raise ValueError(f"{stage.file} differs from its size and SHA-256")
    except MemoryError:
        raise
    except Exception as error:  # zipfile raises many kinds of errors on a damaged file
        reason = str(error)[:200] or type(error).__name__
        raise BackendError(
            f"{path} is cut off, edited or not an engine file: {reason}",
            f"copy it again, or {_BUILD}",
        ) from None
    return EngineFile(hashlib.sha256(content).hexdigest(), manifest, engines)
