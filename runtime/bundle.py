"""THE CONTRACT: what passes from training and export to the runtime.

A bundle is a folder: `manifest.json` (the classes below are its schema), one ONNX file per stage, a
golden sample, a model card. Nothing in it is code, every file is checked against its SHA-256 before
use, and the stages are wired by the names of their tensors: a per-frame input is the output of an
earlier stage, the driving frame, a control, a reference keypoint or a recurrent state.

Convention: images uint8 (1, C, S, S), grey (C = 1) or RGB (C = 3), normalisation in the graphs;
points (x, y) in [-1, 1] by the manifest's geometry; deformation (1, h, w, 2): for each output
pixel, where to read in the source; seconds for time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .errors import BundleError
from .files import atomic_write_text
from .plain_file import read_plain_file
from .strict import StrictError, parse, plain
from .wiring import (
    CONTROLS,
    DRIVING_FRAME,
    FRAME,
    MANIFEST,
    SOURCE_IMAGE,
    check_values,
    validate_wiring,
)

__all__ = [
    "CONTROLS", "DRIVING_FRAME", "FRAME", "MANIFEST", "SCHEMA_VERSION", "SOURCE_IMAGE",
    "Bundle", "Conventions", "CustomOp", "DataCredit", "FileDigest", "Golden", "ImageFormat",
    "Keypoints", "Manifest", "Provenance", "Recurrent", "Stage", "SupervisedKeypoint", "Tensor",
    "Tolerances", "default_bundle_path", "parse_manifest", "sha256_file", "validate_wiring",
    "write_manifest",
]  # fmt: skip

SCHEMA_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 2 << 30  # protobuf's own bound on one ONNX file


@dataclass(frozen=True)
class Tensor:
    """One tensor on the wire. `shape` is static; `meaning` says units and axes in words."""

    name: str
    dtype: Literal["uint8", "float16", "float32"]
    shape: tuple[int, ...]
    meaning: str


@dataclass(frozen=True)
class Stage:
    """One ONNX file. `when`: `once` per source image, or `per_frame` in the order given."""

    name: str
    file: str
    sha256: str
    when: Literal["once", "per_frame"]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Recurrent:
    """After each frame the output `from` becomes the input `to`; zeros are a fresh state."""

    from_: str
    to: str


@dataclass(frozen=True)
class ImageFormat:
    """Frames on the wire: (1, channels, size, size)."""

    size: int
    channels: Literal[1, 3]
    dtype: Literal["uint8"] = "uint8"
    range: tuple[Literal[0], Literal[255]] = (0, 255)
    normalisation: Literal["in_graph"] = "in_graph"


@dataclass(frozen=True)
class Conventions:
    """What points mean. `geometry`: -1 and 1 are the image's edges (`half_pixel`), or `fomm`'s."""

    geometry: Literal["half_pixel", "fomm"]
    points: Literal["xy"] = "xy"
    padding: Literal["zeros"] = "zeros"
    align_corners: Literal[False] = False


@dataclass(frozen=True)
class SupervisedKeypoint:
    """A keypoint that was trained on labels, and the name of its landmark."""

    index: int
    name: str


@dataclass(frozen=True)
class Keypoints:
    """`count` = K points, of which some are supervised."""

    count: int
    supervised: tuple[SupervisedKeypoint, ...] = ()


@dataclass(frozen=True)
class CustomOp:
    """A custom-domain op that the stages use; each has a function body, so none is required."""

    domain: str
    name: str
    version: int


@dataclass(frozen=True)
class Tolerances:
    """Proven at export against torch: `stage_abs` per stage (fp32), grey levels or dB per frame."""

    stage_abs: float
    frame_levels: int | None = None
    psnr_db: float | None = None


@dataclass(frozen=True)
class FileDigest:
    """A file of the bundle and its SHA-256 in hexadecimal."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Golden:
    """PNG images at the model's size: `output` is what ABSOLUTE motion without smoothing makes of
    `source` and one `driving` frame."""

    source: FileDigest
    driving: FileDigest
    output: FileDigest


