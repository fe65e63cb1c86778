"""What a manifest must keep beyond the types of its fields, above all how the stages hang together.

They are wired by the names of their tensors. A per-frame input is the output of an earlier stage,
the driving frame, a control, a recurrent state, or `reference_X`: what the stage `keypoints` made
as `driving_X` of the reference frame.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .errors import BundleError
from .strict import StrictError

if TYPE_CHECKING:
    from .bundle import Manifest, Stage, Tensor

MANIFEST = "manifest.json"
SOURCE_IMAGE = "source_image"
DRIVING_FRAME = "driving_frame"
FRAME = "frame"
DRIVING, REFERENCE = "driving_", "reference_"
CONTROLS = ("relative", "scale", "min_cutoff", "beta", "dt_seconds")
"""Float32 (1,) inputs that the caller sets: relative 0 or 1; scale of the motion; One-Euro's
min_cutoff in Hz (<= 0: no smoothing) and beta; seconds since the last frame."""

REQUIRED_STAGES = ("source", "keypoints", "transfer", "motion", "generator")
DETECTOR = "keypoints"

MAX_ELEMENTS = 1 << 28  # of one tensor: 1 GiB of float32
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
_TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def check_values(manifest: Manifest) -> None:
    """Check what the types alone do not say: ranges, plain file names, digests, tensor names.

    Raises:
        StrictError: naming the value.
    """
    if not 16 <= manifest.image.size <= 4096:
        raise StrictError("image.size", "expected 16 to 4096")
    if not 1 <= manifest.keypoints.count <= 1000:
        raise StrictError("keypoints.count", "expected 1 to 1000")
    for i, point in enumerate(manifest.keypoints.supervised):
        if not 0 <= point.index < manifest.keypoints.count:
            raise StrictError(f"keypoints.supervised[{i}].index", "there is no such keypoint")
    seen: dict[str, str] = {}
    for entry in manifest.digests():
        if not _PLAIN_NAME.fullmatch(entry.file) or entry.file == MANIFEST:
            shown = ascii(entry.file[:100])
            raise StrictError("", f"{shown} is not a plain file name", "no folders, no `..`")
        if not _SHA256.fullmatch(entry.sha256):
            raise StrictError(entry.file, "sha256 is not 64 lower-case hexadecimal digits")
        if seen.setdefault(entry.file, entry.sha256) != entry.sha256:
            raise StrictError(entry.file, "named twice with different digests")
    for i, stage in enumerate(manifest.stages):
        for tensor in (*stage.inputs, *stage.outputs):
            where = f"stages[{i}] ({stage.name[:40]}), tensor {tensor.name[:40]!r}"
            if not _TENSOR_NAME.fullmatch(tensor.name):
                raise StrictError(where, "a name has letters, digits and underscores only")
            size = 1
            for side in tensor.shape:
                if not 1 <= side <= MAX_ELEMENTS:
                    raise StrictError(where, f"impossible shape {list(tensor.shape)[:8]}")
                size *= side
            if size > MAX_ELEMENTS or len(tensor.shape) > 8:
                raise StrictError(where, f"shape {list(tensor.shape)[:8]} is too large")


def validate_wiring(manifest: Manifest) -> None:
    """Check names, order, shapes and dtypes of the whole chain.

    No stage but `keypoints` may take the driving frame: whatever else the model knows of it has
    passed through the keypoints, so no driving anatomy leaks into the picture.

    Raises:
        BundleError: naming the stage and the tensor.
    """
    names = [stage.name for stage in manifest.stages]
    for required in REQUIRED_STAGES:
        if required not in names:
            hint = "a bundle has the stages " + ", ".join(REQUIRED_STAGES)
            raise BundleError(f"the manifest has no stage {required!r}", hint)
    if len(set(names)) != len(names):
        raise BundleError("two stages of the manifest have one name")
    if sorted(manifest.stages, key=lambda s: s.when != "once") != list(manifest.stages):
        raise BundleError("a stage that runs once comes after one that runs per frame")
    _check_detector(manifest)

    size, channels = manifest.image.size, manifest.image.channels
    image = ("uint8", (1, channels, size, size))
    control = ("float32", (1,))
    produced: dict[str, Tensor] = {}
    states = {pair.to: pair.from_ for pair in manifest.recurrent}
    if len(states) != len(manifest.recurrent):
        raise BundleError("two recurrent outputs become one input")
    external: dict[str, Tensor] = {}  # inputs that no stage makes, by name
    for stage in manifest.stages:
        for tensor in stage.inputs:
            made = produced.get(tensor.name)
            if made is not None:
                _agree(stage, tensor, made)
                continue
            if tensor.name == SOURCE_IMAGE and stage.when == "once":
                _must_be(stage, tensor, image)
            elif stage.when == "once":
                raise _unknown(stage, tensor)
            elif tensor.name == DRIVING_FRAME:
                _must_be(stage, tensor, image)
                if stage.name != DETECTOR:
                    raise BundleError(
                        f"stage {stage.name!r} takes the driving frame",
                        f"only stage {DETECTOR!r} may: else the driving anatomy could leak",
                    )
            elif tensor.name in CONTROLS:
                _must_be(stage, tensor, control)
            elif tensor.name.startswith(REFERENCE):
                detected = produced.get(DRIVING + tensor.name.removeprefix(REFERENCE))
                if detected is None or detected not in _detector(manifest).outputs:
                    raise _unknown(stage, tensor)
                _agree(stage, tensor, detected)
            elif tensor.name not in states:
                raise _unknown(stage, tensor)
            if tensor.name in external:
                _agree(stage, tensor, external[tensor.name])
            external[tensor.name] = tensor
        for tensor in stage.outputs:
            if tensor.name in produced or tensor.name in external:
                raise BundleError(f"stage {stage.name!r} makes {tensor.name!r} once more")
            if tensor.name in (SOURCE_IMAGE, DRIVING_FRAME, *CONTROLS):
                raise BundleError(f"stage {stage.name!r} makes {tensor.name!r}, which is given")
            produced[tensor.name] = tensor
        if len({tensor.name for tensor in stage.inputs}) != len(stage.inputs):
            raise BundleError(f"stage {stage.name!r} takes one input twice")

    for to, from_ in states.items():
        if from_ not in produced or to not in external or to in CONTROLS:
            raise BundleError(f"recurrent state {from_!r} -> {to!r} is not in the stages")
        state, made = external[to], produced[from_]
        if (state.dtype, state.shape) != (made.dtype, made.shape):
            raise BundleError(f"recurrent state {from_!r} and {to!r} differ in shape or dtype")
    final = next((t for t in manifest.stages[-1].outputs if t.name == FRAME), None)
    if final is None:
        raise BundleError(f"the last stage, {names[-1]!r}, does not make {FRAME!r}")
    _must_be(manifest.stages[-1], final, image)


def _detector(manifest: Manifest) -> Stage:
    return next(stage for stage in manifest.stages if stage.name == DETECTOR)


def _check_detector(manifest: Manifest) -> None:
    """The detector runs alone on a reference frame, so it may depend on nothing but the frame."""
    detector = _detector(manifest)
    inputs = [tensor.name for tensor in detector.inputs]
    if detector.when != "per_frame" or inputs != [DRIVING_FRAME]:
        raise BundleError(f"stage {DETECTOR!r} must take {DRIVING_FRAME!r} alone, per frame")
    for tensor in detector.outputs:
        if not tensor.name.startswith(DRIVING):
            raise BundleError(f"output {tensor.name!r} of {DETECTOR!r} must begin {DRIVING!r}")
    points = ("float32", (1, manifest.keypoints.count, 2))
    value = DRIVING + "kp_value"
    found = [tensor for tensor in detector.outputs if tensor.name == value]
    if not found:
        raise BundleError(f"stage {DETECTOR!r} does not make {value!r}")
    _must_be(detector, found[0], points)


def _agree(stage: Stage, tensor: Tensor, made: Tensor) -> None:
    _must_be(stage, tensor, (made.dtype, made.shape))


def _must_be(stage: Stage, tensor: Tensor, expected: tuple[str, tuple[int, ...]]) -> None:
    if (tensor.dtype, tensor.shape) != expected:
        dtype, shape = expected
        raise BundleError(
            f"stage {stage.name!r}: {tensor.name!r} is {tensor.dtype} {list(tensor.shape)}, "
            f"expected {dtype} {list(shape)}"
        )


def _unknown(stage: Stage, tensor: Tensor) -> BundleError:
    return BundleError(
        f"stage {stage.name!r}: nothing makes its input {tensor.name!r}",
        "an input is an earlier output, the image or frame, a control, a reference or a state",
    )
