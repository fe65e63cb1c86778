"""The manifest's schema: `manifest.json` has exactly these fields.

A bundle holds no code. Its stages are wired by the names of their tensors (see checks.py).

Convention: images uint8 (1, C, S, S), grey (C = 1) or RGB (C = 3); points (x, y) in [-1, 1] by the
manifest's geometry; deformation (1, h, w, 2): where each output pixel reads the source; time in
seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"

SOURCE_IMAGE, DRIVING_FRAME, FRAME = "source_image", "driving_frame", "frame"
DRIVING, REFERENCE = "driving_", "reference_"
"""Prefixes of the outputs of stages of the roles `observe` and `reference`."""
TRANSFER = "transfer"
"""The only stage that passes anything from the driving frame on to the picture."""

ALIGNMENT = "alignment"
"""Input of `transfer`, float32 (1, grid height, grid width, 2): for each cell of the source, the
point of the reference frame where its motion is read."""
CONFIDENCE = "confidence"
"""Optional output of `transfer`, float32 (1, 1, grid height, grid width): how sure the displacement
of each cell is, in [0, 1]."""
QUALITY = "quality"
"""Float32 (1, 4) for each frame: mean confidence in [0, 1], longest displacement as a share of the
square's side, share of the square that folds, share that is read from outside the square."""
LANDMARK_IMAGE, LANDMARKS = "landmark_image", "landmarks"
"""Input (an image) and output of the stage of role `landmarks`: float32 (1, K, 3), (x, y) in points
and the probability that the landmark is there."""

Role = Literal["source", "observe", "reference", "frame", "landmarks"]
"""`source` runs once per source image; `observe` on every driving frame and on the reference frame;
`reference` once per reference; `frame` on every driving frame, in order; `landmarks` on its own, on
the source and on the reference frame, to align them."""
Motion = Literal["relative", "absolute"]


@dataclass(frozen=True)
class Tensor:
    """An input or output of a stage. `shape` is static; `meaning` says units and axes in words."""

    name: str
    dtype: Literal["uint8", "float16", "float32"]
    shape: tuple[int, ...]
    meaning: str


@dataclass(frozen=True)
class Stage:
    """One step of the chain. `role` says when it runs: see `Role`."""

    name: str
    role: Role
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def per_frame(self) -> bool:
        """Whether it runs for every driving frame."""
        return self.role in ("observe", "frame")


@dataclass(frozen=True)
class StageFile(Stage):
    """A stage and its ONNX file."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Recurrent:
    """After each frame, output `from` becomes input `to`. A fresh state is zero."""

    from_: str
    to: str


@dataclass(frozen=True)
class ImageFormat:
    """Format of every image: uint8 (1, channels, size, size)."""

    size: int
    channels: Literal[1, 3]


@dataclass(frozen=True)
class SupervisedKeypoint:
    """A keypoint trained on labels, and the name of its landmark."""

    index: int
    name: str


@dataclass(frozen=True)
class KeypointControl:
    """The motion is carried by `count` keypoints, some of them supervised."""

    count: int
    supervised: tuple[SupervisedKeypoint, ...] = ()


@dataclass(frozen=True)
class DisplacementControl:
    """The motion is carried by a grid of displacements, and a grid of shading (0 x 0: none).

    `landmarks` names what the stage of role `landmarks` finds, if there is one."""

    grid_height: int
    grid_width: int
    shading_height: int = 0
    shading_width: int = 0
    landmarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ControlInput:
    """A float32 (1,) input that the caller sets. `range` is (smallest, largest)."""

    name: str
    default: float
    range: tuple[float, float]
    unit: str
    meaning: str


@dataclass(frozen=True)
class Layers:
    """Tensors, by name, from which a frame is composed over the source at any size (compose.py).

    `deformation` and `stiff` are (1, h, w, 2): where the source's low-pass and its texture are
    read. The others are (1, 1 or C, h, w).
    """

    deformation: str
    stiff: str
    gain: str
    offset: str
    gate: str


@dataclass(frozen=True)
class Tolerances:
    """How far export was from torch: `stage_abs` per stage (fp32), grey levels or dB per frame."""

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
    """PNG images at the model's size: `output` is the frame for `source`, `reference` and `driving`
    by this motion, without smoothing."""

    source: FileDigest
    reference: FileDigest
    driving: FileDigest
    output: FileDigest
    motion: Motion


@dataclass(frozen=True)
class DataCredit:
    """Data the model was trained on."""

    name: str
    licence: str


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from. The digest is a SHA-256 in hexadecimal, or empty."""

    checkpoint_sha256: str
    steps: int
    data: tuple[DataCredit, ...]
    licence: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Stages and their wiring: what a `Session` needs. Stages may be files or torch modules.

    `control` describes what carries the motion; `controls` are the scalars that the caller sets.
    """

    image: ImageFormat
    geometry: Literal["half_pixel", "fomm_aligned", "fomm_unaligned"]
    control: KeypointControl | DisplacementControl
    stages: tuple[Stage, ...]
    controls: tuple[ControlInput, ...] = ()
    recurrent: tuple[Recurrent, ...] = ()
    layers: Layers | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the chain by its name; equal names are one tensor."""
        found: dict[str, Tensor] = {}
        for stage in self.stages:
            for tensor in (*stage.inputs, *stage.outputs):
                found.setdefault(tensor.name, tensor)
        return found

    def of_role(self, role: Role) -> list[Stage]:
        """The stages of a role, in their order."""
        return [stage for stage in self.stages if stage.role == role]

    def given(self) -> list[str]:
        """Tensors that the caller writes: images and settings."""
        taken, images = self.tensors(), (SOURCE_IMAGE, DRIVING_FRAME, LANDMARK_IMAGE)
        return [*(name for name in images if name in taken), *self.settings()]

    def settings(self) -> list[str]:
        """What the caller sets besides images: the alignment and the controls."""
        taken, names = self.tensors(), (ALIGNMENT, *(control.name for control in self.controls))
        return [name for name in names if name in taken]

    def copied_references(self) -> list[tuple[str, str]]:
        """Pairs (driving_X, reference_X) where no stage makes reference_X: it is a copy of what
        `observe` made of the reference frame."""
        made = {tensor.name for stage in self.of_role("reference") for tensor in stage.outputs}
        seen = [tensor.name for stage in self.of_role("observe") for tensor in stage.outputs]
        pairs = [(name, REFERENCE + name.removeprefix(DRIVING)) for name in seen]
        copied = self.tensors().keys() - made
        return [pair for pair in pairs if pair[1] in copied]

    def motions(self) -> tuple[Motion, ...]:
        """The kinds of motion that this chain can make."""
        if any(control.name == "relative" for control in self.controls):
            return "relative", "absolute"
        takes_reference = self.copied_references() or self.of_role("reference")
        return ("relative",) if takes_reference else ("absolute",)


@dataclass(frozen=True, kw_only=True)
class Manifest(Chain):
    """`manifest.json`. `files`: other files of the bundle (model card, credits)."""

    schema_version: int
    name: str
    preset: str
    created_with: str
    precision: Literal["fp32", "fp16", "int8"]
    stages: tuple[StageFile, ...]
    tolerances: Tolerances
    golden: Golden
    provenance: Provenance
    files: tuple[FileDigest, ...] = ()

    def digests(self) -> list[tuple[str, str]]:
        """Every file that the manifest names, in order, and its SHA-256."""
        golden = self.golden
        pictures = (golden.source, golden.reference, golden.driving, golden.output)
        named: tuple[StageFile | FileDigest, ...] = (*self.stages, *pictures, *self.files)
        return [(each.file, each.sha256) for each in named]