@dataclass(frozen=True)
class DataCredit:
    """Data the model was trained on."""

    name: str
    licence: str


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from. Digests are SHA-256 in hexadecimal, or empty when unknown."""

    config_sha256: str
    checkpoint_sha256: str
    steps: int
    data: tuple[DataCredit, ...]
    licence: str
    note: str = ""


@dataclass(frozen=True)
class Manifest:
    """`manifest.json`. `files`: whatever else the bundle holds (model card, credits)."""

    schema_version: int
    name: str
    preset: str
    created_with: str
    image: ImageFormat
    conventions: Conventions
    keypoints: Keypoints
    precision: Literal["fp32", "fp16"]
    stages: tuple[Stage, ...]
    tolerances: Tolerances
    golden: Golden
    provenance: Provenance
    recurrent: tuple[Recurrent, ...] = ()
    custom_ops: tuple[CustomOp, ...] = ()
    files: tuple[FileDigest, ...] = ()

    def digests(self) -> Iterator[FileDigest]:
        """Every file that the manifest names, in its order."""
        for stage in self.stages:
            yield FileDigest(stage.file, stage.sha256)
        yield from (self.golden.source, self.golden.driving, self.golden.output)
        yield from self.files

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, wherever it occurs first.

        Raises:
            BundleError: no stage has it.
        """
        for stage in self.stages:
            for tensor in (*stage.inputs, *stage.outputs):
                if tensor.name == name:
                    return tensor
        raise BundleError(f"no stage of bundle {self.name!r} has a tensor {name!r}")


def parse_manifest(text: str | bytes, where: str = MANIFEST) -> Manifest:
    """Read and check a manifest's text; `where` names it in messages.

    Raises:
        BundleError: for whatever is wrong with it.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        if isinstance(data, dict):
            version = data.get("schema_version")
            if type(version) is int and version != SCHEMA_VERSION:
                raise BundleError(
                    f"{where}: schema version {version}, this runtime reads {SCHEMA_VERSION}",
                    "install the sonomime that made the bundle, or export it again",
                )
        manifest = parse(Manifest, data)
        check_values(manifest)
        validate_wiring(manifest)
    except StrictError as error:
        raise BundleError(f"{where}: {error}", error.hint) from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not valid JSON: {str(error)[:200]}") from None
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` into `folder`; computes nothing, but refuses what would not be read.

    Raises:
        BundleError: the manifest is invalid.
        OutputError: it could not be written.
    """
    text = json.dumps(plain(manifest), indent=2, ensure_ascii=False) + "\n"
    parse_manifest(text)
    path = folder / MANIFEST
    atomic_write_text(path, text)
    return path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def default_bundle_path() -> Path:
    """The bundle inside the package, used when none is named."""
    return Path(__file__).parent / "default_bundle"


class Bundle:
    """An opened bundle: manifest read, wiring checked, every file's SHA-256 verified.

    `folder` is where it lies, `manifest` its manifest, `digest` the SHA-256 of the manifest's text,
    which covers every file.
    """

    def __init__(self, folder: Path, manifest: Manifest, digest: str) -> None:
        self.folder = folder
        self.manifest = manifest
        self.digest = digest

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Bundle:
        """Open the bundle in folder `path` (None: the default one) and verify all of it.

        Raises:
            BundleError: missing, malformed, wired wrongly, or a file differs from its digest.
        """
        folder = default_bundle_path() if path is None else Path(path)
        if not folder.is_dir():
            what = "the default bundle is missing" if path is None else f"no bundle at {folder}"
            hint = "a bundle is a folder with a manifest.json; `sonomime export` makes one"
            raise BundleError(what, hint)
        text = read_plain_file(folder / MANIFEST, MAX_MANIFEST_BYTES)
        manifest = parse_manifest(text, str(folder / MANIFEST))
        bundle = cls(folder, manifest, hashlib.sha256(text).hexdigest())
        for entry in manifest.digests():
            bundle.read(entry.file)
        return bundle

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            BundleError: the bundle has none.
        """
        for stage in self.manifest.stages:
            if stage.name == name:
                return stage
        raise BundleError(f"bundle {self.manifest.name!r} has no stage {name!r}")

    def path(self, stage: str | Stage) -> Path:
        """The ONNX file of a stage."""
        return self.folder / (self.stage(stage) if isinstance(stage, str) else stage).file

    def read(self, file: str) -> bytes:
        """A file's content, checked against its digest: what is returned is what was checked.

        Raises:
            BundleError: the manifest does not name it, it is not a plain file, or it has changed.
        """
        expected = {entry.file: entry.sha256 for entry in self.manifest.digests()}.get(file)
        if expected is None:
            raise BundleError(f"{self.folder}: the manifest names no file {file!r}")
        content = read_plain_file(self.folder / file, MAX_FILE_BYTES)
        if hashlib.sha256(content).hexdigest() != expected:
            raise BundleError(
                f"{self.folder / file} differs from its SHA-256 in the manifest",
                "the file was changed or damaged: copy or export the bundle again",
            )
        return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice in one table")
    return table


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
