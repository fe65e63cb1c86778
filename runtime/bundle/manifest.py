"""The manifest's schema: `manifest.json` has exactly these fields.

Nothing in a bundle is code. Its stages are wired by the names of their tensors: see `checks`.

Convention: images uint8 (1, C, S, S), grey (C = 1) or RGB (C = 3), normalisation in the graphs;
points (x, y) in [-1, 1] by the manifest's geometry; deformation (1, h, w, 2): for each output
pixel, where to read in the source; seconds for time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from ..support.errors import BundleError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"

SOURCE_IMAGE, DRIVING_FRAME, FRAME = "source_image", "driving_frame", "frame"
DRIVING, REFERENCE = "driving_", "reference_"
"""Prefixes of what stages of the roles `observe` and `reference` make."""
TRANSFER = "transfer"
"""The stage through which everything passes that the picture learns from the driving frame."""

ALIGNMENT = "alignment"
"""Float32 (1, grid height, grid width, 2), given by the caller for `transfer`: for each cell of the
source, where in the reference frame its motion is read, in points."""
CONFIDENCE = "confidence"
"""Float32 (1, 1, grid height, grid width), made by `transfer` where it can: how sure the
displacement of a cell is, in [0, 1]."""
QUALITY = "quality"
"""Float32 (1, 4) of a frame: mean confidence in [0, 1], longest displacement as a share of the
square's side, shares of it that fold and that are read from outside of it."""
LANDMARK_IMAGE, LANDMARKS = "landmark_image", "landmarks"
"""What the stage of role `landmarks` takes, an image, and makes: float32 (1, K, 3), (x, y) in
points and the probability that the landmark is there."""

Role = Literal["source", "observe", "reference", "frame", "landmarks"]
Motion = Literal["relative", "absolute"]


@dataclass(frozen=True)
class Tensor:
    """One tensor on the wire. `shape` is static; `meaning` says units and axes in words."""

    name: str
    dtype: Literal["uint8", "float16", "float32"]
    shape: tuple[int, ...]
    meaning: str


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    `role` says when it runs: `source` once per source image, `observe` on every driving frame (and
    on the reference frame), `reference` once per reference, `frame` per driving frame, in order;
    `landmarks` by itself, on the source and on the reference frame, to align them.
    """

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
    """After each frame the output `from` becomes the input `to`; zeros are a fresh state."""

    from_: str
    to: str


@dataclass(frozen=True)
class ImageFormat:
    """Frames on the wire: uint8 (1, channels, size, size)."""

    size: int
    channels: Literal[1, 3]


@dataclass(frozen=True)
class SupervisedKeypoint:
    """A keypoint that was trained on labels, and the name of its landmark."""

    index: int
    name: str


@dataclass(frozen=True)
class KeypointControl:
    """Keypoints carry the motion: `count` = K points, some of them supervised."""

    kind: Literal["keypoints"] = field(default="keypoints", kw_only=True)
    count: int
    supervised: tuple[SupervisedKeypoint, ...] = ()


@dataclass(frozen=True)
class DisplacementControl:
    """A grid of displacements carries the motion, and beside it a grid of shading (0 x 0: none).

    `landmarks` names what the stage of role `landmarks` finds, if there is one."""

    kind: Literal["displacement"] = field(default="displacement", kw_only=True)
    grid_height: int
    grid_width: int
    shading_height: int = 0
    shading_width: int = 0
    landmarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ControlInput:
    """A float32 (1,) input that the caller sets. `range` has its least and largest value."""

    name: str
    default: float
    range: tuple[float, float]
    unit: str
    meaning: str


@dataclass(frozen=True)
class Layers:
    """Tensors that the last stage makes beside the frame, (1, h, w, 2) and (1, 1 or C, h, w).

    With them the frame is composed over the source at any size: the low-pass of the source, read by
    `deformation`, times `gain` plus `offset`, plus the texture, which is what the low-pass leaves,
    read by `stiff`, times `gate`.
    """

    deformation: str
    stiff: str
    gain: str
    offset: str
    gate: str


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
    """PNG images at the model's size: `output` is what the model makes of `source` when `driving`
    follows `reference`, without smoothing, by the motion named."""

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
    """Where the weights come from. Digests are SHA-256 in hexadecimal, or empty when unknown."""

    config_sha256: str
    checkpoint_sha256: str
    steps: int
    data: tuple[DataCredit, ...]
    licence: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """How stages hang together: what `Session` needs, whether they are files or torch modules.

    `control` is what passes from the driving frame to the picture; `controls` are the scalars that
    the caller sets.
    """

    image: ImageFormat
    geometry: Literal["half_pixel", "fomm"]
    control: KeypointControl | DisplacementControl
    stages: tuple[Stage, ...]
    controls: tuple[ControlInput, ...] = ()
    recurrent: tuple[Recurrent, ...] = ()
    layers: Layers | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the chain by its name: equal names are one tensor."""
        found: dict[str, Tensor] = {}
        for stage in self.stages:
            for tensor in (*stage.inputs, *stage.outputs):
                found.setdefault(tensor.name, tensor)
        return found

    def of_role(self, *roles: Role) -> list[Stage]:
        """The stages of these roles, in their order."""
        return [stage for stage in self.stages if stage.role in roles]

    def given(self) -> list[str]:
        """Tensors that the caller writes: images and settings."""
        images = SOURCE_IMAGE, DRIVING_FRAME, LANDMARK_IMAGE
        taken = self.tensors()
        return [*(name for name in images if name in taken), *self.settings()]

    def settings(self) -> list[str]:
        """Those of them that go with every frame: the alignment and the controls."""
        names = ALIGNMENT, *(control.name for control in self.controls)
        taken = self.tensors()
        return [name for name in names if name in taken]

    def copied_references(self) -> list[tuple[str, str]]:
        """Pairs (driving_X, reference_X), where reference_X is what `observe` made of the reference
        frame, and no stage makes it."""
        tensors = self.tensors()
        made = {tensor.name for stage in self.of_role("reference") for tensor in stage.outputs}
        seen = [tensor.name for stage in self.of_role("observe") for tensor in stage.outputs]
        pairs = [(name, REFERENCE + name.removeprefix(DRIVING)) for name in seen]
        return [pair for pair in pairs if pair[1] in tensors and pair[1] not in made]

    def motions(self) -> tuple[Motion, ...]:
        """The motions that the caller may choose from."""
        if any(control.name == "relative" for control in self.controls):
            return "relative", "absolute"
        takes_reference = self.copied_references() or self.of_role("reference")
        return ("relative",) if takes_reference else ("absolute",)


@dataclass(frozen=True, kw_only=True)
class Manifest(Chain):
    """`manifest.json`. `files`: whatever else the bundle holds (model card, credits)."""

    schema_version: int
    name: str
    preset: str
    created_with: str
    precision: Literal["fp32", "fp16"]
    stages: tuple[StageFile, ...]
    tolerances: Tolerances
    golden: Golden
    provenance: Provenance
    custom_ops: tuple[CustomOp, ...] = ()
    files: tuple[FileDigest, ...] = ()

    def digests(self) -> Iterator[FileDigest]:
        """Every file that the manifest names, in its order."""
        for stage in self.stages:
            yield FileDigest(stage.file, stage.sha256)
        golden = self.golden
        yield from (golden.source, golden.reference, golden.driving, golden.output)
        yield from self.files

    def stage(self, name: str) -> StageFile:
        """The stage of that name.

        Raises:
            BundleError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise BundleError(f"bundle {self.name!r} has no stage {name!r}")
